"""What gives a frame a score: weights in the pipeline as it runs live, or a reference.

One rule: all see the same pixels, mask and stated geometry; only a reference that says so is
shown the noise-free image as well, which no live frame has.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.geometry import Geometry
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.references.reference import Reference, references
from hitfinder.models.series_context import SeriesContext
from hitfinder.models.spots import Spots
from hitfinder.models.weights_file import shipped_path
from hitfinder.sim.frames import Exposure
from hitfinder.workers.evaluate_plans import SeriesPlan, Subset
from hitfinder.workers.evaluate_scores import REFERENCES, code_digest
from hitfinder.workers.reduction import pool


@dataclass(frozen=True, slots=True)
class Score:
    """What one frame got.

    Attributes:
        any, spots3: scores of the two outputs, higher = more like a hit.
        peaks: reported, None from what reports none.
    """

    any: float
    spots3: float
    peaks: Spots | None


class Scorer(Protocol):
    """Scores the frames of one series after another."""

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        """Start a series."""

    def score(self, exposure: Exposure) -> Score:
        """Score the next frame."""


@dataclass(frozen=True, slots=True)
class ScorerName:
    """Names a scorer, so that another process can make it.

    Attributes:
        label: row of a table; a reference's name.
        kind: "live" judges a series in order through one context; "forgetful" begins anew with
            each frame, so that the series teaches nothing; "reference" is one of those.
        weights: file, None for the shipped ones; of a reference the folder, None for none.
    """

    label: str
    kind: Literal["live", "forgetful", "reference"]
    weights: Path | None = None

    @property
    def is_slow(self) -> bool:
        """Whether it looks at a part of the frames only."""
        return self.kind != "live"

    def chosen(self, plan: SeriesPlan, subset: Subset) -> NDArray[np.int64]:
        """Return the numbers of the frames of a series that it looks at."""
        return subset.frames(plan) if self.is_slow else np.arange(len(plan.frames))

    def digest(self) -> str:
        """Return a fingerprint of what it does."""
        if self.kind == "reference":
            files = sorted(self.weights.iterdir()) if self.weights else []
            packed = [self.label.encode(), code_digest(REFERENCES).encode()]
            packed += [path.read_bytes() for path in files if path.is_file()]
        else:
            packed = [(self.weights or shipped_path()).read_bytes()]
        return f"{self.kind}-{hashlib.sha256(b''.join(packed)).hexdigest()}"

    def make(self) -> Scorer:
        """Return the scorer."""
        if self.kind == "reference":
            named = {reference.name: reference for reference in references(self.weights)}
            return _Referee(named[self.label])
        return _Weights(self.weights, is_forgetful=self.kind == "forgetful")


def reference_names(folder: Path | None) -> list[ScorerName]:
    """Return the references that can run here: the untrained, and those of a folder."""
    return [ScorerName(reference.name, "reference", folder) for reference in references(folder)]


class _Weights:
    def __init__(self, path: Path | None, *, is_forgetful: bool) -> None:
        self._pipeline = Pipeline(path)
        self._is_forgetful = is_forgetful
        self._stated: tuple[Geometry, NDArray[np.bool_]] | None = None
        self._context: SeriesContext | None = None

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        self._stated, self._context = (geometry, valid), None

    def score(self, exposure: Exposure) -> Score:
        if self._stated is None:
            raise AssertionError("a series begins before its frames")
        if self._context is None or self._is_forgetful:
            self._context = self._pipeline.begin(*self._stated)
        pooled = pool(exposure.image, self._context.valid)
        judgement = self._pipeline.judge([exposure.image], self._context, [pooled])[0]
        return Score(judgement.p_any, judgement.p_spots3, judgement.peaks)


class _Referee:
    """A reference as a scorer."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        self._reference.begin(geometry, valid)

    def score(self, exposure: Exposure) -> Score:
        noise_free = None
        if self._reference.needs_truth:
            bragg = exposure.bragg
            blank = np.zeros(exposure.image.shape, np.float32)
            noise_free = blank if bragg is None else bragg.dense()
        score = self._reference.score(exposure.image, noise_free)
        return Score(score, score, None)
