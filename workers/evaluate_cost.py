"""What judging costs on one core, as a multiple of copying the same frame.

One rule: all steps are timed in turn within the same minute, thread time, medians: other users
of the machine slow a memcpy as they slow the gate. Gate and heads are what judging takes beyond
the background, which is the front end's with the pooling.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hitfinder.models.evidence import gather_evidence
from hitfinder.models.pipeline import Pipeline
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import Detector, data_sets
from hitfinder.workers.evaluate_frames import stated_geometry
from hitfinder.workers.reduction import pool

HIT_SHARE = 0.2
TARGET = 1.5
COPIES = 16
"""Buffers a copy goes round in, so that it does not stay in cache."""
N_HOT_PIXELS, HOT_SEED = 5, 11
N_WARM = 16
"""Frames judged before the clock runs: the series model has then seen the hot pixels."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds a frame, medians.

    Attributes:
        memcpy_ms: of the decoded frame.
        pool_ms, background_ms: the front end beside the decoding.
        blank_ms, hit_ms: judging, background included.
        n: times each was measured.
    """

    memcpy_ms: float
    pool_ms: float
    background_ms: float
    blank_ms: float
    hit_ms: float
    n: int

    @property
    def gate_ms(self) -> float:
        """Gate and heads at the usual share of hits."""
        return HIT_SHARE * self.hit_ms + (1 - HIT_SHARE) * self.blank_ms - self.background_ms

    @property
    def x_memcpy(self) -> float:
        """The same as a multiple of a memcpy."""
        return self.gate_ms / self.memcpy_ms


def measure_cost(weights: Path | None, detector: Detector, rounds: int) -> Cost:
    """Measure on frames of the nine data sets, a blank and a hit of each, hot pixels present."""
    torch.set_num_threads(1)
    pipeline = Pipeline(weights)
    valid = ~detector.gap_mask
    context = pipeline.begin(stated_geometry(detector), valid)
    blanks, hits = (_frames(detector, fraction) for fraction in (0.0, 1.0))
    pooled = {id(image): pool(image, context.valid) for image in (*blanks, *hits)}
    copies = [np.ones(detector.shape, np.uint16) for _ in range(COPIES)]

    def judge(images: list[np.ndarray[tuple[int, int], np.dtype[np.uint16]]], k: int) -> None:
        image = images[k % len(images)]
        pipeline.judge([image], context, [pooled[id(image)]])

    def estimate(k: int) -> None:
        maps = pooled[id(blanks[k % len(blanks)])]
        gather_evidence(maps.sums, maps.maxima, context.cells, n_candidates=0)

    steps: dict[str, Callable[[int], object]] = {
        "memcpy_ms": lambda k: np.copyto(copies[k % COPIES], copies[(k + 1) % COPIES]),
        "pool_ms": lambda k: pool(blanks[k % len(blanks)], context.valid),
        "background_ms": estimate,
        "blank_ms": lambda k: judge(blanks, k),
        "hit_ms": lambda k: judge(hits, k),
    }
    for k in range(N_WARM):
        judge(blanks, k)
    taken_s: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(rounds):
        for name, step in steps.items():
            begin_s = time.thread_time()
            step(k)
            taken_s[name].append(time.thread_time() - begin_s)
    return Cost(n=rounds, **{name: 1e3 * float(np.median(s)) for name, s in taken_s.items()})


def _frames(
    detector: Detector, hit_fraction: float
) -> list[np.ndarray[tuple[int, int], np.dtype[np.uint16]]]:
    """Return a frame of each data set; hot pixels lie where they lie in all of them."""
    frames = []
    for k, name in enumerate(data_sets()):
        settings = FrameSettings(
            datasets=(name,), hit_fraction=hit_fraction, n_hot_pixels=N_HOT_PIXELS
        )
        frames.append(FrameSource(settings, HOT_SEED, detector).draw(k).image.astype(np.uint16))
    return frames
