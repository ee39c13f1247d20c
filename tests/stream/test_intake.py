"""Messages into the ring: every frame is somewhere, whatever comes and whoever dies."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hitfinder.stream.errors import WireError
from hitfinder.stream.intake import Intake, header_path
from hitfinder.stream.messages import (
    Blob,
    Codec,
    Frame,
    FrameHeader,
    Message,
    SeriesEnd,
    SeriesStart,
    unpack_start,
)
from hitfinder.stream.ring import Bells, Layout, Ring, State, create_memory

IMAGE = np.arange(48, dtype=np.uint16).reshape(6, 8)


def frame(series: int, number: int, payload: bytes | None = None) -> Frame:
    body = memoryview(IMAGE.tobytes() if payload is None else payload)
    blob = Blob("threshold_1", (6, 8), "uint16", Codec.NONE, 2, body)
    return Frame(FrameHeader(series, number), (blob,))


class Bench:
    """An intake with nobody behind it."""

    def __init__(self, runtime: Path, when_full: str = "block") -> None:
        layout = Layout(n_slots=4, slot_bytes=1 << 14)
        self.fd = create_memory(layout)
        self.ring = Ring(self.fd, layout)
        self.bells = Bells.create(["receiver", "worker0", "sink", "supervisor"])
        self.runtime, self.when_full, self.go_on = runtime, when_full, True
        self.intake = self.make()

    def make(self) -> Intake:
        return Intake(
            self.ring,
            self.bells,
            self.runtime,
            when_full=self.when_full,
            beat=lambda: self.go_on,
        )

    def close(self) -> None:
        for fd in (self.fd, *self.bells.fds.values()):
            os.close(fd)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_a_frame_waits_in_its_slot_as_it_was_sent(bench: Bench) -> None:
    bench.intake.take(SeriesStart(1, n_frames=2))
    bench.intake.take(frame(1, 0))
    (slot,) = bench.ring.in_state(State.RECEIVED)
    assert bytes(bench.ring.blobs(slot)[0].payload) == IMAGE.tobytes()


def test_the_header_is_left_for_the_other_processes(bench: Bench) -> None:
    mask = np.eye(6, 8, dtype=np.uint32)
    bench.intake.take(SeriesStart(1, n_frames=2, clen_m=0.25, pixel_mask=mask, header={"a": [1]}))
    key = int(bench.ring.series["key"][0])
    start = unpack_start(header_path(bench.runtime, key).read_bytes())
    assert (start.series, start.n_frames, start.clen_m, start.header) == (1, 2, 0.25, {"a": [1]})
    np.testing.assert_array_equal(start.pixel_mask, mask)


def test_a_series_without_header_gets_one_that_says_so(bench: Bench) -> None:
    bench.intake.take(frame(4, 7))
    key = int(bench.ring.series["key"][0])
    start = unpack_start(header_path(bench.runtime, key).read_bytes())
    assert start.shape == (6, 8)
    assert "no header" in start.warnings[0]


def test_a_header_with_half_a_surrogate_pair_is_taken(bench: Bench) -> None:
    bench.intake.take(SeriesStart(1, detector="Eiger \ud800", header={"x": ["\udfff"]}))
    assert len(bench.intake.series.open_entries()) == 1


def test_a_malformed_message_is_counted_and_its_frame_is_corrupt(bench: Bench) -> None:
    bench.intake.take(SeriesStart(1, "UID", n_frames=3))
    bench.intake.take(WireError("blob too short", series=1, frame=2))
    bench.intake.take(WireError("no message at all"))
    (slot,) = bench.ring.in_state(State.JUDGED)
    record = bench.ring.record(slot)
    assert (record.outcome, record.frame, record.reason) == ("corrupt", 2, "blob too short")
    assert record.series_uid == "UID"
    assert bench.ring.control["n_malformed"][0] == 2
    assert bench.ring.errors() == ["blob too short", "no message at all"]


def test_a_frame_that_fits_no_slot_is_dropped_with_the_reason(bench: Bench) -> None:
    big = Blob("threshold_1", (100, 100), "uint16", Codec.NONE, 2, memoryview(bytes(20_000)))
    bench.intake.take(Frame(FrameHeader(1, 0), (big,)))
    (slot,) = bench.ring.in_state(State.JUDGED)
    record = bench.ring.record(slot)
    assert record.outcome == "dropped"
    assert "ring.slot_bytes" in str(record.reason)


def test_the_same_frame_twice_takes_one_slot(bench: Bench) -> None:
    for _ in range(2):
        bench.intake.take(frame(1, 0))
    assert int((bench.ring.states != State.FREE).sum()) == 1


def test_a_full_ring_drops_after_the_hold_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hitfinder.stream.intake.MAX_HOLD_S", 0.05)
    bench = Bench(tmp_path, "drop")
    for number in range(6):
        bench.intake.take(frame(1, number))
    entry = bench.intake.series.open_entries()[0]
    assert bench.ring.series["n_dropped"][entry] == 2
    assert list(bench.intake.series.unseen(entry)[1]) == [4, 5]
    assert len(bench.ring.in_state(State.RECEIVED)) == 4
    bench.ring.release(bench.ring.in_state(State.RECEIVED)[0])
    bench.intake.take(frame(1, 6))
    assert len(bench.ring.in_state(State.RECEIVED)) == 4
    bench.close()


def test_a_full_ring_is_held_longer_while_a_process_has_no_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hitfinder.stream.intake.MAX_HOLD_S", 0.0)
    bench = Bench(tmp_path, "drop")
    bench.ring.control["n_down"][0] = 1
    for number in range(4):
        bench.intake.take(frame(1, number))
    beats = iter([True] * 5)

    def successor_is_up() -> bool:
        if next(beats, None) is None:
            bench.ring.control["n_down"][0] = 0
        return True

    bench.intake.beat = successor_is_up
    bench.intake.take(frame(1, 4))
    entry = bench.intake.series.open_entries()[0]
    assert bench.ring.series["n_dropped"][entry] == 1
    assert next(beats, None) is None
    bench.close()


def test_a_full_ring_is_noted_as_time_in_which_the_wire_was_not_read(bench: Bench) -> None:
    for number in range(4):
        bench.intake.take(frame(1, number))
    assert bench.ring.control["t_unread_ns"][0] == 0
    bench.go_on = False
    bench.intake.take(frame(1, 4))
    assert bench.ring.control["t_unread_ns"][0] > 0


def test_a_series_is_sealed_also_while_the_intake_waits_for_room(bench: Bench) -> None:
    for number in range(4):
        bench.intake.take(frame(1, number))
    entry = bench.intake.series.open_entries()[0]
    bench.intake.series.request_close(entry, "ended")
    beats = iter([True, True, False])
    bench.intake.beat = lambda: next(beats)
    bench.intake.take(frame(1, 4))
    assert bench.ring.series["sealed"][entry] == 1


class Killed(BaseException):
    """The receiver dies here."""


def killed_at(bench: Bench, name: str, message: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a message up to a step in which the receiver dies."""

    def die(*_: object) -> None:
        raise Killed

    of, attribute = {
        "describe": (bench.ring, "describe"),
        "store": (bench.ring, "store_blobs"),
        "mark": (bench.intake.series, "mark"),
        "hand on": (bench.ring, "set_state"),
        "leave header": (bench.intake, "_leave_header"),
        "done": (bench.bells, "ring"),
    }[name]
    with monkeypatch.context() as dying:
        dying.setattr(of, attribute, die)
        with pytest.raises(Killed):
            bench.intake.take(message)


