"""The parameter heads: photon energy, then camera length given it, from the pixels alone.

One rule: the likelihood is the physics. Photons of a frame fall into rings x sectors as the water
shape m_b(E, c) says, its scale profiled out:
LL(E, c) = sum_b n_b log m_b - N log sum_b w_b m_b, w_b the counted pixels. Beam centre, pixel size
and mask are used; the header's energy and clen never are. What a frame cannot tell comes back
as a large sigma; a series adds frames up in `SeriesPosterior`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from hitfinder.models.frontend import N_SECTORS, CellTables
from hitfinder.models.water import WaterTable, water_shape

ENERGY_RANGE_EV = (5000.0, 10000.0)
CLEN_RANGE_M = (0.1, 0.5)
MATRIX_ENERGY_EV = (6000.0, 7000.0, 8000.0)
MATRIX_CLEN_M = (0.15, 0.25, 0.35)
FINE_RINGS = 250
"""A detector of more rings takes them two by two: 8 px rings of the 4M bias a series by 2 eV."""
GRID_PHOTONS = 1e5
"""Up to so many the likelihood is a spline over its coarse grid: costs a frame 0.02 sigma rms."""
COARSE_ENERGIES, COARSE_RATIO_STEP = 26, 0.02
"""First look: 200 eV, and 2 % in E / c, the direction in which the likelihood is narrow."""
ZOOM_ENERGIES, ZOOM_RATIOS, FINE_ENERGIES = 13, 11, 401
MAX_ZOOMS = 8
N_CLIMBS = 3
REACH = 14.0
"""Log likelihood below the best that still counts: 5.3 sigma."""
MIN_PHOTONS = 50.0
"""Below this nothing is fitted: the answer is the prior."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ParameterEstimate:
    """What the photons say about energy and camera length.

    Attributes:
        photon_energy_eV: posterior mean over 5 to 10 keV.
        photon_energy_sigma_eV: posterior standard deviation.
        clen_m: posterior mean over 0.1 to 0.5 m, energy marginalised.
        clen_sigma_m: posterior standard deviation.
        matrix: float32 (3, 3), probability of (6, 7, 8 keV) x (0.15, 0.25, 0.35 m) if it is one.
        dispersion: scatter of the counts about the shape over Poisson's; above 1 it has
            widened the sigmas.
    """

    photon_energy_eV: float
    photon_energy_sigma_eV: float
    clen_m: float
    clen_sigma_m: float
    matrix: NDArray[np.float32]
    dispersion: float


@dataclass(frozen=True, slots=True, eq=False)
class HeadTables:
    """The shape on a coarse grid of (energy, log(energy / clen)) for one detector.

    Attributes:
        water: F2(q).
        radius_m: mean radius of each bin.
        cos2: mean x^2 / r^2 of each bin.
        energies_eV: (E,) grid.
        ratios: (U,) grid of log(energy / clen).
        inside: bool (E, U), within the ranges.
        shape: float32 (E * U, bins), m_b, each row of mean 1.
        log_shape: float32, its logarithm.
    """

    water: WaterTable
    radius_m: Array
    cos2: Array
    energies_eV: Array
    ratios: Array
    inside: NDArray[np.bool_]
    shape: NDArray[np.float32]
    log_shape: NDArray[np.float32]

    def shape_at(self, energy_eV: Array, ratio: Array) -> Array:
        """Return m_b, shape (..., bins), at energies and log ratios of one shape."""
        clen = energy_eV * np.exp(-ratio)
        m = water_shape(
            self.water, self.radius_m, self.cos2, energy_eV[..., None], clen[..., None]
        )
        return np.asarray(m / m.mean(axis=-1, keepdims=True))


def fold(values_N: NDArray[np.floating]) -> Array:
    """Add neighbouring rings: (rings * sectors) of the front end -> bins of the heads."""
    rings = np.asarray(values_N, np.float64).reshape(-1, N_SECTORS)
    per_bin = 1 if len(rings) <= FINE_RINGS else 2
    rings = np.pad(rings, ((0, -len(rings) % per_bin), (0, 0)))
    return np.asarray(rings.reshape(-1, per_bin, N_SECTORS).sum(1).ravel())


