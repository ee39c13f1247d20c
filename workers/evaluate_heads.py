"""How accurate energy and camera length are: single frames and series, against what is possible.

One rule: truth comes from the simulator's own water, errors are given beside the Cramer-Rao bound
of the same frame, and what the pipeline judged (spots, jitter and all) is kept apart from what was
drawn straight into the heads' bins, which is exact for water and cheap enough for thousands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import heads
from hitfinder.models.bound import cramer_rao
from hitfinder.models.frontend import CELL_PX, cell_shape
from hitfinder.models.geometry import Geometry
from hitfinder.models.head_tables import CLEN_RANGE_M, ENERGY_RANGE_EV, fold
from hitfinder.models.heads import ParameterEstimate
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.references.linear_heads import LinearHeadsReference
from hitfinder.models.series_posterior import FIRST_LOOK_PHOTONS, SeriesPosterior, look
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import (
    JET_THICKNESS_M,
    PULSE_PHOTONS,
    Detector,
    data_sets,
    water_field,
    water_form_factor,
)

Array = NDArray[np.float64]

THICKNESS_JITTER, CENTER_JITTER_PX = 0.15, 3.0
PRIOR_WIDTH = np.array([(r[1] - r[0]) * 12**-0.5 for r in (ENERGY_RANGE_EV, CLEN_RANGE_M)])
"""Standard deviation of the uniform prior: where the bound is beyond, a frame tells nothing."""
JITTERED = 16
"""Beam centres that the mean of a jittering series is averaged over."""
SERIES_FRAMES = (100, 1000, 10_000)
WRONG_HEADER = (8000.0, 0.25)


@dataclass(frozen=True, slots=True)
class HeadsPlan:
    """How much to draw.

    Attributes:
        n_drawn: single frames of water over the continuous range, straight into the bins.
        n_judged: frames over the continuous range through the pipeline, half of them hits.
        n_per_set: frames of each data set through the pipeline, one in five a hit.
        n_series: series of each length and data set.
        seed: of everything.
    """

    n_drawn: int = 1000
    n_judged: int = 200
    n_per_set: int = 40
    n_series: int = 12
    seed: int = 0


class Row(NamedTuple):
    """One frame or series: (energy in eV, clen in m) each."""

    truth: tuple[float, float]
    value: tuple[float, float]
    sigma: tuple[float, float]
    bound: tuple[float, float]
    is_hit: bool
    is_named: bool
    """Whether the most probable setting of the 3 x 3 matrix is the true one."""
    is_named_linear: bool = False
    """The same of the report's linear heads, where they were asked."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Frames, or series of one length."""

    rows: tuple[Row, ...]

    def of(self, *, is_hit: bool) -> Figures:
        """Return the hits, or the blanks."""
        return Figures(tuple(r for r in self.rows if r.is_hit is is_hit))

    @property
    def error(self) -> Array:
        """(n, 2): |value - truth|, eV and m."""
        return np.array([np.abs(np.subtract(r.value, r.truth)) for r in self.rows]).reshape(-1, 2)

    @property
    def sigma(self) -> Array:
        """(n, 2): as stated."""
        return np.array([r.sigma for r in self.rows]).reshape(-1, 2)

    def coverage(self, n_sigma: float) -> Array:
        """Return the shares of errors within so many stated sigma, (2,)."""
        return np.asarray((self.error <= n_sigma * self.sigma).mean(axis=0))

    def error_over_bound(self) -> tuple[Array, Array]:
        """Return the median of error / bound where the bound is below the prior, and how many."""
        bound = np.array([r.bound for r in self.rows]).reshape(-1, 2)
        told = bound < PRIOR_WIDTH
        ratio = self.error / bound
        medians = [
            float(np.median(ratio[t, k])) if t.any() else np.nan for k, t in enumerate(told.T)
        ]
        return np.array(medians), told.sum(axis=0)

    @property
    def named(self) -> float:
        """Share whose setting of the 3 x 3 matrix was named right."""
        return float(np.mean([r.is_named for r in self.rows]))

    @property
    def linear_named(self) -> float:
        """The same for the report's linear heads."""
        return float(np.mean([r.is_named_linear for r in self.rows]))


@dataclass(frozen=True, slots=True)
class HeadsStudy:
    """What came out.

    Attributes:
        drawn, judged: single frames over the continuous range.
        sets: single frames of each data set through the pipeline.
        judged_series: all of those frames as one series, and how many they are.
        series: (data set, frames) -> series of blanks, jitter included.
        n_honest: series whose right header was looked at, n_alarms: that were called wrong.
        wrong_after: frames of 02 after which the header `WRONG_HEADER` was found.
        linear_named: share of the frames of `sets` whose setting the report's linear heads name
            right; empty without their weights.
    """

    drawn: Figures
    judged: Figures
    sets: dict[str, Figures]
    judged_series: dict[str, tuple[int, Row]]
    series: dict[tuple[str, int], Figures]
    n_honest: int
    n_alarms: int
    wrong_after: int
    linear_named: dict[str, float]


