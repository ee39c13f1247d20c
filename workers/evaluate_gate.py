"""The gate's main table from scored series: hits by strength and flux, S90, positions.

One rule: three cuts stand side by side: the shipped threshold as the daemon uses it, and what
the blanks of the same series give at 1e-3 and 1e-2, one cut for all data sets of a flux. What
the shipped cut lets pass is measured on those blanks, not taken from its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import metrics
from hitfinder.models.metrics import Rate, Spread
from hitfinder.sim.physics import PULSE_PHOTONS
from hitfinder.workers.evaluate_positions import Positions, summarise
from hitfinder.workers.evaluate_scores import Scored

OUTPUTS = ("any", "spots3")
RATES = (1e-3, 1e-2)
SHIPPED = "shipped"
ALL = "all"
FIRST_FRAMES = 32
"""Of a series: what is not yet known of its hot pixels shows here."""

Passed = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cut:
    """A threshold in force at a flux, and the blanks that passed it there.

    Attributes:
        passed: of all blanks of these series.
        later: of those beyond each series' first frames, in which it learns its hot pixels.
    """

    output: str
    name: str
    n_photons: float
    value: float
    passed: Rate
    later: Rate


@dataclass(frozen=True, slots=True)
class Point:
    """Hits of one data set, width, flux and strength that passed one cut."""

    output: str
    cut: str
    dataset: str
    width_mrad: float
    n_photons: float
    strength: float
    rate: Rate


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """S90 of one output, cut and width.

    Attributes:
        by_set: data set -> S90; the smallest strength shown is an upper limit, inf not reached.
        mean: geometric, over the data sets.
        spread: of the mean, over patterns.
        n_patterns: the fewest of a data set.
    """

    output: str
    cut: str
    width_mrad: float
    by_set: dict[str, float]
    mean: float
    spread: Spread
    n_patterns: int


@dataclass(frozen=True, slots=True)
class GateFigures:
    """All of the main table; S90 at the greatest flux."""

    cuts: tuple[Cut, ...]
    points: tuple[Point, ...]
    sensitivity: tuple[Sensitivity, ...]

    def pooled(self, output: str, cut: str, n_photons: float, width_mrad: float) -> Rate:
        """Return the rate of the full strength over all data sets."""
        mine = [
            p
            for p in self.points
            if (p.output, p.cut, p.n_photons, p.width_mrad) == (output, cut, n_photons, width_mrad)
        ]
        top = max(p.strength for p in mine)
        rates = [p.rate for p in mine if p.strength == top]
        return metrics.wilson(sum(r.k for r in rates), sum(r.n for r in rates))


def gate_figures(scored: Sequence[Scored], shipped: Mapping[str, float]) -> GateFigures:
    """Return the main table.

    Args:
        scored: series of hits among blanks.
        shipped: output -> threshold of its probability.
    """
    cuts = [cut for output in OUTPUTS for cut in _cuts(scored, output, shipped[output])]
    most = max(s.plan.n_photons for s in scored)
    points: list[Point] = []
    sensitivity: list[Sensitivity] = []
    for output in OUTPUTS:
        for name in (SHIPPED, *map(rate_name, RATES)):
            value = {c.n_photons: c.value for c in cuts if (c.output, c.name) == (output, name)}
            passed = [s.output(output) > value[s.plan.n_photons] for s in scored]
            for series, which in zip(scored, passed, strict=True):
                points += _points(output, name, series, which)
            normal = [
                (series, which)
                for series, which in zip(scored, passed, strict=True)
                if series.plan.n_photons == most
            ]
            sensitivity += sensitivity_of(output, name, normal)
    return GateFigures(tuple(cuts), tuple(points), tuple(sensitivity))


def sensitivity_of(
    output: str, cut: str, series: Iterable[tuple[Scored, Passed]]
) -> list[Sensitivity]:
    """Return S90 by width of series beside what passed in each."""
    by_width: defaultdict[float, dict[str, tuple[list[float], NDArray[np.float64]]]]
    by_width = defaultdict(dict)
    for one, passed in series:
        by_width[one.plan.width_mrad][one.plan.dataset] = _tpr_by_pattern(one, passed)
    found = []
    for width, sets in by_width.items():
        strengths = next(iter(sets.values()))[0]
        shares = {name: tpr for name, (_, tpr) in sets.items()}
        each = {name: metrics.s90(strengths, tpr.mean(0)) for name, tpr in shares.items()}
        found.append(
            Sensitivity(
                output,
                cut,
                width,
                each,
                metrics.geometric_mean(list(each.values())),
                metrics.bootstrap_s90(strengths, list(shares.values())),
                min(len(tpr) for tpr in shares.values()),
            )
        )
    return found


def position_figures(scored: Sequence[Scored]) -> dict[str, dict[float, Positions]]:
    """Return positions by data set ("all" for all) and width, of all hits at the normal flux."""
    counted: defaultdict[tuple[str, float], list[Scored]] = defaultdict(list)
    for series in scored:
        if series.plan.n_photons == PULSE_PHOTONS:
            for dataset in (series.plan.dataset, ALL):
                counted[dataset, series.plan.width_mrad].append(series)
    figures: defaultdict[str, dict[float, Positions]] = defaultdict(dict)
    for (dataset, width), parts in sorted(counted.items()):
        figures[dataset][width] = summarise(
            [s.scores.reflections.sum(0) for s in parts],
            [s.scores.reported.sum(0) for s in parts],
            parts[0].plan.sigma_px,
        )
    return dict(figures)


def rate_name(rate: float) -> str:
    """Return how a false-positive rate is written in a table."""
    return f"{rate:.0e}".replace("e-0", "e-")


def _cuts(scored: Sequence[Scored], output: str, shipped: float) -> list[Cut]:
    cuts = []
    for flux in sorted({s.plan.n_photons for s in scored}, reverse=True):
        mine = [s for s in scored if s.plan.n_photons == flux]
        blank = np.concatenate([s.output(output)[s.is_blank] for s in mine])
        is_later = np.concatenate([s.scores.frame[s.is_blank] >= FIRST_FRAMES for s in mine])
        values = {SHIPPED: shipped}
        values |= {rate_name(r): metrics.threshold_for(blank, r).value for r in RATES}
        for name, value in values.items():
            rates = (metrics.rate_above(b, value) for b in (blank, blank[is_later]))
            cuts.append(Cut(output, name, flux, value, *rates))
    return cuts


def _points(output: str, cut: str, series: Scored, passed: Passed) -> list[Point]:
    plan, hit = series.plan, ~series.is_blank
    points = []
    for strength in np.unique(series.strength[hit]).tolist():
        here = hit & (series.strength == strength)
        rate = metrics.wilson(int(passed[here].sum()), int(here.sum()))
        points.append(
            Point(output, cut, plan.dataset, plan.width_mrad, plan.n_photons, strength, rate)
        )
    return points


def _tpr_by_pattern(series: Scored, passed: Passed) -> tuple[list[float], NDArray[np.float64]]:
    """Return strengths and (patterns, strengths): the share of its showings that passed."""
    hit = ~series.is_blank
    strengths, column = np.unique(series.strength[hit], return_inverse=True)
    patterns, row = np.unique(series.pattern[hit], return_inverse=True)
    shape = len(patterns), len(strengths)
    at = row * shape[1] + column
    n = np.bincount(at, minlength=shape[0] * shape[1])
    k = np.bincount(at, passed[hit], len(n))
    return strengths.tolist(), (k / np.maximum(n, 1)).reshape(shape)