def head_tables(water: WaterTable, cells: CellTables, pixel_size_m: float) -> HeadTables:
    """Make the grid for a series; `pixel_size_m` is along fs."""
    weight = cells.exposure_N.cpu().numpy().astype(np.float64)
    total = np.maximum(fold(weight), 1e-9)
    radius = fold(weight * cells.radius_N) / total * pixel_size_m
    cos2 = fold(weight * cells.cos2_N) / total
    energies = np.linspace(*ENERGY_RANGE_EV, COARSE_ENERGIES)
    lowest = np.log(ENERGY_RANGE_EV[0] / CLEN_RANGE_M[1])
    highest = np.log(ENERGY_RANGE_EV[1] / CLEN_RANGE_M[0])
    ratios = np.arange(lowest, highest + COARSE_RATIO_STEP, COARSE_RATIO_STEP)
    clen = energies[:, None] * np.exp(-ratios)
    slack = 1 + COARSE_RATIO_STEP
    inside = (clen >= CLEN_RANGE_M[0] / slack) & (clen <= CLEN_RANGE_M[1] * slack)
    m = np.stack(
        [
            water_shape(water, radius, cos2, energy, row[:, None])
            for energy, row in zip(energies, clen, strict=True)
        ]
    ).reshape(len(energies) * len(ratios), -1)
    m = np.maximum(m / m.mean(axis=1, keepdims=True), 1e-6).astype(np.float32)
    return HeadTables(water, radius, cos2, energies, ratios, inside, m, np.log(m))


def estimate(
    counts_N: NDArray[np.floating], exposure_N: NDArray[np.floating], tables: HeadTables
) -> ParameterEstimate:
    """Estimate energy and clen from one frame's, or one series', counts per ring and sector.

    Args:
        counts_N: photons of the background per (ring, sector); cells with spots left out.
        exposure_N: counted pixels of the same cells.
        tables: of this detector.
    """
    n, w = fold(counts_N), fold(exposure_N)
    n = np.where(w > 0, n, 0.0)
    if n.sum() < MIN_PHOTONS:
        return _prior()
    fit = _Likelihood(n, w, tables)
    energies = tables.energies_eV
    ratios, profile = fit.coarse()
    low, high = _span(energies, profile, REACH)
    for _ in range(MAX_ZOOMS):
        finer = np.linspace(low, high, ZOOM_ENERGIES)
        ratios = fit.climb(finer, np.interp(finer, energies, ratios))
        energies, profile = finer, fit.at(finer, ratios)
        fit.measure_dispersion(energies, ratios, profile)
        low, high = _span(energies, profile, REACH * fit.dispersion)
        if high - low > 0.5 * (energies[-1] - energies[0]):
            break
    return fit.summarise(energies, ratios)


def _span(energies_eV: Array, profile: Array, reach: float) -> tuple[float, float]:
    """Return the energies that matter, one node beyond; a best at the edge moves the span on."""
    step, best = energies_eV[1] - energies_eV[0], int(profile.argmax())
    low, high = ENERGY_RANGE_EV
    if best in (0, len(energies_eV) - 1) and low < energies_eV[best] < high:
        half = (energies_eV[-1] - energies_eV[0]) / 2
        span = energies_eV[best] - half, energies_eV[best] + half
    else:
        near = np.flatnonzero(profile > profile[best] - reach)
        span = energies_eV[near[0]] - step, energies_eV[near[-1]] + step
    return max(float(span[0]), low), min(float(span[1]), high)


