"""Spots at full resolution: from significant cells to positions, intensities and SNR.

One rule: a place becomes a position by following its photons (mean shift of the excess under a
Gaussian of the box's size), and its intensity comes by the three-ring method: an inner disc is
the spot, a gap, an outer ring (up to 14 px away) is the local background. Only hits get here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import _spots
from hitfinder.models.image import Image, Mask, memory

MAX_PEAKS = 1024
MIN_KERNEL_PX = 1.0
"""Gaussian sigma of the mean shift: the spot's own, but not less."""
DISC_SIGMA, MIN_DISC_PX, MAX_DISC_PX = 2.5, 2.5, 10.0
"""The inner disc holds 96 % of a Gaussian spot's photons."""
GAP_PX = 1.5
N_SHIFTS = 5
SAME_SPOT_PX = 3.0
PRIOR_PHOTONS = 10.0
"""The frame's background counts as this many photons of the outer ring."""

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Spots of one frame, float32 (n,) each, strongest evidence first.

    `fs`, `ss`: pixel index, centre of the first pixel 0.0. `intensity`: photons above background.
    `snr`: intensity over its sigma. `p`: probability to be a Bragg spot.
    """

    fs: Float
    ss: Float
    intensity: Float
    snr: Float
    p: Float

    def __len__(self) -> int:
        return len(self.fs)


def no_spots() -> Spots:
    """Return the empty set."""
    return Spots(*(np.empty(0, np.float32) for _ in range(5)))


def locate(
    image: Image,
    mask: Mask,
    ss_px: Float,
    fs_px: Float,
    sigma_px: Float,
    background_per_px: Float,
    p: Float,
) -> Spots:
    """Turn places into spots.

    Args:
        image: uint (ss, fs), photons; the largest value of the type is not a count.
        mask: `mask_of` the pixels that count.
        ss_px: start position of each place, strongest first.
        fs_px: start position.
        sigma_px: width of the spot.
        background_per_px: photons per pixel expected there.
        p: probability of each place.
    """
    if not len(ss_px):
        return no_spots()
    places = np.stack((ss_px, fs_px, sigma_px, background_per_px), dtype=np.float32)
    found = np.empty_like(places)
    _spots.locate(
        *memory(image),
        mask,
        (image.shape[0], image.shape[1]),
        image.dtype.itemsize,
        places,
        N_SHIFTS,
        (MIN_KERNEL_PX, DISC_SIGMA, MIN_DISC_PX, MAX_DISC_PX, GAP_PX, PRIOR_PHOTONS),
        found,
    )
    ss, fs, intensity, snr = found
    keep = _distinct(ss, fs) & (intensity > 0)
    columns = (fs, ss, intensity, snr, p)
    return Spots(*(np.ascontiguousarray(c[keep][:MAX_PEAKS], np.float32) for c in columns))


def _distinct(ss: Float, fs: Float) -> NDArray[np.bool_]:
    """Return False for a position that repeats a stronger one."""
    kept = np.empty(ss.shape, np.bool_)
    _spots.keep_distinct(ss, fs, SAME_SPOT_PX**2, kept.view(np.uint8))
    return kept
