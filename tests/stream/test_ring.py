"""The ring's claims: states survive any process, slots are handed out warm, nothing overflows."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.stream.errors import RingError
from hitfinder.stream.messages import Blob, Codec, FrameHeader
from hitfinder.stream.results import Outcome
from hitfinder.stream.ring import Bells, Layout, Ring, State, create_memory


@pytest.fixture
def ring() -> Iterator[Ring]:
    layout = Layout(n_slots=4, slot_bytes=1 << 16)
    fd = create_memory(layout)
    yield Ring(fd, layout)
    os.close(fd)


def raw_blob(image: np.ndarray, channel: str = "threshold_1") -> Blob:
    shape = (image.shape[0], image.shape[1])
    payload = memoryview(image.tobytes())
    return Blob(channel, shape, image.dtype.name, Codec.NONE, image.itemsize, payload)


def fill(ring: Ring, frame: int, image: np.ndarray) -> int:
    slot = ring.take_free()
    assert slot is not None
    ring.describe(slot, FrameHeader(7, frame, "UID"), key=1, t_received_ns=5)
    ring.store_blobs(slot, (raw_blob(image),))
    return slot


def test_a_slot_gives_back_the_bytes(ring: Ring) -> None:
    image = np.arange(24, dtype=np.uint16).reshape(4, 6)
    slot = fill(ring, 3, image)
    assert bytes(ring.blobs(slot)[0].payload) == image.tobytes()


def test_all_channels_of_an_exposure_are_kept(ring: Ring) -> None:
    first, second = np.zeros((4, 6), np.uint16), np.ones((4, 6), np.uint32)
    slot = ring.take_free()
    assert slot is not None
    ring.describe(slot, FrameHeader(7, 0), key=1, t_received_ns=5)
    ring.store_blobs(slot, (raw_blob(first), raw_blob(second, "threshold_2")))
    kept = ring.blobs(slot)
    assert [b.channel for b in kept] == ["threshold_1", "threshold_2"]
    assert bytes(kept[1].payload) == second.tobytes()


def test_a_frame_larger_than_a_slot_says_what_to_raise(ring: Ring) -> None:
    image = np.zeros((200, 200), np.uint16)
    with pytest.raises(RingError, match=r"frame 9 of series 7.*raise ring\.slot_bytes"):
        fill(ring, 9, image)


def test_an_image_larger_than_a_slot_is_refused_however_well_it_is_packed(ring: Ring) -> None:
    slot = ring.take_free()
    assert slot is not None
    ring.describe(slot, FrameHeader(7, 9), key=1, t_received_ns=5)
    blob = Blob("threshold_1", (200, 200), "uint16", Codec.BSLZ4, 2, memoryview(bytes(99)))
    with pytest.raises(RingError, match=r"needs 80000; raise ring\.slot_bytes"):
        ring.store_blobs(slot, (blob,))


def test_the_most_recently_freed_slot_is_handed_out_next(ring: Ring) -> None:
    taken = [ring.take_free() for _ in range(4)]
    assert ring.take_free() is None
    for slot in (2, 0, 3):
        ring.release(slot)
    assert sorted(s for s in taken if s is not None) == [0, 1, 2, 3]
    assert [ring.take_free() for _ in range(3)] == [3, 0, 2]


def test_slots_come_in_the_order_of_reception(ring: Ring) -> None:
    image = np.zeros((4, 6), np.uint16)
    slots = [fill(ring, k, image) for k in range(3)]
    for slot in reversed(slots):
        ring.set_state(slot, State.RECEIVED)
    assert ring.in_state(State.RECEIVED) == slots


def test_only_one_process_can_claim_a_slot(ring: Ring) -> None:
    slot = fill(ring, 0, np.zeros((4, 6), np.uint16))
    ring.set_state(slot, State.RECEIVED)
    other = Ring(ring.fd, ring.layout)
    assert other.claim(slot, State.RECEIVED, State.JUDGING, owner=3)
    assert not ring.claim(slot, State.RECEIVED, State.JUDGING, owner=2)
    assert (ring.state_of(slot), ring.owner_of(slot)) == (State.JUDGING, 3)
    assert ring.in_state(State.JUDGING) == [slot]


def test_a_fresh_slot_has_no_verdict_and_unknown_values_are_none(ring: Ring) -> None:
    slot = fill(ring, 0, np.zeros((4, 6), np.uint16))
    ring.settle(slot, Outcome.CORRUPT, "because")
    record = ring.record(slot)
    assert (record.outcome, record.reason) == (Outcome.CORRUPT, "because")
    assert record.series == 7
    assert record.series_uid == "UID"
    for name in ("p_hit", "n_peaks", "peaks", "clen_m", "mismatch", "n_photons", "file", "row"):
        assert getattr(record, name) is None, name


def test_the_verdict_in_a_slot_is_the_record(ring: Ring) -> None:
    slot = fill(ring, 0, np.zeros((4, 6), np.uint16))
    header = ring.slots[slot]
    header["p_hit"], header["n_peaks"], header["mismatch"] = 0.75, 2, 0
    ring.peaks[slot, 0, :2] = (1.5, 2.5)
    ring.settle(slot, Outcome.HIT, "")
    record = ring.record(slot)
    assert record.p_hit == 0.75
    assert record.mismatch is False
    assert record.peaks is not None
    np.testing.assert_array_equal(record.peaks.arrays()["fs"], [1.5, 2.5])


def test_memory_outlives_a_killed_process_and_is_nowhere_by_name(ring: Ring) -> None:
    code = (
        "import os, signal, sys\n"
        "from hitfinder.stream.messages import FrameHeader\n"
        "from hitfinder.stream.ring import Layout, Ring, State\n"
        "ring = Ring(int(sys.argv[1]), Layout(4, 1 << 16))\n"
        "slot = ring.take_free()\n"
        "ring.describe(slot, FrameHeader(1, 42), 1, 0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ring.fd)], pass_fds=(ring.fd,))
    assert done.returncode == -9
    (slot,) = ring.in_state(State.FILLING)
    assert ring.slots["frame"][slot] == 42
    assert os.readlink(f"/proc/self/fd/{ring.fd}").startswith("/memfd:")


def test_a_doorbell_rung_before_the_wait_is_not_missed() -> None:
    bells = Bells.create(["sink", "worker0"])
    bells.ring("worker")
    bells.wait("worker0", timeout_s=30.0)
    for fd in bells.fds.values():
        os.close(fd)


def test_processes_that_count_the_same_lose_none(ring: Ring) -> None:
    other = Ring(ring.fd, ring.layout)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda r: [r.next("n_malformed") for _ in range(2000)], (ring, other)))
    assert ring.control["n_malformed"][0] == 4000


def test_the_latest_malformed_messages_are_kept(ring: Ring) -> None:
    for k in range(40):
        ring.note_error(f"bad {k}")
    assert ring.errors() == [f"bad {k}" for k in range(24, 40)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 2), max_size=60))
def test_the_ring_keeps_every_frame_exactly_once(moves: list[int]) -> None:
    layout = Layout(n_slots=3, slot_bytes=1 << 12)
    fd = create_memory(layout)
    ring = Ring(fd, layout)
    waiting: list[int] = []
    taken: list[int] = []
    n = 0
    for move in moves:
        if move == 0 and (slot := ring.take_free()) is not None:
            ring.describe(slot, FrameHeader(1, n), 1, 0)
            ring.set_state(slot, State.RECEIVED)
            waiting.append(n)
            n += 1
        elif move == 1 and waiting:
            slot = ring.in_state(State.RECEIVED)[0]
            assert ring.slots["frame"][slot] == waiting[0]
            assert ring.claim(slot, State.RECEIVED, State.JUDGING)
            taken.append(waiting.pop(0))
        elif move == 2 and taken:
            slot = ring.in_state(State.JUDGING)[0]
            assert ring.slots["frame"][slot] == taken.pop(0)
            ring.release(slot)
    assert int((ring.states != State.FREE).sum()) == len(waiting) + len(taken)
    os.close(fd)
