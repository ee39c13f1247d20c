"""Mean water scattering on a flat detector, as far as its shape goes.

One rule: only the shape matters here, the number of photons is always free. Formula and table:
mean = photons * thickness * 33.3679e27 /m^3 * r_e^2 * solid_angle * P * F2(q), with
solid_angle = pixel_area * clen / R^3 and P = 1 - x^2 / R^2 (polarisation along fs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

HC_EV_A = 12398.41984
"""Planck's constant times the speed of light, eV times angstrom."""


FINE_STEP_INV_A = 0.0002
"""Step of the interpolated table: straight pieces of 0.001 are still seen by 10 000 frames."""


@dataclass(frozen=True, slots=True, eq=False)
class WaterTable:
    """F2(q) of liquid water, electrons^2 per molecule.

    Attributes:
        q_inv_A: float64 (n,), evenly spaced from 0, as tabulated.
        f2_e2: float64 (n,), as tabulated.
        fine: float64, cubic interpolation at multiples of `FINE_STEP_INV_A`.
    """

    q_inv_A: NDArray[np.float64]
    f2_e2: NDArray[np.float64]
    fine: NDArray[np.float64]

    @classmethod
    def from_table(cls, q_inv_A: NDArray[np.float64], f2_e2: NDArray[np.float64]) -> WaterTable:
        """Interpolate a table."""
        q = np.arange(0, float(q_inv_A[-1]), FINE_STEP_INV_A)
        return cls(q_inv_A, f2_e2, np.asarray(CubicSpline(q_inv_A, f2_e2)(q), np.float64))

    def __call__(self, q_inv_A: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return F2; beyond the table its last value."""
        at = np.minimum(q_inv_A * (1 / FINE_STEP_INV_A), len(self.fine) - 1.001)
        low = at.astype(np.int64)
        part = at - low
        return np.asarray(self.fine[low] * (1 - part) + self.fine[low + 1] * part)


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
