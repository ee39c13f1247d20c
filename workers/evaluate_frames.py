"""Frames of an evaluation's series, drawn one by one with their truth.

One rule: frame k of a plan is a function of the plan and the patterns alone, so a scorer that
looks at a few of them sees the very pixels that one which looks at all does. All frames of a
series share the seed, hence the places of the hot pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hitfinder.models.geometry import Geometry
from hitfinder.sim.frames import Exposure, FrameSource
from hitfinder.sim.pattern_files import read_patterns
from hitfinder.sim.patterns import Pattern, shipped_patterns
from hitfinder.sim.physics import Detector, data_sets
from hitfinder.workers.evaluate_plans import BLANK, SHOWN_BY_CHANCE, SeriesPlan

PatternSets = Mapping[str, Sequence[Pattern]]


def load_patterns(data: Sequence[Path]) -> dict[str, tuple[Pattern, ...]]:
    """Return the shipped patterns of each data set, those of `data` behind them.

    Raises:
        SimulationError: a path that holds none.
    """
    more = [read_patterns(path) for path in data]
    return {
        name: sum((m.get(name, ()) for m in more), shipped_patterns(name)) for name in data_sets()
    }


def digest(patterns: Sequence[Pattern]) -> str:
    """Return a fingerprint of patterns, in order."""
    hashed = hashlib.sha256()
    for pattern in patterns:
        hashed.update(repr(pattern.shape).encode())
        hashed.update(np.ascontiguousarray(pattern.index).tobytes())
        hashed.update(np.ascontiguousarray(pattern.photons).tobytes())
    return hashed.hexdigest()


def stated_geometry(detector: Detector) -> Geometry:
    """Return what a header would say of a detector: its beam centre as a pixel index."""
    fs, ss = detector.center_px
    size_m = (detector.pixel_size_m, detector.pixel_size_m)
    return Geometry(detector.shape, size_m, (fs - 0.5, ss - 0.5))


class SeriesFrames:
    """Draws the frames of one series.

    Args:
        plan: what to draw.
        patterns: of the plan's data set.
        detector: the array.
    """

    def __init__(self, plan: SeriesPlan, patterns: Sequence[Pattern], detector: Detector) -> None:
        self._plan, self._patterns, self._detector = plan, patterns, detector
        self._sources: dict[int, FrameSource] = {}

    def draw(self, k: int) -> Exposure:
        """Return frame `k` with its truth."""
        frame = self._plan.frames[k]
        source = self._source(frame.pattern)
        if frame.pattern != SHOWN_BY_CHANCE:
            is_hit = frame.pattern != BLANK
            source.settings = replace(
                source.settings,
                hit_fraction=float(is_hit),
                strength=frame.strength if is_hit else 1.0,
            )
        return source.draw(self._plan.first + k)

    def _source(self, pattern: int) -> FrameSource:
        settings = self._plan.settings
        if settings.patterns == "generator":
            pattern = SHOWN_BY_CHANCE
        if pattern not in self._sources:
            shown = self._patterns if pattern < 0 else self._patterns[pattern : pattern + 1]
            sets = {self._plan.dataset: shown} if settings.patterns == "shipped" else None
            self._sources[pattern] = FrameSource(
                settings, self._plan.seed, self._detector, pattern_sets=sets
            )
        return self._sources[pattern]
