"""Where the detector stands: what a frame's pixels mean in space.

One rule: a `Geometry` is stated, never guessed from pixels; what nobody stated is None. Arrays are
(ss, fs) = (row, column). The beam centre is a pixel index (x, y) = (fs, ss), centre of the first
pixel 0.0; headers and CrystFEL count from the corner, half a pixel more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hitfinder.models.errors import GeometryError

EIGER_PIXEL_SIZE_M = 75e-6


@dataclass(frozen=True, slots=True)
class Geometry:
    """Stated geometry of a series.

    Attributes:
        shape: (ss, fs) pixels.
        pixel_size_m: (x, y) = (fs, ss).
        beam_center_px: (x, y) = (fs, ss), centre of the first pixel 0.0.
        clen_m: camera length, None if nobody stated it.
        photon_energy_eV: None if nobody stated it.
    """

    shape: tuple[int, int]
    pixel_size_m: tuple[float, float]
    beam_center_px: tuple[float, float]
    clen_m: float | None = None
    photon_energy_eV: float | None = None

    def __post_init__(self) -> None:
        stated = {
            "pixel_size_m x": self.pixel_size_m[0],
            "pixel_size_m y": self.pixel_size_m[1],
            "clen_m": self.clen_m,
            "photon_energy_eV": self.photon_energy_eV,
        }
        for name, number in stated.items():
            if number is not None and not (math.isfinite(number) and number > 0):
                raise GeometryError(f"{name} is {number}; expected a positive number")
        if min(self.shape) < 1:
            raise GeometryError(f"shape (ss, fs) is {self.shape}; expected at least 1 pixel each")
        if not all(math.isfinite(c) for c in self.beam_center_px):
            raise GeometryError(f"beam_center_px is {self.beam_center_px}; expected two numbers")

    @classmethod
    def centred(cls, shape: tuple[int, int]) -> Geometry:
        """Return a geometry where only the shape is known: beam in the middle."""
        middle = ((shape[1] - 1) / 2, (shape[0] - 1) / 2)
        return cls(shape, (EIGER_PIXEL_SIZE_M, EIGER_PIXEL_SIZE_M), middle)
