"""How far a frame diffracts: d of its outer peaks.

One rule: the stated geometry comes first, as it is better known than what one frame can tell;
where nothing is stated the pixels' own estimate serves.
"""

from __future__ import annotations

import numpy as np

from hitfinder.models.geometry import Geometry
from hitfinder.models.spots import Spots
from hitfinder.models.water import HC_EV_A

OUTER_SHARE = 0.95
"""Of the peaks; the rest may be stray."""
MIN_PEAKS = 5
"""Fewer tell nothing of the resolution."""


def d_min_A(
    peaks: Spots, geometry: Geometry, photon_energy_eV: float | None, clen_m: float | None
) -> float | None:
    """Return the d in angstrom that `OUTER_SHARE` of the peaks lie above.

    Args:
        peaks: of one frame.
        geometry: as stated; its energy and clen are used where it has them.
        photon_energy_eV, clen_m: of the frame's own estimate.

    Returns:
        None with fewer than `MIN_PEAKS`, or where neither source knows energy and clen.
    """
    energy = geometry.photon_energy_eV or photon_energy_eV
    clen = geometry.clen_m or clen_m
    if len(peaks) < MIN_PEAKS or energy is None or clen is None:
        return None
    x = (peaks.fs - geometry.beam_center_px[0]) * geometry.pixel_size_m[0]
    y = (peaks.ss - geometry.beam_center_px[1]) * geometry.pixel_size_m[1]
    sin_theta = np.sin(0.5 * np.arctan2(np.hypot(x, y), clen))
    outer = float(np.quantile(sin_theta, OUTER_SHARE))
    return HC_EV_A / energy / (2 * outer) if outer > 0 else None
