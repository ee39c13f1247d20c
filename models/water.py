"""Mean water scattering on a flat detector, as far as its shape goes.

One rule: only the shape matters here, the number of photons is always free. Formula and table:
mean = photons * thickness * 33.3679e27 /m^3 * r_e^2 * solid_angle * P * F2(q), with
solid_angle = pixel_area * clen / R^3 and P = 1 - x^2 / R^2 (polarisation along fs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HC_EV_A = 12398.41984
"""Planck's constant times the speed of light, eV times angstrom."""


@dataclass(frozen=True, slots=True, eq=False)
class WaterTable:
    """F2(q) of liquid water: `f2_e2` electrons^2 per molecule at evenly spaced `q_inv_A`."""

    q_inv_A: NDArray[np.float64]
    f2_e2: NDArray[np.float64]

    def __call__(self, q_inv_A: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate F2 linearly; beyond the table its last value."""
        step = self.q_inv_A[1] - self.q_inv_A[0]
        at = np.clip((q_inv_A - self.q_inv_A[0]) / step, 0, len(self.q_inv_A) - 1.001)
        low = at.astype(np.int64)
        part = at - low
        return np.asarray(self.f2_e2[low] * (1 - part) + self.f2_e2[low + 1] * part)


def water_shape(
    table: WaterTable,
    radius_m: NDArray[np.float64],
    cos2_azimuth: NDArray[np.float64],
    photon_energy_eV: NDArray[np.float64] | float,
    clen_m: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Return the mean photons per pixel up to a factor.

    Args:
        table: F2(q).
        radius_m: distance of the pixels from the beam centre on the detector.
        cos2_azimuth: x^2 / r^2 of the same pixels, 0 to 1.
        photon_energy_eV: broadcasts against the pixels.
        clen_m: broadcasts against the pixels.

    Returns:
        float64, broadcast shape, arbitrary units, positive.
    """
    r2 = radius_m * radius_m
    distance2 = r2 + np.square(clen_m)
    distance = np.sqrt(distance2)
    # sin^2(theta) = (1 - cos(2 theta)) / 2 with cos(2 theta) = clen / R
    sin_theta = np.sqrt(0.5 * (1 - clen_m / distance))
    q = 4 * np.pi / HC_EV_A * photon_energy_eV * sin_theta
    polarisation = 1 - cos2_azimuth * r2 / distance2
    return np.asarray(polarisation * table(q) * clen_m / (distance2 * distance))