class _Likelihood:
    """The likelihood of one set of counts; holds the dispersion found on the way."""

    def __init__(self, n: Array, w: Array, tables: HeadTables) -> None:
        self.n, self.w, self.tables = n, w, tables
        self.dispersion = 1.0
        # Single precision is worth 1e-7 of all photons: enough for a frame, not for a series.
        precision = np.float32 if n.sum() < 1e6 else np.float64
        log_like = tables.log_shape.astype(precision, copy=False) @ n.astype(precision)
        weighted = tables.shape.astype(precision, copy=False) @ w.astype(precision)
        log_like -= precision(n.sum()) * np.log(weighted)
        self._grid = log_like.reshape(tables.inside.shape).astype(np.float64)
        self._spline = None
        if n.sum() <= GRID_PHOTONS:
            self._spline = RectBivariateSpline(tables.energies_eV, tables.ratios, self._grid)

    def at(self, energy_eV: Array, ratio: Array) -> Array:
        """Return the log likelihood up to a constant, at energies and log ratios of one shape."""
        if self._spline is not None:
            return np.asarray(self._spline.ev(energy_eV, ratio))
        m = self.tables.shape_at(energy_eV, ratio)
        return np.asarray(np.log(m) @ self.n - self.n.sum() * np.log(m @ self.w))

    def coarse(self) -> tuple[Array, Array]:
        """Return the best ratio of the grid for each coarse energy, and its log likelihood.

        Both from the parabola through the best node and its neighbours.
        """
        t, grid = self.tables, self._grid
        best = np.where(t.inside, grid, -np.inf).argmax(axis=1).clip(1, len(t.ratios) - 2)
        row = np.arange(len(best))
        before, at, after = (grid[row, best + step] for step in (-1, 0, 1))
        bend = np.minimum(before + after - 2 * at, -1e-9)
        shift = np.clip(0.5 * (before - after) / bend, -1, 1)
        top = at + 0.5 * shift * (after - before) + 0.5 * shift * shift * bend
        return t.ratios[best] + shift * COARSE_RATIO_STEP, top

    def climb(self, energies_eV: Array, ratios: Array) -> Array:
        """Newton steps in the ratio at fixed energies, kept within the range of clen."""
        low = np.log(energies_eV / CLEN_RANGE_M[1])
        high = np.log(energies_eV / CLEN_RANGE_M[0])
        ratios = np.clip(ratios, low, high)
        for _ in range(N_CLIMBS):
            slope, curvature = self._bend(energies_eV, ratios)
            step = np.clip(slope / np.maximum(curvature, 1e-9), -0.03, 0.03)
            ratios = np.clip(ratios + step, low, high)
        return ratios

    def _bend(self, energies_eV: Array, ratios: Array) -> tuple[Array, Array]:
        h = 2e-3
        around = [self.at(energies_eV, ratios + d) for d in (-h, 0.0, h)]
        slope = (around[2] - around[0]) / (2 * h)
        curvature = (2 * around[1] - around[0] - around[2]) / h**2
        return slope, curvature

    def measure_dispersion(self, energies_eV: Array, ratios: Array, profile: Array) -> None:
        """Compare the scatter about the best shape with Poisson's (Pearson's chi squared)."""
        best = int(profile.argmax())
        m = self.tables.shape_at(energies_eV[best : best + 1], ratios[best : best + 1])[0]
        mean = m * self.w
        mean *= self.n.sum() / mean.sum()
        used = mean > 1.0
        n_free = max(int(used.sum()) - 3, 1)
        ratio = float((np.square(self.n - mean)[used] / mean[used]).sum()) / n_free
        self.dispersion = max(1.0, ratio - np.sqrt(2 / n_free))

    def summarise(self, energies_eV: Array, ratios: Array) -> ParameterEstimate:
        """Integrate over the ratio at each energy, then over energy."""
        _, curvature = self._bend(energies_eV, ratios)
        sigma = np.sqrt(self.dispersion / np.maximum(curvature, self.dispersion / 0.35**2))
        offset = np.linspace(-5, 5, ZOOM_RATIOS)
        low = np.log(energies_eV / CLEN_RANGE_M[1])[:, None]
        high = np.log(energies_eV / CLEN_RANGE_M[0])[:, None]
        nodes = np.clip(ratios[:, None] + sigma[:, None] * offset, low, high)
        energy = np.broadcast_to(energies_eV[:, None], nodes.shape)
        clen = energy * np.exp(-nodes)
        log_like = self.at(energy, nodes) / self.dispersion
        top = log_like.max()
        density = np.exp(log_like - top) * clen  # flat in clen: d clen = clen d ratio
        mass = np.trapezoid(density, nodes, axis=1)
        mass = np.maximum(mass, 1e-300)
        first = np.trapezoid(density * clen, nodes, axis=1) / mass
        second = np.trapezoid(density * clen * clen, nodes, axis=1) / mass
        fine = np.linspace(energies_eV[0], energies_eV[-1], FINE_ENERGIES)
        weight = np.exp(_smooth(fine, energies_eV, np.log(mass)))
        weight /= weight.sum()
        mean = float(weight @ fine)
        variance = float(weight @ np.square(fine - mean))
        c1 = np.interp(fine, energies_eV, first)
        spread = np.interp(fine, energies_eV, np.maximum(second - first**2, 0.0))
        clen_m = float(weight @ c1)
        clen_variance = float(weight @ (spread + np.square(c1 - clen_m)))
        return ParameterEstimate(
            mean, variance**0.5, clen_m, clen_variance**0.5, self._matrix(), self.dispersion
        )

    def _matrix(self) -> NDArray[np.float32]:
        energy = np.array(MATRIX_ENERGY_EV)[:, None] + np.zeros(3)
        log_like = self.at(energy, np.log(energy / np.array(MATRIX_CLEN_M))) / self.dispersion
        likely = np.exp(log_like - log_like.max())
        return np.asarray(likely / likely.sum(), np.float32)


