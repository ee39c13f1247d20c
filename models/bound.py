"""How well energy and camera length can be known at all: Cramer-Rao's bound for the water.

One rule: it is computed from the cells of 4 x 4 pixels, not from the heads' bins, so that what the
bins lose counts against the heads. Scale and beam centre are unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.frontend import CELL_PX, cell_shape, pool_numpy
from hitfinder.models.geometry import Geometry
from hitfinder.models.water import WaterTable, water_shape

Array = NDArray[np.float64]


def cramer_rao(
    water: WaterTable,
    geometry: Geometry,
    valid: NDArray[np.bool_],
    photon_energy_eV: float,
    clen_m: float,
    n_photons: float,
) -> Array:
    """Return the least covariance (2, 2) of (energy in eV, clen in m) that a frame allows.

    Args:
        water: F2(q).
        geometry: beam centre and pixel size are used.
        valid: bool (ss, fs), counted pixels.
        photon_energy_eV, clen_m: the truth.
        n_photons: expected water photons in counted pixels.
    """
    height, width = cell_shape(geometry.shape)
    middle = (CELL_PX - 1) / 2
    exposure = pool_numpy(valid)
    x = (np.arange(width) * CELL_PX + middle - geometry.beam_center_px[0])[None, :]
    y = (np.arange(height) * CELL_PX + middle - geometry.beam_center_px[1])[:, None]
    pixel_x, pixel_y = geometry.pixel_size_m

    def mean(energy_eV: float, clen: float, right_px: float = 0.0, down_px: float = 0.0) -> Array:
        x2 = np.square((x - right_px) * pixel_x)
        r2 = x2 + np.square((y - down_px) * pixel_y)
        shape = water_shape(water, np.sqrt(r2), x2 / np.maximum(r2, 1e-18), energy_eV, clen)
        return np.asarray((shape * exposure)[exposure > 0])

    at = photon_energy_eV, clen_m
    m = mean(*at)
    steps = np.diag((10.0, 1e-3 * clen_m, 1.0, 1.0))
    slopes = [m]
    for step in steps:
        up = mean(at[0] + step[0], at[1] + step[1], *step[2:])
        down = mean(at[0] - step[0], at[1] - step[1], -step[2], -step[3])
        slopes.append((up - down) / (2 * max(step)))
    relative = np.stack(slopes) / m
    information = (relative * (m * n_photons / m.sum())) @ relative.T
    # In units of each parameter's own error the matrix is well conditioned.
    scale = 1 / np.sqrt(np.diag(information))
    covariance = np.linalg.inv(information * np.outer(scale, scale)) * np.outer(scale, scale)
    return np.asarray(covariance[1:3, 1:3])