def study_heads(
    pipeline: Pipeline, plan: HeadsPlan, linear: LinearHeadsReference | None = None
) -> HeadsStudy:
    """Run the study; about 0.05 s a drawn and 0.1 s a judged frame on one core.

    Args:
        linear: the report's heads, to name the settings of the same frames.
    """
    bench = _Bench(pipeline, linear)
    rng = np.random.default_rng([plan.seed, 6])
    series, alarms = bench.all_series(plan.n_series, rng)
    sets, judged_series = {}, {}
    for name in data_sets():
        sets[name], judged_series[name] = bench.judge_set(name, plan.n_per_set, plan.seed)
    return HeadsStudy(
        drawn=bench.draw(plan.n_drawn, rng),
        judged=bench.judge_range(plan.n_judged, plan.seed),
        sets=sets,
        judged_series=judged_series,
        series=series,
        n_honest=9 * plan.n_series,
        n_alarms=alarms,
        wrong_after=bench.frames_to_alarm(rng),
        linear_named={name: sets[name].linear_named for name in sets} if linear else {},
    )


def _named(matrix: NDArray[np.floating]) -> tuple[float, float]:
    """Return the most probable setting of a 3 x 3 matrix."""
    i, j = divmod(int(matrix.argmax()), 3)
    return heads.MATRIX_ENERGY_EV[i], heads.MATRIX_CLEN_M[j]


