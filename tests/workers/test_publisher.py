"""What the publisher counts: each frame once, at the latest when its series closes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from hitfinder.stream.intake import Intake
from hitfinder.stream.messages import Blob, Codec, Frame, FrameHeader, SeriesEnd, SeriesStart
from hitfinder.stream.ring import Bells, Layout, Ring, State, create_memory
from hitfinder.workers.config import GeometryConfig, SinkConfig
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.publisher import Publisher


class Bench:
    """An intake before a publisher, and a sink between them that stores at once."""

    def __init__(self, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hitfinder.stream.intake.MAX_HOLD_S", 0.0)
        layout = Layout(n_slots=4, slot_bytes=1 << 14)
        self.fd = create_memory(layout)
        self.ring, self.context = Ring(self.fd, layout), zmq.Context()
        self.bells = Bells.create(["receiver", "worker0", "sink", "supervisor"])
        self.intake = Intake(self.ring, self.bells, runtime, when_full="drop", beat=lambda: True)
        sink = SinkConfig(results="tcp://127.0.0.1:*")
        operator = OperatorGeometry(GeometryConfig())
        self.publisher = Publisher(self.context, sink, self.ring, self.bells, runtime, operator)

    def take(self, *numbers: int) -> None:
        for number in numbers:
            blob = Blob("threshold_1", (6, 8), "uint16", Codec.NONE, 2, memoryview(bytes(96)))
            self.intake.take(Frame(FrameHeader(1, number), (blob,)))

    def store(self) -> None:
        for slot in self.ring.in_state(State.RECEIVED):
            self.ring.write_verdict(slot, outcome=1)
            self.ring.set_state(slot, State.STORED)
        self.publisher.publish_stored()

    def counts(self) -> dict[str, int]:
        return {name: n for name, n in self.publisher.counts_now().items() if n}

    def close(self) -> None:
        self.publisher.close(0)
        self.context.term()
        for fd in (self.fd, *self.bells.fds.values()):
            os.close(fd)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    bench.close()


def test_of_a_series_that_waits_for_its_first_frame_none_is_missing(bench: Bench) -> None:
    bench.intake.take(SeriesStart(1, n_frames=10, shape=(6, 8), dtype="uint16"))
    assert [bench.counts() for _ in range(3)] == [{}, {}, {}]


def test_a_gap_is_missing_once_it_was_passed_over_and_no_more_when_it_is_filled(
    bench: Bench,
) -> None:
    bench.intake.take(SeriesStart(1, n_frames=10))
    bench.take(0, 1, 4)
    bench.store()
    assert bench.counts() == {"miss": 3}  # 2 and 3 may be on their way
    assert bench.counts() == {"miss": 3, "missing": 2}
    bench.take(2, 6)
    bench.store()
    assert bench.counts() == {"miss": 5, "missing": 1}
    assert bench.counts() == {"miss": 5, "missing": 2}


def test_a_dropped_frame_counts_at_once_and_every_frame_once_when_its_series_closes(
    bench: Bench,
) -> None:
    bench.intake.take(SeriesStart(1, n_frames=9))
    bench.take(0, 1, 3, 4, 5, 6)  # the last two find no slot
    assert bench.counts() == {"dropped": 2}
    assert bench.counts() == {"dropped": 2, "missing": 1}
    bench.store()
    bench.intake.take(SeriesEnd(1))
    bench.publisher.step_series(source_gone=True)
    final = {"miss": 4, "dropped": 2, "missing": 3}
    assert bench.counts() == final
    entry = bench.publisher.series.open_entries()[0]
    bench.ring.series["drained"][entry] = bench.ring.series["finalised"][entry] = 1
    bench.publisher.step_series(source_gone=True)
    assert bench.publisher.n_released == 1
    assert bench.counts() == final
