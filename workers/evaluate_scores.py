"""Scores of the frames of a series, and the folder that keeps them.

One rule: what a scorer said of a series is kept under a name made of all that it depends on: the
plan, the patterns, the scorer and this program's code. So an evaluation that was stopped goes on
where it was, and no stale score is ever taken for a fresh one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.workers.evaluate_plans import BLANK, SeriesPlan
from hitfinder.workers.evaluate_positions import COLUMNS, N_BINS, REPORTED

CODE_FOLDERS, CODE_SUFFIXES = ("models", "sim"), (".py", ".c")
REFERENCES = ("models.references",)
"""Their code changes their own scores only."""


@dataclass(frozen=True, slots=True, eq=False)
class SeriesScores:
    """What a scorer said of frames of one series, and what was true of them; n frames.

    Attributes:
        frame: int64 (n,), numbers in the series, rising.
        any: float64 (n,), score of the output `any`: a probability, or what a reference has.
        spots3: float64 (n,), the same of `spots3`; a reference's one score again.
        is_hit: bool (n,).
        n_spots: int64 (n,), reflections of at least 3 expected photons on active pixels.
        reflections: float32 (n, bins, columns), `PositionCounter.count`; 0 of blanks.
        reported: float32 (n, columns), the same of peaks.
    """

    frame: NDArray[np.int64]
    any: NDArray[np.float64]
    spots3: NDArray[np.float64]
    is_hit: NDArray[np.bool_]
    n_spots: NDArray[np.int64]
    reflections: NDArray[np.float32]
    reported: NDArray[np.float32]

    @classmethod
    def unscored(cls, frame: NDArray[np.int64]) -> SeriesScores:
        """Return room for the scores of these frames."""
        n = len(frame)
        return cls(
            frame=frame,
            any=np.full(n, np.nan),
            spots3=np.full(n, np.nan),
            is_hit=np.zeros(n, np.bool_),
            n_spots=np.zeros(n, np.int64),
            reflections=np.zeros((n, N_BINS, len(COLUMNS)), np.float32),
            reported=np.zeros((n, len(REPORTED)), np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A series' plan beside its scores, row by row of the scores.

    Attributes:
        pattern: int64 (n,), as `FramePlan`.
        strength: float64 (n,).
    """

    plan: SeriesPlan
    scores: SeriesScores
    pattern: NDArray[np.int64]
    strength: NDArray[np.float64]

    @classmethod
    def of(cls, plan: SeriesPlan, scores: SeriesScores) -> Scored:
        """Return them together."""
        frames = [plan.frames[k] for k in scores.frame]
        pattern = np.array([f.pattern for f in frames], np.int64)
        return cls(plan, scores, pattern, np.array([f.strength for f in frames]))

    @property
    def is_blank(self) -> NDArray[np.bool_]:
        """bool (n,), planned without a crystal."""
        return np.asarray(self.pattern == BLANK)

    def output(self, name: str) -> NDArray[np.float64]:
        """Return the scores of `any` or `spots3`."""
        return self.scores.any if name == "any" else self.scores.spots3

    def only(self, chosen: NDArray[np.int64]) -> Scored:
        """Return the part of these frame numbers, all of which were scored."""
        rows = np.searchsorted(self.scores.frame, chosen)
        parts = {f.name: getattr(self.scores, f.name)[rows] for f in fields(self.scores)}
        return Scored.of(self.plan, replace(self.scores, **parts))


class ScoreFolder:
    """Keeps scores by plan and scorer.

    Args:
        folder: made if it is not there.
        patterns: digest of the patterns of each data set.
        detector_shape: (ss, fs).
    """

    def __init__(
        self, folder: Path, patterns: dict[str, str], detector_shape: tuple[int, int]
    ) -> None:
        self._folder, self._patterns, self._shape = folder, patterns, detector_shape
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, plan: SeriesPlan, scorer: str) -> Path:
        """Return where the scores that this scorer (named with its digest) gives lie."""
        depends = (plan, self._shape, self._patterns[plan.dataset], scorer, code_digest())
        return self._folder / f"{plan.name}-{_short(depends)}.npz"

    def section_path(self, part: str, key: str) -> Path:
        """Return where a section that rests on no series lies."""
        depends = (part, key, self._shape, sorted(self._patterns.items()), code_digest())
        return self._folder / f"{part}-{_short(depends)}.json"

    def read(self, path: Path) -> SeriesScores:
        """Return kept scores."""
        with np.load(path) as arrays:
            return SeriesScores(**{f.name: arrays[f.name] for f in fields(SeriesScores)})

    def write(self, path: Path, scores: SeriesScores) -> None:
        """Keep scores; a file is there whole or not at all."""
        half = path.with_suffix(".part")
        with half.open("wb") as file:
            arrays: dict[str, Any] = {f.name: getattr(scores, f.name) for f in fields(scores)}
            np.savez_compressed(file, **arrays)
        half.replace(path)


def _short(depends: object) -> str:
    return hashlib.sha256(repr(depends).encode()).hexdigest()[:16]


@cache
def code_digest(folders: tuple[str, ...] = CODE_FOLDERS) -> str:
    """Return a fingerprint of the program's code that frames and scores depend on."""
    hashed = hashlib.sha256()
    for folder in folders:
        for path in sorted(Path(str(files(f"hitfinder.{folder}"))).glob("*")):
            if path.suffix in CODE_SUFFIXES:
                hashed.update(path.read_bytes())
    return hashed.hexdigest()