@pytest.mark.parametrize("step", ["describe", "store", "mark", "hand on", "done"])
def test_a_frame_at_which_a_receiver_died_is_taken_by_its_successor(
    bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.intake.take(SeriesStart(1, n_frames=4))
    bench.intake.take(frame(1, 0))
    killed_at(bench, step, frame(1, 1), monkeypatch)
    successor = bench.make()
    successor.recover()
    successor.take(frame(1, 1), again=True)
    successor.take(frame(1, 2))
    slots = bench.ring.in_state(State.RECEIVED)
    assert [int(bench.ring.slots["frame"][slot]) for slot in slots] == [0, 1, 2]
    assert bytes(bench.ring.blobs(slots[1])[0].payload) == IMAGE.tobytes()
    assert int((bench.ring.states == State.FREE).sum()) == 1
    assert bench.ring.series["n_received"][0] == 3
    assert bench.ring.series["n_duplicate"][0] == 0
    successor.take(frame(1, 1))  # sent again: it is here already
    assert bench.ring.series["n_duplicate"][0] == 1


@pytest.mark.parametrize("uid", [None, "UID"])
@pytest.mark.parametrize("step", ["leave header", "done"])
def test_a_header_at_which_a_receiver_died_opens_one_series(
    bench: Bench, uid: str | None, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = SeriesStart(5, uid, n_frames=9, clen_m=0.25)
    killed_at(bench, step, start, monkeypatch)
    successor = bench.make()
    successor.recover()
    successor.take(start, again=True)
    (entry,) = successor.series.open_entries()
    path = header_path(bench.runtime, int(bench.ring.series["key"][entry]))
    assert unpack_start(path.read_bytes()).clen_m == 0.25
    assert not bench.ring.series["ended"][entry]


def test_an_end_at_which_a_receiver_died_is_not_stale(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.intake.take(SeriesStart(1, n_frames=4))
    killed_at(bench, "done", SeriesEnd(1), monkeypatch)
    bench.make().take(SeriesEnd(1), again=True)
    assert bench.ring.control["n_stale"][0] == 0


def test_a_header_that_is_given_up_has_a_stand_in(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(bench, "leave header", SeriesStart(5, "UID", n_frames=9), monkeypatch)
    bench.make().give_up("message of 7 bytes: 3 receivers died taking it")
    path = header_path(bench.runtime, int(bench.ring.series["key"][0]))
    found = unpack_start(path.read_bytes())
    assert (found.series, found.series_uid, found.n_frames) == (5, "UID", 9)
    assert "killed" in found.warnings[0]
    assert bench.ring.errors() == ["message of 7 bytes: 3 receivers died taking it"]


def test_an_end_of_an_unknown_series_is_stale(bench: Bench) -> None:
    bench.intake.take(SeriesEnd(77))
    assert bench.ring.control["n_stale"][0] == 1
