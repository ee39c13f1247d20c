"""A worker between the ring's states: every frame it takes is judged or settled, in order."""

import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bitshuffle
import numpy as np
import pytest

from hitfinder.models import weights
from hitfinder.models.masks import mask_sha256
from hitfinder.models.pipeline import Pipeline
from hitfinder.stream.bslz4 import decode
from hitfinder.stream.candidate import Candidate, Offer
from hitfinder.stream.controls import AS_CONFIGURED, Controls, Replacement, mask_path
from hitfinder.stream.intake import Intake
from hitfinder.stream.learned import all_learned
from hitfinder.stream.messages import Blob, Codec, Frame, FrameHeader, SeriesStart
from hitfinder.stream.ring import MAX_ROLES, Bells, Layout, Ring, State, create_memory
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

    def free(self) -> None:
        """Give back the slots of the frames that are judged, as if they were published."""
        for slot in self.ring.in_state(State.JUDGED):
            self.ring.release(slot)

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


def offered(bench: Bench, **to: object) -> tuple[Candidate, Offer]:
    """Offer what would be changed to."""
    candidate = Candidate(bench.ring)
    would_be = AS_CONFIGURED._replace(threshold=0.5, **to)
    return candidate, candidate.offer(would_be, has_model="model" in to)


def until_answered(worker: Worker, candidate: Candidate, offer: Offer) -> list[str]:
    """Let a worker go on until it has answered; returns its refusals."""
    mine = range(FIRST_WORKER_ROLE, FIRST_WORKER_ROLE + 1)
    deadline = time.monotonic() + 60
    while candidate.waits_for(offer.number, mine):
        assert time.monotonic() < deadline
        worker.run_once(0.01)
    return candidate.refusals(offer.number, mine)


def test_frames_are_judged_while_a_model_loads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, go_on = weights.load(), threading.Event()

    def load(path: Path) -> weights.Weights:
        assert go_on.wait(60)
        return shipped

    worker, blobs = bench.worker(), frames(12)
    monkeypatch.setattr(weights, "load", load)
    bench.take(blobs[:6])
    candidate, offer = offered(bench, model="a1" * 32)
    for _ in range(6):
        worker.run_once(0.0)
    assert len(bench.numbers(State.JUDGED)) == 6
    go_on.set()
    assert until_answered(worker, candidate, offer) == []
    for number, blob in enumerate(blobs[6:], 6):
        bench.intake.take(Frame(FrameHeader(1, number), (blob,)))
        worker.run_once(0.0)
    judged = candidate.judged(offer.number, range(FIRST_WORKER_ROLE, FIRST_WORKER_ROLE + 1))
    # The same weights, so they agree; what was judged while it loaded does not count.
    assert (int(judged.sum()), judged[0, 1], judged[1, 0]) == (6, 0, 0)


def test_a_mask_is_prepared_beside_and_begins_another_list(bench: Bench) -> None:
    good = np.ones(SHAPE, np.bool_)
    good[:, :60] = False  # one of the two bright pixels
    digest = mask_sha256(good)
    np.save(mask_path(bench.runtime, digest), good)
    worker, blobs = bench.worker(), frames(60)
    bench.take(blobs[:30])
    for _ in range(30):
        worker.run_once(0.0)
    candidate, offer = offered(bench, mask=digest, n_masks=1)
    assert until_answered(worker, candidate, offer) == []
    change = Controls(bench.ring).put(mask=Replacement(digest))
    bench.free()
    for number in range(30, 60):
        bench.intake.take(Frame(FrameHeader(1, change.frame - 40 + number), (blobs[number],)))
        worker.run_once(0.0)
    records = [bench.ring.record(slot) for slot in bench.ring.in_state(State.JUDGED)]
    assert [r.mask for r in records] == [None] * 10 + [digest[:12]] * 20
    assert {r.learned_by for r in records} == {0, MAX_ROLES}
    # What the frames had taught goes on to count.
    lists = {one.worker: one.entries for one in all_learned(bench.runtime, 1)}
    known = {(40, 50), (200, 100)}
    for number in (0, MAX_ROLES):
        hot = lists[number][lists[number]["kind"] == b"hot"]["pixel"]
        assert {divmod(int(pixel), SHAPE[1]) for pixel in hot} == known


def test_a_mask_of_another_shape_is_refused(bench: Bench) -> None:
    np.save(mask_path(bench.runtime, "c3" * 32), np.ones((10, 10), np.bool_))
    worker = bench.worker()
    bench.take(frames(1))
    worker.run_once(0.0)
    (refusal,) = until_answered(worker, *offered(bench, mask="c3" * 32, n_masks=1))
    assert "expected (ss, fs) = (256, 256)" in refusal
