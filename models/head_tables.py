"""The water's shape on a coarse grid of energy and log(energy / clen), for one detector.

One rule: everything here depends on geometry and mask alone, so it is made once a series; a bin is
(ring, sector) of the front end, neighbouring rings joined until there are at most `MOST_RINGS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.frontend import N_SECTORS, CellTables
from hitfinder.models.water import WaterTable, water_shape

ENERGY_RANGE_EV = (5000.0, 10000.0)
CLEN_RANGE_M = (0.1, 0.5)
MOST_RINGS = 125
"""12 px rings of the 4M bias a series by less than 3 eV."""
N_ENERGIES, RATIO_STEP = 14, 0.04
"""Coarse as the grid is, the likelihood is smooth on it: sixth-order interpolation between its
nodes errs by less than 0.01 at 100 000 photons."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeadTables:
    """The shape for one detector.

    Attributes:
        water: F2(q).
        radius_m: (bins,) mean distance from the beam centre.
        cos2: (bins,) mean x^2 / r^2.
        cosine, sine: (bins,) mean x / r and y / r: how a bin's radius follows the beam centre.
        pixel_size_m: along fs.
        energies_eV: (E,) grid.
        ratios: (U,) grid of log(energy / clen).
        shape: float32 (E * U, bins), m_b, each row of mean 1.
        log_shape: float32, its logarithm, less the mean over the grid.
    """

    water: WaterTable
    radius_m: Array
    cos2: Array
    cosine: Array
    sine: Array
    pixel_size_m: float
    energies_eV: Array
    ratios: Array
    shape: NDArray[np.float32]
    log_shape: NDArray[np.float32]

    def shape_at(self, energy_eV: Array, ratio: Array, radius_m: Array | None = None) -> Array:
        """Return m_b, shape (..., bins), at energies and log ratios of one shape.

        Args:
            energy_eV: photon energies.
            ratio: log(energy / clen), energy in eV, clen in m.
            radius_m: (bins,) instead of the table's, for a beam centre that lies elsewhere.
        """
        radius_m = self.radius_m if radius_m is None else radius_m
        clen = energy_eV * np.exp(-ratio)
        return water_shape(self.water, radius_m, self.cos2, energy_eV[..., None], clen[..., None])


def fold(values_N: NDArray[np.floating]) -> Array:
    """Add neighbouring rings: (..., rings * sectors) of the front end -> bins of the heads."""
    *leading, n_values = values_N.shape
    n_rings = n_values // N_SECTORS
    per_bin = -(-n_rings // MOST_RINGS)
    bins = np.zeros((*leading, -(-n_rings // per_bin) * per_bin * N_SECTORS))
    bins[..., :n_values] = values_N
    parts = bins.reshape(*leading, -1, per_bin, N_SECTORS)
    joined = parts[..., 0, :].copy()
    for k in range(1, per_bin):
        joined += parts[..., k, :]
    return joined.reshape(*leading, -1)


def head_tables(water: WaterTable, cells: CellTables, pixel_size_m: float) -> HeadTables:
    """Make the grid for a series; `pixel_size_m` is along fs."""
    weight = cells.exposure_N.astype(np.float64)
    total = np.maximum(fold(weight), 1e-9)
    means = (cells.radius_N, cells.cos2_N, cells.cosine_N, cells.sine_N)
    radius_px, cos2, cosine, sine = (fold(weight * of) / total for of in means)
    radius = radius_px * pixel_size_m
    energies = np.linspace(*ENERGY_RANGE_EV, N_ENERGIES)
    lowest = np.log(ENERGY_RANGE_EV[0] / CLEN_RANGE_M[1]) - RATIO_STEP
    highest = np.log(ENERGY_RANGE_EV[1] / CLEN_RANGE_M[0]) + 2 * RATIO_STEP
    ratios = np.arange(lowest, highest, RATIO_STEP)
    clen = energies[:, None] * np.exp(-ratios)
    shape = np.empty((len(energies), len(ratios), len(radius)), np.float32)
    for i, energy in enumerate(energies):
        m = water_shape(water, radius, cos2, energy, clen[i, :, None])
        shape[i] = m / m.mean(axis=1, keepdims=True)
    rows = shape.reshape(-1, len(radius))
    log_rows = np.log(np.maximum(rows, 1e-6))
    log_rows -= log_rows.mean(axis=0)
    return HeadTables(
        water,
        radius,
        cos2,
        cosine,
        sine,
        pixel_size_m,
        energies,
        ratios,
        rows,
        log_rows,
    )
