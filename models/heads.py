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

from hitfinder.models.head_tables import (
    CLEN_RANGE_M,
    ENERGY_RANGE_EV,
    RATIO_STEP,
    Array,
    HeadTables,
    fold,
    head_tables,
)
from hitfinder.models.newton import Peak, newton

__all__ = ["HeadTables", "ParameterEstimate", "estimate", "fold", "head_tables"]

MATRIX_ENERGY_EV = (6000.0, 7000.0, 8000.0)
MATRIX_CLEN_M = (0.15, 0.25, 0.35)
TELLS_EV, TELLS_M = 500.0, 0.025
"""Half of the step between the report's settings, a quarter in clen: beyond, nothing is told."""
GRID_PHOTONS = 3e5
"""Up to so many the likelihood is interpolated on its grid; beyond, its peak is computed."""
NARROW_EV, NARROW_RATIO = 300.0, 0.05
"""A peak narrower than this is a Gaussian; a wider one is integrated on the grid."""
ZOOM_ENERGIES, ZOOM_RATIOS, FINE_ENERGIES = 17, 11, 161
MAX_ZOOMS, N_CLIMBS = 4, 2
REACH = 14.0
"""Log likelihood below the best that still counts: 5.3 sigma."""
MIN_PHOTONS = 50.0
"""Below this nothing is fitted: the answer is the prior."""
ONE_SIGMA = 0.682689
SEVENTHS = np.array([-1.465, -0.792, -0.366, 0.0, 0.366, 0.792, 1.465])
"""Middles of seven equal parts of a Gaussian."""
ORDER = 6
_NODES = np.arange(ORDER) - (ORDER - 1) / 2
_LAGRANGE = np.linalg.inv(np.vander(_NODES, ORDER, increasing=True))


@dataclass(frozen=True, slots=True, eq=False)
class ParameterEstimate:
    """What the photons say about energy and camera length.

    A sigma is half the width of the interval about the value that holds 68.3 % of the posterior:
    the standard deviation where it is a Gaussian, and as honest where the range cuts it.

    Attributes:
        photon_energy_eV: posterior mean over 5 to 10 keV.
        photon_energy_sigma_eV: of the energy.
        clen_m: posterior mean over 0.1 to 0.5 m, energy marginalised.
        clen_sigma_m: of the clen.
        correlation: of the errors of energy and clen.
        matrix: float32 (3, 3), probability of (6, 7, 8 keV) x (0.15, 0.25, 0.35 m) if it is one.
        dispersion: scatter of the counts about the shape over Poisson's; above 1 it has
            widened the sigmas.
        is_narrow: the posterior is a Gaussian well within the ranges.
    """

    photon_energy_eV: float
    photon_energy_sigma_eV: float
    clen_m: float
    clen_sigma_m: float
    correlation: float
    matrix: NDArray[np.float32]
    dispersion: float
    is_narrow: bool

    @property
    def tells_parameters(self) -> bool:
        """Whether energy and clen are known well enough to be of use."""
        return self.photon_energy_sigma_eV <= TELLS_EV and self.clen_sigma_m <= TELLS_M


def estimate(
    counts_N: NDArray[np.floating], exposure_N: NDArray[np.floating], tables: HeadTables
) -> ParameterEstimate:
    """Estimate energy and clen from one frame's, or one series', counts per ring and sector.

    Args:
        counts_N: photons of the background per (ring, sector); cells with spots left out.
        exposure_N: counted pixels of the same cells.
        tables: of this detector.
    """
    return estimate_folded(fold(counts_N), fold(exposure_N), tables)


