"""How long a worker keeps 4M frames waiting while another mask or model is loaded beside its work.

    python tests/bench/controls_2026-11-23/replaced.py FRAMES

One worker, one process: frames are put into the ring one at a time, and each turn that judges one
is timed on the clock, as a frame would wait; then the same while a mask and while a model is
offered. A memcpy of a decoded frame is timed in between.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hitfinder.models import weights
from hitfinder.models.masks import mask_sha256
from hitfinder.sim.physics import Detector
from hitfinder.stream import bslz4, wire
from hitfinder.stream.candidate import Candidate
from hitfinder.stream.controls import AS_CONFIGURED, Controls, Replacement, mask_path, model_path
from hitfinder.stream.intake import Intake
from hitfinder.stream.messages import Frame, FrameHeader, SeriesStart
from hitfinder.stream.ring import Bells, Layout, Ring, State, create_memory
from hitfinder.workers.bench_frames import BenchFrames, FrameMix, Memcpy
from hitfinder.workers.config import Config
from hitfinder.workers.session import FIRST_WORKER_ROLE
from hitfinder.workers.worker import Worker

ROLES = range(FIRST_WORKER_ROLE, FIRST_WORKER_ROLE + 1)


class Bench:
    """A ring with a worker, and frames that come one at a time."""

    def __init__(self, runtime: Path, n_frames: int) -> None:
        layout = Layout(8, 40 << 20)
        self.ring, self.runtime = Ring(create_memory(layout), layout), runtime
        bells = Bells.create(["receiver", "worker0", "sink", "supervisor"])
        self.shape = Detector().shape
        self._intake = Intake(self.ring, bells, runtime, when_full="block", beat=lambda: True)
        self._intake.take(SeriesStart(1, n_frames=100_000, shape=self.shape, dtype="uint16"))
        frames = BenchFrames(self.shape, FrameMix(), n_frames)
        read = (wire.decode(frames.message(k, "v2")) for k in range(n_frames))
        self._blobs = [message.blobs for message in read if isinstance(message, Frame)]
        self.worker = Worker(self.ring, bells, runtime, Config(), FIRST_WORKER_ROLE, "cpu", 1)
        self.n_taken = 0
        self.image = bslz4.decode(self._blobs[0][0])

    def turn_s(self) -> float:
        """Return how long the next frame takes from the ring's front to its verdict."""
        self._intake.take(
            Frame(FrameHeader(1, self.n_taken), self._blobs[self.n_taken % len(self._blobs)])
        )
        self.n_taken += 1
        begun_s = time.monotonic()
        while not (judged := self.ring.in_state(State.JUDGED)):
            self.worker.run_once(0.0)
        took_s = time.monotonic() - begun_s
        self.ring.release(judged[0])
        return took_s


def copies_s(memcpy: Memcpy) -> Iterator[float]:
    """Yield what copies take."""
    for k in range(50):
        begun_s = time.monotonic()
        memcpy(k)
        yield time.monotonic() - begun_s


def show(what: str, turns_s: list[float], memcpy_s: float) -> None:
    turns = sorted(turns_s)
    median, longest = statistics.median(turns), turns[-1]
    late = turns[int(0.95 * (len(turns) - 1))]
    print(
        f"| {what} | {len(turns)} | {1e3 * median:.1f} | {1e3 * late:.1f} | {1e3 * longest:.1f}"
        f" | {median / memcpy_s:.1f} | {longest / memcpy_s:.0f} |"
    )


def main(n_frames: int) -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        runtime = Path(made)
        bench = Bench(runtime, n_frames)
        good = np.ones(bench.shape, np.bool_)
        good[:200] = False
        mask = mask_sha256(good)
        np.save(mask_path(runtime, mask), good)
        loaded = weights.load()
        model = "a1" * 32
        weights.save(model_path(runtime, model), loaded.net, loaded.calibration, loaded.water, {})
        candidate = Candidate(bench.ring)
        for _ in range(n_frames):
            bench.turn_s()
        memcpy_s = statistics.median(copies_s(Memcpy(bench.image)))
        print("| while | frames | median ms | 95 % | longest | median, memcpys | longest |")
        print("|---|---|---|---|---|---|---|")
        show("nothing else", [bench.turn_s() for _ in range(n_frames)], memcpy_s)
        for what, would_be, has_model in (
            ("a mask is prepared", AS_CONFIGURED._replace(mask=mask, n_masks=1), False),
            ("a model is loaded", AS_CONFIGURED._replace(model=model, threshold=0.5), True),
        ):
            offer = candidate.offer(would_be, has_model=has_model)
            turns = list[float]()
            while candidate.waits_for(offer.number, ROLES):
                turns.append(bench.turn_s())
            show(what, turns, memcpy_s)
            assert not candidate.refusals(offer.number, ROLES)
            if has_model:
                turns = [bench.turn_s() for _ in range(n_frames)]
                show("both models judge", turns, memcpy_s)
            else:
                change = Controls(bench.ring).put(mask=Replacement(mask))
                turns = [bench.turn_s() for _ in range(change.frame - bench.n_taken + 4)]
                show("the mask comes into force", turns, memcpy_s)
            candidate.withdraw()


if __name__ == "__main__":
    main(int(sys.argv[1]))
