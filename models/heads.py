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

from hitfinder.models import _posterior
from hitfinder.models.head_tables import (
    CLEN_RANGE_M,
    ENERGY_RANGE_EV,
    RATIO_STEP,
    Array,
    HeadTables,
    fold,
    head_tables,
)
from hitfinder.models.series_peak import Peak, newton

__all__ = ["HeadTables", "ParameterEstimate", "estimate", "fold", "head_tables"]

MATRIX_ENERGY_EV = (6000.0, 7000.0, 8000.0)
MATRIX_CLEN_M = (0.15, 0.25, 0.35)
TELLS_EV, TELLS_M = 500.0, 0.025
"""Half of the step between the report's settings, a quarter in clen: beyond, nothing is told."""
GRID_PHOTONS = 3e5
"""Up to so many the likelihood is interpolated on its grid; beyond, its peak is computed."""
NARROW_EV, NARROW_RATIO = 300.0, 0.05
"""A peak narrower than this is a Gaussian; a wider one is integrated on the grid."""
ZOOM_ENERGIES = 17
REACH = 14.0
"""Log likelihood below the best that still counts: 5.3 sigma."""
MIN_PHOTONS = 50.0
"""Below this nothing is fitted: the answer is the prior."""
ONE_SIGMA = 0.682689
RANGES = (*ENERGY_RANGE_EV, *CLEN_RANGE_M)
MATRIX = np.array([(e, np.log(e / c)) for e in MATRIX_ENERGY_EV for c in MATRIX_CLEN_M])


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
    counts, exposure = fold(np.stack((counts_N, exposure_N)))
    return estimate_folded(counts, exposure, tables)


def estimate_folded(n: Array, w: Array, tables: HeadTables) -> ParameterEstimate:
    """Do as `estimate` does with counts and exposure per bin of the tables."""
    n = np.where(w > 0, n, 0.0)
    if n.sum() < MIN_PHOTONS:
        return _prior()
    fit = _Likelihood(n, w, tables)
    if n.sum() > GRID_PHOTONS:
        peak = newton(n, w, tables, *fit.top)
        if peak is not None and _is_narrow(peak):
            return fit.of_peak(peak)
    return fit.integrate()


class _Likelihood:
    """The likelihood of one set of counts on the grid, and between its nodes."""

    def __init__(self, n: Array, w: Array, tables: HeadTables) -> None:
        self.n, self.w, self.tables = n, w, tables
        # Single precision is worth 1e-7 of all photons: enough for a frame, not for a series.
        few = n.sum() <= GRID_PHOTONS
        precision = np.float32 if few else np.float64
        log_like = tables.log_shape.astype(precision, copy=False) @ n.astype(precision)
        weighted = tables.shape.astype(precision, copy=False) @ w.astype(precision)
        log_like = log_like - n.sum() * np.log(weighted, dtype=np.float64)
        t = tables
        axes = (
            float(t.energies_eV[0]),
            float(t.energies_eV[1] - t.energies_eV[0]),
            float(t.ratios[0]),
            RATIO_STEP,
        )
        self._grid = log_like, (len(t.energies_eV), len(t.ratios)), axes, RANGES
        self._ridge = np.empty((4, ZOOM_ENERGIES))
        self.top = _posterior.follow(*self._grid, REACH, self._ridge)

    def dispersion(self, energy_eV: float, ratio: float) -> float:
        """Compare the scatter about a shape with Poisson's (Pearson's chi squared)."""
        mean = self.tables.shape_at(np.array(energy_eV), np.array(ratio)) * self.w
        mean *= self.n.sum() / mean.sum()
        used = mean > 1.0
        n_free = max(int(used.sum()) - 3, 1)
        square = np.square(self.n - mean)[used] / mean[used]
        return max(1.0, float(square.sum()) / n_free - float(np.sqrt(2 / n_free)))

    def integrate(self) -> ParameterEstimate:
        """Integrate over the grid: over the ratio along its ridge, then over energy."""
        dispersion = self.dispersion(*self.top)
        log_like = np.empty(9)
        found = _posterior.integrate(
            *self._grid, self._ridge, dispersion, ONE_SIGMA, MATRIX, log_like
        )
        return ParameterEstimate(*found, _matrix(log_like / dispersion), dispersion, False)

    def of_peak(self, peak: Peak) -> ParameterEstimate:
        """Return a Gaussian posterior, which the range does not cut."""
        dispersion = self.dispersion(peak.energy_eV, peak.ratio)
        clen_m = peak.energy_eV * np.exp(-peak.ratio)
        turn = np.array([[1.0, 0.0], [clen_m / peak.energy_eV, -clen_m]])
        covariance = dispersion * turn @ peak.covariance @ turn.T
        energy_sigma, clen_sigma = np.sqrt(np.diag(covariance))
        m = self.tables.shape_at(MATRIX[:, 0], MATRIX[:, 1])
        log_like = np.log(m) @ self.n - self.n.sum() * np.log(m @ self.w)
        return ParameterEstimate(
            peak.energy_eV,
            float(energy_sigma),
            float(clen_m),
            float(clen_sigma),
            float(covariance[0, 1] / (energy_sigma * clen_sigma)),
            _matrix(log_like / dispersion),
            dispersion,
            True,
        )


def _matrix(log_like: Array) -> NDArray[np.float32]:
    likely = np.exp(log_like - log_like.max())
    return np.asarray(likely / likely.sum(), np.float32).reshape(3, 3)


def _is_narrow(peak: Peak) -> bool:
    energy_sigma, ratio_sigma = np.sqrt(np.diag(peak.covariance))
    return bool(energy_sigma < NARROW_EV and ratio_sigma < NARROW_RATIO)


def _prior() -> ParameterEstimate:
    """Return what is known without photons."""
    (e0, e1), (c0, c1) = ENERGY_RANGE_EV, CLEN_RANGE_M
    flat = np.full((3, 3), 1 / 9, np.float32)
    half = 0.5 * ONE_SIGMA
    return ParameterEstimate(
        (e0 + e1) / 2, (e1 - e0) * half, (c0 + c1) / 2, (c1 - c0) * half, 0.0, flat, 1.0, False
    )