def estimate_folded(n: Array, w: Array, tables: HeadTables) -> ParameterEstimate:
    """Do as `estimate` does with counts and exposure per bin of the tables."""
    n = np.where(w > 0, n, 0.0)
    if n.sum() < MIN_PHOTONS:
        return _prior()
    fit = _Likelihood(n, w, tables)
    energies = tables.energies_eV
    ratios, profile = fit.coarse()
    if n.sum() > GRID_PHOTONS:
        best = int(profile.argmax())
        peak = newton(n, w, tables, energies[best], ratios[best])
        if peak is not None and _is_narrow(peak):
            return _of_peak(peak, fit)
    low, high = _span(energies, profile, REACH)
    for _ in range(MAX_ZOOMS):
        finer = np.linspace(low, high, ZOOM_ENERGIES)
        ratios, profile, curvature = fit.climb(finer, np.interp(finer, energies, ratios))
        energies = finer
        low, high = _span(energies, profile, REACH)
        if high - low > 0.5 * (energies[-1] - energies[0]):
            break
    return fit.summarise(energies, ratios, profile, curvature)


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
    """The likelihood of one set of counts on the grid, and between its nodes."""

    def __init__(self, n: Array, w: Array, tables: HeadTables) -> None:
        self.n, self.w, self.tables = n, w, tables
        # Single precision is worth 1e-7 of all photons: enough for a frame, not for a series.
        few = n.sum() <= GRID_PHOTONS
        precision = np.float32 if few else np.float64
        log_like = tables.log_shape.astype(precision, copy=False) @ n.astype(precision)
        weighted = tables.shape.astype(precision, copy=False) @ w.astype(precision)
        log_like = log_like - n.sum() * np.log(weighted.astype(np.float64))
        self._grid: Array = log_like.reshape(tables.inside.shape)

    def at(self, energies_eV: Array, ratios: Array) -> Array:
        """Return the log likelihood up to a constant at energies (n,) and log ratios (n, k)."""
        t = self.tables
        first, weight = _stencil(energies_eV, t.energies_eV)
        rows = np.einsum("nj,nju->nu", weight, self._grid[first[:, None] + np.arange(ORDER)])
        first, weight = _stencil(ratios, t.ratios)
        row = np.arange(len(energies_eV)).reshape(-1, 1, 1)
        near = rows[row, first[..., None] + np.arange(ORDER)]
        return np.asarray(np.einsum("nkj,nkj->nk", weight, near))

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
        return t.ratios[best] + shift * RATIO_STEP, top

    def climb(self, energies_eV: Array, ratios: Array) -> tuple[Array, Array, Array]:
        """Newton steps in the ratio at fixed energies, kept within the range of clen.

        Returns:
            (n,) each: the best ratios, the log likelihood there, and how sharply it bends.
        """
        low = np.log(energies_eV / CLEN_RANGE_M[1])
        high = np.log(energies_eV / CLEN_RANGE_M[0])
        ratios = np.minimum(np.maximum(ratios, low), high)
        h = 4e-3
        offsets = np.array([-h, 0.0, h])
        for _ in range(N_CLIMBS):
            before, at, after = self.at(energies_eV, ratios[:, None] + offsets).T
            slope = (after - before) / (2 * h)
            curvature = np.maximum((2 * at - before - after) / h**2, 1e-9)
            aim = ratios + np.minimum(np.maximum(slope / curvature, -RATIO_STEP), RATIO_STEP)
            aim = np.minimum(np.maximum(aim, low), high)
            step, ratios = aim - ratios, aim
        return ratios, at + step * (slope - 0.5 * step * curvature), curvature

    def dispersion(self, energy_eV: float, ratio: float) -> float:
        """Compare the scatter about a shape with Poisson's (Pearson's chi squared)."""
        t = self.tables
        mean = t.shape_at(np.array(energy_eV), np.array(ratio)) * self.w
        mean *= self.n.sum() / mean.sum()
        used = mean > 1.0
        n_free = max(int(used.sum()) - 3, 1)
        ratio = float((np.square(self.n - mean)[used] / mean[used]).sum()) / n_free
        return max(1.0, ratio - np.sqrt(2 / n_free))

    def summarise(
        self, energies_eV: Array, ratios: Array, profile: Array, curvature: Array
    ) -> ParameterEstimate:
        """Integrate over the ratio at each energy, then over energy."""
        best = int(profile.argmax())
        dispersion = self.dispersion(float(energies_eV[best]), float(ratios[best]))
        sigma = np.sqrt(dispersion / np.maximum(curvature, dispersion / 0.35**2))
        offset = np.linspace(-5, 5, ZOOM_RATIOS)
        low = np.log(energies_eV / CLEN_RANGE_M[1])[:, None]
        high = np.log(energies_eV / CLEN_RANGE_M[0])[:, None]
        nodes = np.minimum(np.maximum(ratios[:, None] + sigma[:, None] * offset, low), high)
        clen = energies_eV[:, None] * np.exp(-nodes)
        log_like = self.at(energies_eV, nodes) / dispersion
        density = np.exp(log_like - log_like.max()) * clen  # flat in clen: d clen = clen d ratio
        density[:, 1:-1] *= nodes[:, 2:] - nodes[:, :-2]  # the trapezoid's rule
        density[:, 0] *= nodes[:, 1] - nodes[:, 0]
        density[:, -1] *= nodes[:, -1] - nodes[:, -2]
        mass = np.maximum(density.sum(axis=1), 1e-300)
        moment = density * clen
        first = moment.sum(axis=1) / mass
        second = (moment * clen).sum(axis=1) / mass
        fine = np.linspace(energies_eV[0], energies_eV[-1], FINE_ENERGIES)
        weight = np.exp(_smooth(fine, energies_eV, np.log(mass)))
        weight /= weight.sum()
        energy = float(weight @ fine)
        centre = np.interp(fine, energies_eV, first)
        within = np.sqrt(np.interp(fine, energies_eV, np.maximum(second - first**2, 0.0)))
        clen_m = float(weight @ centre)
        spread = np.sqrt(
            (weight @ np.square(fine - energy))
            * (weight @ (np.square(within) + np.square(centre - clen_m)))
        )
        both = float(weight @ ((fine - energy) * (centre - clen_m)))
        spread_clen = centre[:, None] + within[:, None] * SEVENTHS
        return ParameterEstimate(
            energy,
            _half_width(fine - energy, weight),
            clen_m,
            _half_width((spread_clen - clen_m).ravel(), np.repeat(weight / 7, 7)),
            float(np.clip(both / max(float(spread), 1e-300), -1, 1)),
            self.matrix(dispersion),
            dispersion,
            False,
        )

    def matrix(self, dispersion: float) -> NDArray[np.float32]:
        """Return the probabilities of the report's settings if it is one of them."""
        energy = np.array(MATRIX_ENERGY_EV)
        ratio = np.log(energy[:, None] / np.array(MATRIX_CLEN_M))
        if self.n.sum() <= GRID_PHOTONS:
            log_like = self.at(energy, ratio) / dispersion
        else:
            m = self.tables.shape_at(np.broadcast_to(energy[:, None], ratio.shape), ratio)
            log_like = (np.log(m) @ self.n - self.n.sum() * np.log(m @ self.w)) / dispersion
        likely = np.exp(log_like - log_like.max())
        return np.asarray(likely / likely.sum(), np.float32)


