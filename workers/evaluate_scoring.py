"""Scoring in several processes: series by series, kept as they come.

One rule: a series is scored by one process from its first frame to its last, since it teaches;
frames are drawn once for all scorers that lack them.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hitfinder.sim.frames import Exposure
from hitfinder.sim.patterns import Pattern
from hitfinder.sim.physics import Detector
from hitfinder.workers.evaluate_frames import SeriesFrames, load_patterns, stated_geometry
from hitfinder.workers.evaluate_plans import SeriesPlan, Subset
from hitfinder.workers.evaluate_positions import PositionCounter
from hitfinder.workers.evaluate_scorers import Score, Scorer, ScorerName
from hitfinder.workers.evaluate_scores import ScoreFolder, SeriesScores

POLL_S = 0.5
# A library that starts a thread a core makes every process slower.
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Task:
    """A series to be scored.

    Attributes:
        wanted: scorers whose scores are not there yet, and where they go.
        subset: what slow scorers look at.
    """

    plan: SeriesPlan
    wanted: tuple[tuple[ScorerName, Path], ...]
    subset: Subset

    @property
    def n_frames(self) -> int:
        """How many frames must be drawn."""
        return max(len(self.chosen(name)) for name, _ in self.wanted)

    def chosen(self, name: ScorerName) -> NDArray[np.int64]:
        """Return the numbers of the frames that a scorer looks at."""
        return name.chosen(self.plan, self.subset)


def score_all(
    tasks: Sequence[Task],
    folder: ScoreFolder,
    data: Sequence[Path],
    detector_shape: tuple[int, int],
    processes: int,
    console: Console,
) -> None:
    """Score the series and keep the scores; slow scorers last, else the longest first."""
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Value("q", 0)
    given = (tuple(data), detector_shape, folder, done)
    # One process is this one: another would only load everything again.
    executor: Executor = (
        ThreadPoolExecutor(1, "scoring", _prepare, given)
        if processes == 1
        else ProcessPoolExecutor(processes, spawn, _prepare, given)
    )
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    for name in THREAD_SETTINGS:
        os.environ.setdefault(name, "1")
    with (
        Progress(TextColumn("{task.description}"), *columns, console=console) as progress,
        executor as pool,
    ):
        bar = progress.add_task("frames", total=sum(t.n_frames for t in tasks))
        waiting: set[Future[None]] = {
            pool.submit(_score, task) for task in sorted(tasks, key=_urgency)
        }
        while waiting:
            finished, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
            progress.update(bar, completed=done.value)
            for future in finished:
                future.result()


def _urgency(task: Task) -> tuple[bool, int]:
    return any(name.is_slow for name, _ in task.wanted), -task.n_frames


@dataclass(slots=True)
class _Here:
    """What a process makes once."""

    patterns: dict[str, tuple[Pattern, ...]]
    detector: Detector
    folder: ScoreFolder
    done: Synchronized[int]
    scorers: dict[ScorerName, Scorer]


_HERE: list[_Here] = []


def _prepare(
    data: Sequence[Path], shape: tuple[int, int], folder: ScoreFolder, done: Synchronized[int]
) -> None:
    torch.set_num_threads(1)
    _HERE[:] = [_Here(load_patterns(data), Detector(shape=shape), folder, done, {})]


def _score(task: Task) -> None:
    here = _HERE[0]
    frames = SeriesFrames(task.plan, here.patterns[task.plan.dataset], here.detector)
    counter = _counter(task.plan, here.detector)
    valid = ~here.detector.gap_mask
    looking: list[tuple[Scorer, SeriesScores, dict[int, int]]] = []
    for name, _ in task.wanted:
        if name not in here.scorers:
            here.scorers[name] = name.make()
        here.scorers[name].begin(stated_geometry(here.detector), valid)
        chosen = task.chosen(name)
        rows = {int(k): row for row, k in enumerate(chosen)}
        looking.append((here.scorers[name], SeriesScores.unscored(chosen), rows))
    for k in sorted(set().union(*(rows for _, _, rows in looking))):
        exposure = frames.draw(k)
        for scorer, scores, rows in looking:
            if k in rows:
                said = scorer.score(exposure)
                _note(scores, rows[k], exposure, said)
                if counter is not None and exposure.is_hit and said.peaks is not None:
                    counted = counter.count(exposure.spots, exposure.all_spots, said.peaks)
                    scores.reflections[rows[k]], scores.reported[rows[k]] = counted
        with here.done.get_lock():
            here.done.value += 1
    for (_, path), (_, scores, _) in zip(task.wanted, looking, strict=True):
        here.folder.write(path, scores)


def _counter(plan: SeriesPlan, detector: Detector) -> PositionCounter | None:
    """Return what counts positions, where all spots have one width."""
    if plan.part != "gate":
        return None
    return PositionCounter(detector, plan.sigma_px)


def _note(scores: SeriesScores, row: int, exposure: Exposure, score: Score) -> None:
    scores.any[row], scores.spots3[row] = score.any, score.spots3
    scores.is_hit[row] = exposure.is_hit
    scores.n_spots[row] = len(exposure.spots)