class _Bench:
    """The EIGER2 4M with its beam in the middle, and what the heads need of it."""

    def __init__(self, pipeline: Pipeline, linear: LinearHeadsReference | None) -> None:
        self.pipeline, self.detector, self._linear = pipeline, Detector(), linear
        shape, pixel_m = self.detector.shape, self.detector.pixel_size_m
        self.valid = ~self.detector.gap_mask
        self.geometry = Geometry(
            shape, (pixel_m, pixel_m), ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
        )
        self.context = pipeline.begin(self.geometry, self.valid)
        self.exposure_N = self.context.cells.exposure_N
        self._bins = self.context.cells.bin_HW.ravel()
        self._form_factor = water_form_factor()
        self._bounds: dict[tuple[float, float], Array] = {}

    def mean_N(self, truth: tuple[float, float], rng: np.random.Generator) -> Array:
        """Return expected photons per (ring, sector) of one jittered frame, from every pixel."""
        shift = CENTER_JITTER_PX * rng.standard_normal(2)
        thickness = max(0.1, 1 + THICKNESS_JITTER * rng.standard_normal()) * JET_THICKNESS_M
        x, y = np.add(self.detector.center_px, shift)
        field = water_field(
            self.detector,
            *truth,
            PULSE_PHOTONS,
            thickness,
            (float(x), float(y)),
            form_factor=self._form_factor,
        )
        mean = np.where(self.valid, field.mean(), 0).astype(np.float32)
        height, width = cell_shape(mean.shape)
        padded = np.zeros((height * CELL_PX, width * CELL_PX), np.float32)
        padded[: mean.shape[0], : mean.shape[1]] = mean
        cells = padded.reshape(height, CELL_PX, width, CELL_PX).sum((1, 3), dtype=np.float64)
        binned: Array = np.bincount(self._bins, cells.ravel(), len(self.exposure_N)).astype(float)
        return binned

    def row(
        self,
        truth: tuple[float, float],
        found: ParameterEstimate,
        n_photons: float,
        *,
        is_hit: bool = False,
    ) -> Row:
        """Return an estimate beside its truth and its bound."""
        if truth not in self._bounds:
            water = self.pipeline.weights.water
            of_one_photon = cramer_rao(water, self.geometry, self.valid, *truth, 1.0)
            self._bounds[truth] = np.sqrt(np.diag(of_one_photon))
        bound = self._bounds[truth] / n_photons**0.5
        return Row(
            truth,
            (found.photon_energy_eV, found.clen_m),
            (found.photon_energy_sigma_eV, found.clen_sigma_m),
            (float(bound[0]), float(bound[1])),
            is_hit,
            _named(found.matrix) == truth,
        )

    def draw(self, n: int, rng: np.random.Generator) -> Figures:
        """Draw single frames of water over the continuous range."""
        rows = []
        for _ in range(n):
            truth = float(rng.uniform(*ENERGY_RANGE_EV)), float(rng.uniform(*CLEN_RANGE_M))
            mean = self.mean_N(truth, rng)
            found = heads.estimate(
                rng.poisson(mean).astype(float), self.exposure_N, self.context.heads
            )
            rows.append(self.row(truth, found, float(mean.sum())))
        return Figures(tuple(rows))

    def judge_range(self, n: int, seed: int) -> Figures:
        """Judge frames over the continuous range, half of them hits of changing width."""
        settings = FrameSettings(
            photon_energy_eV=ENERGY_RANGE_EV,
            clen_m=CLEN_RANGE_M,
            hit_fraction=0.5,
            divergence_mrad=(0.0, 2.0),
            thickness_jitter=THICKNESS_JITTER,
            center_jitter_px=CENTER_JITTER_PX,
            patterns="generator",
        )
        return self._judge(settings, n, seed)[0]

    def judge_set(self, name: str, n: int, seed: int) -> tuple[Figures, tuple[int, Row]]:
        """Judge frames of a data set: one by one, and all as a series."""
        settings = FrameSettings(
            datasets=(name,),
            hit_fraction=0.2,
            thickness_jitter=THICKNESS_JITTER,
            center_jitter_px=CENTER_JITTER_PX,
            vary=True,
        )
        figures, series = self._judge(settings, n, seed)
        found = series.estimate(self.context.heads)
        return figures, (n, self.row(figures.rows[0].truth, found, series.n_photons))

    def _judge(
        self, settings: FrameSettings, n: int, seed: int
    ) -> tuple[Figures, SeriesPosterior]:
        source = FrameSource(settings, seed=seed)
        tables = self.context.heads
        rows, series = [], SeriesPosterior.empty(tables)
        for k in range(n):
            drawn = source.draw(k)
            judged = self.pipeline.judge([drawn.image], self.context)[0]
            counts, exposure = judged.radial_counts
            series.add(counts, exposure)
            truth = drawn.photon_energy_eV, drawn.clen_m
            found = heads.estimate(counts, exposure, tables)
            water = float(counts.sum())
            row = self.row(truth, found, water, is_hit=drawn.is_hit)
            if self._linear is not None:
                said = _named(self._linear.matrix(drawn.image, self.valid))
                row = row._replace(is_named_linear=said == truth)
            rows.append(row)
        return Figures(tuple(rows)), series

    def all_series(
        self, n_series: int, rng: np.random.Generator
    ) -> tuple[dict[tuple[str, int], Figures], int]:
        """Draw series of blanks of each length; with them, how many right headers were refused."""
        figures, n_alarms = {}, 0
        for name, stated in data_sets().items():
            truth = stated.photon_energy_eV, stated.clen_m
            mean = np.mean([self.mean_N(truth, rng) for _ in range(JITTERED)], axis=0)
            for n_frames in SERIES_FRAMES:
                rows = [self._series(truth, mean, n_frames, rng) for _ in range(n_series)]
                figures[name, n_frames] = Figures(tuple(rows))
            longest = SERIES_FRAMES[-1]
            n_alarms += sum(
                self._alarm_after(truth, mean, longest, rng) is not None for _ in range(n_series)
            )
        return figures, n_alarms

    def frames_to_alarm(self, rng: np.random.Generator) -> int:
        """Return after how many frames of 02 a wrong header is found."""
        stated = data_sets()["02"]
        truth = stated.photon_energy_eV, stated.clen_m
        mean = np.mean([self.mean_N(truth, rng) for _ in range(JITTERED)], axis=0)
        return self._alarm_after(WRONG_HEADER, mean, SERIES_FRAMES[-1], rng) or -1

    def _series(
        self, truth: tuple[float, float], mean: Array, n_frames: int, rng: np.random.Generator
    ) -> Row:
        counts = rng.poisson(n_frames * mean).astype(float)
        found = heads.estimate(counts, self.exposure_N, self.context.heads)
        return self.row(truth, found, n_frames * float(mean.sum()))

    def _alarm_after(
        self,
        header: tuple[float, float],
        mean: Array,
        n_frames: int,
        rng: np.random.Generator,
    ) -> int | None:
        """Return after how many frames a header is called wrong, None if it never is."""
        n, last = max(1, int(np.ceil(FIRST_LOOK_PHOTONS / mean.sum()))), -1
        folded, exposure = fold(mean), fold(self.exposure_N)
        counts, so_far = np.zeros(len(folded)), 0
        while n <= n_frames:
            counts += rng.poisson((n - so_far) * folded)
            so_far = n
            series = SeriesPosterior(counts, exposure * counts.sum(), n)
            found = series.estimate(self.context.heads)
            seen = look(found, series.n_photons, last, *header)
            if seen is not None:
                last = seen.number
                if seen.is_mismatch:
                    return n
            n *= 2
        return None