def _smooth(x: Array, nodes: Array, values: Array) -> Array:
    """Interpolate a log density by the parabola through the three nearest nodes."""
    step = nodes[1] - nodes[0]
    middle = np.clip(np.rint((x - nodes[0]) / step).astype(np.int64), 1, len(nodes) - 2)
    t = (x - nodes[middle]) / step
    before, at, after = values[middle - 1], values[middle], values[middle + 1]
    return np.asarray(at + t * (after - before) / 2 + t * t * (after + before - 2 * at) / 2)


def _prior() -> ParameterEstimate:
    """Return what is known without photons."""
    (e0, e1), (c0, c1) = ENERGY_RANGE_EV, CLEN_RANGE_M
    flat = np.full((3, 3), 1 / 9, np.float32)
    wide = 12**-0.5
    return ParameterEstimate(
        (e0 + e1) / 2, (e1 - e0) * wide, (c0 + c1) / 2, (c1 - c0) * wide, flat, 1.0
    )


class SeriesPosterior:
    """Adds up the frames of a series: all share one energy and one clen, blanks too.

    The counts of the frames are all the likelihood needs, so frames, workers and restarts add in
    any order; exposures differ by the cells that hold spots and are averaged by photons.
    """

    def __init__(self, n_bins: int) -> None:
        self.counts_N = np.zeros(n_bins)
        self.exposure_N = np.zeros(n_bins)
        self.n_frames = 0

    def add(self, counts_N: NDArray[np.floating], exposure_N: NDArray[np.floating]) -> None:
        """Add one frame's counts and exposure per (ring, sector)."""
        self.counts_N += counts_N
        self.exposure_N += float(np.sum(counts_N)) * np.asarray(exposure_N, np.float64)
        self.n_frames += 1

    def merge(self, other: SeriesPosterior) -> None:
        """Add what another worker saw of the same series."""
        self.counts_N += other.counts_N
        self.exposure_N += other.exposure_N
        self.n_frames += other.n_frames

    def estimate(self, tables: HeadTables) -> ParameterEstimate:
        """Return energy and clen of the series so far."""
        mean_exposure = self.exposure_N / max(float(self.counts_N.sum()), 1.0)
        return estimate(self.counts_N, mean_exposure, tables)
