"""A worker between the ring's states: every frame it takes is judged or settled, in order."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import bitshuffle
import numpy as np
import pytest

from hitfinder.models.pipeline import Pipeline
from hitfinder.stream.bslz4 import decode
from hitfinder.stream.intake import Intake
from hitfinder.stream.messages import Blob, Codec, Frame, FrameHeader, SeriesStart
from hitfinder.stream.ring import Bells, Layout, Ring, State, create_memory
from hitfinder.workers.children import MAX_ATTEMPTS, reclaim
from hitfinder.workers.config import Config, GeometryConfig
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.session import FIRST_WORKER_ROLE
from hitfinder.workers.worker import Worker

SHAPE = (256, 256)
START = SeriesStart(1, n_frames=64, shape=SHAPE, dtype="uint16")


def packed(image: np.ndarray) -> Blob:
    body = bitshuffle.compress_lz4(image.reshape(-1), 4096).tobytes()
    payload = struct.pack(">QI", image.nbytes, 8192) + body
    return Blob("threshold_1", SHAPE, "uint16", Codec.BSLZ4, 2, memoryview(payload))


def frames(n: int) -> list[Blob]:
    """Return blanks with two pixels that are always bright, as a series teaches them."""
    rng = np.random.default_rng(1)
    images = rng.poisson(0.1, (n, *SHAPE)).astype(np.uint16)
    images[:, 40, 50], images[:, 200, 100] = 40, 90
    return [packed(image) for image in images]


class Bench:
    """A ring with an intake before it and nobody behind the worker."""

    def __init__(self, runtime: Path) -> None:
        layout = Layout(n_slots=64, slot_bytes=1 << 18)
        self.fd, self.runtime = create_memory(layout), runtime
        self.ring = Ring(self.fd, layout)
        self.bells = Bells.create(["receiver", "worker0", "sink", "supervisor"])
        self.intake = Intake(self.ring, self.bells, runtime, when_full="block", beat=lambda: True)
        self.intake.take(START)

    def worker(self, n_decoders: int = 2) -> Worker:
        return Worker(
            self.ring,
            self.bells,
            self.runtime,
            Config(),
            FIRST_WORKER_ROLE,
            "cpu",
            n_decoders,
            is_live=True,
        )

    def take(self, blobs: list[Blob]) -> None:
        for number, blob in enumerate(blobs):
            self.intake.take(Frame(FrameHeader(1, number), (blob,)))

    def numbers(self, state: State) -> list[int]:
        return [int(self.ring.slots["frame"][slot]) for slot in self.ring.in_state(state)]

    def close(self) -> None:
        for fd in (self.fd, *self.bells.fds.values()):
            os.close(fd)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_frames_reduced_ahead_are_judged_as_they_are_one_by_one(bench: Bench) -> None:
    blobs = frames(40)
    bench.take(blobs)
    worker = bench.worker()
    for _ in blobs:
        worker.run_once(0.0)
    images = [decode(blob) for blob in blobs]
    geometry = OperatorGeometry(GeometryConfig()).of_series(START, images[0])
    pipeline = Pipeline()
    context = pipeline.begin(geometry.geometry, geometry.valid)
    alone = [pipeline.judge([image], context, frames=[k])[0] for k, image in enumerate(images)]
    assert context.series.n_hot == 2
    for slot, judgement in zip(bench.ring.in_state(State.JUDGED), alone, strict=True):
        record = bench.ring.record(slot)
        assert (record.p_any, record.n_photons) == (judgement.p_any, judgement.n_photons)
        assert record.n_learned == judgement.n_learned


def test_bytes_that_do_not_decode_are_corrupt_and_the_others_judged(bench: Bench) -> None:
    blobs = frames(5)
    for k in (0, 3):
        payload = bytearray(blobs[k].payload)
        payload[12:16] = b"\xff" * 4
        blobs[k] = Blob("threshold_1", SHAPE, "uint16", Codec.BSLZ4, 2, memoryview(payload))
    bench.take(blobs)
    worker = bench.worker()
    for _ in blobs:
        worker.run_once(0.0)
    assert bench.numbers(State.JUDGED) == [0, 1, 2, 3, 4]
    records = [bench.ring.record(slot) for slot in bench.ring.in_state(State.JUDGED)]
    assert [r.frame for r in records if r.outcome == "corrupt"] == [0, 3]
    assert "block 0: 4294967295 compressed bytes announced" in str(records[3].reason)
    assert bench.ring.control["n_malformed"][0] == 2
    assert "frame 3 of series 1" in bench.ring.errors()[1]


def test_of_the_frames_a_dead_worker_held_only_the_one_that_kills_is_given_up(
    bench: Bench,
) -> None:
    bench.take(frames(6))
    bench.worker().run_once(0.0)  # judges frame 0, holds 1 and 2, and dies
    assert bench.numbers(State.JUDGING) == [1, 2]
    reclaim(bench.ring, bench.bells, FIRST_WORKER_ROLE)
    for _ in range(MAX_ATTEMPTS - 1):  # frame 1 kills each of its successors
        (slot, *_others) = bench.ring.in_state(State.RECEIVED)
        assert bench.ring.claim(slot, State.RECEIVED, State.JUDGING, FIRST_WORKER_ROLE)
        reclaim(bench.ring, bench.bells, FIRST_WORKER_ROLE)
    worker = bench.worker()
    worker.run_once(0.0)
    assert bench.numbers(State.JUDGING) == []  # frame 2 came alone
    for _ in range(3):
        worker.run_once(0.0)
    outcomes = [str(bench.ring.record(s).outcome) for s in bench.ring.in_state(State.JUDGED)]
    assert outcomes[1] == "lost"
    assert len(outcomes) == 6
    assert "lost" not in outcomes[:1] + outcomes[2:]