def _stencil(at: Array, nodes: Array) -> tuple[NDArray[np.int64], Array]:
    """Return the first of the nodes to interpolate between, and the weights (..., ORDER)."""
    place = (at - nodes[0]) / (nodes[1] - nodes[0])
    first = np.clip(place.astype(np.int64) - ORDER // 2 + 1, 0, len(nodes) - ORDER)
    x = place - first - (ORDER - 1) / 2
    powers = np.ones((*x.shape, ORDER))
    for k in range(1, ORDER):
        np.multiply(powers[..., k - 1], x, out=powers[..., k])
    return first, powers @ _LAGRANGE


def _half_width(distance: Array, weight: Array) -> float:
    """Return how far from 0 the interval reaches that holds one sigma's share of the weight."""
    far = np.abs(distance)
    order = np.argsort(far)
    return float(np.interp(ONE_SIGMA, np.cumsum(weight[order]), far[order]))


def _smooth(x: Array, nodes: Array, values: Array) -> Array:
    """Interpolate a log density by the parabola through the three nearest nodes."""
    step = nodes[1] - nodes[0]
    middle = np.clip(np.rint((x - nodes[0]) / step).astype(np.int64), 1, len(nodes) - 2)
    t = (x - nodes[middle]) / step
    before, at, after = values[middle - 1], values[middle], values[middle + 1]
    return np.asarray(at + t * (after - before) / 2 + t * t * (after + before - 2 * at) / 2)


def _is_narrow(peak: Peak) -> bool:
    energy_sigma, ratio_sigma = np.sqrt(np.diag(peak.covariance))
    return bool(energy_sigma < NARROW_EV and ratio_sigma < NARROW_RATIO)


def _of_peak(peak: Peak, fit: _Likelihood) -> ParameterEstimate:
    """Return a Gaussian posterior, which the range does not cut."""
    dispersion = fit.dispersion(peak.energy_eV, peak.ratio)
    clen_m = peak.energy_eV * np.exp(-peak.ratio)
    turn = np.array([[1.0, 0.0], [clen_m / peak.energy_eV, -clen_m]])
    covariance = dispersion * turn @ peak.covariance @ turn.T
    energy_sigma, clen_sigma = np.sqrt(np.diag(covariance))
    return ParameterEstimate(
        peak.energy_eV,
        float(energy_sigma),
        float(clen_m),
        float(clen_sigma),
        float(covariance[0, 1] / (energy_sigma * clen_sigma)),
        fit.matrix(dispersion),
        dispersion,
        True,
    )


def _prior() -> ParameterEstimate:
    """Return what is known without photons."""
    (e0, e1), (c0, c1) = ENERGY_RANGE_EV, CLEN_RANGE_M
    flat = np.full((3, 3), 1 / 9, np.float32)
    half = 0.5 * ONE_SIGMA
    return ParameterEstimate(
        (e0 + e1) / 2, (e1 - e0) * half, (c0 + c1) / 2, (c1 - c0) * half, 0.0, flat, 1.0, False
    )
