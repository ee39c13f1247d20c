"""Sums of frames, hits and misses apart: a virtual powder, and its radial profile.

One rule: what is shown is a mean per pixel that counted. Each 4 x 4 cell has its own exposure
(pixels that counted, times frames), so a pixel that is found to be hot takes its cell's past with
it, and gaps are unknown, not zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.pooling import POOL, pool4, pooled_shape

# Width of a bin of the profile; four cells, so that each ring holds many.
RING_PX = 4 * POOL


class SeriesPixels:
    """Which pixels of a series count, as the sums need it.

    Args:
        valid: bool (ss, fs), True where a pixel counts.

    Attributes:
        valid: the same.
        n_valid: `pooled_shape`, uint32, pixels of each cell that count.
    """

    def __init__(self, valid: NDArray[np.bool_]) -> None:
        self.valid = valid
        shape = pooled_shape((valid.shape[0], valid.shape[1]))
        self.n_valid = np.empty(shape, np.uint32)
        ones = np.ones(valid.shape, np.uint8)
        pool4(valid.view(np.uint8), ones, self.n_valid, np.empty(shape, np.uint32))


class Powder:
    """Hits or misses of one series, added up.

    Attributes:
        n_frames: added so far.
    """

    def __init__(self, pixels: SeriesPixels) -> None:
        self.pixels, self.n_frames = pixels, 0
        self._photons = np.zeros(pixels.n_valid.shape, np.float64)
        self._exposure = np.zeros(pixels.n_valid.shape, np.float64)

    def know(self, pixels: SeriesPixels) -> None:
        """Take other pixels as those that count; cells that change start anew."""
        changed = pixels.n_valid != self.pixels.n_valid
        self._photons[changed] = self._exposure[changed] = 0.0
        self.pixels = pixels

    def add(self, sums: NDArray[np.uint32]) -> None:
        """Add a frame's pooled sums, made with the pixels that count now."""
        self._photons += sums
        self._exposure += self.pixels.n_valid
        self.n_frames += 1

    def per_px(self) -> NDArray[np.float32]:
        """Return mean photons per pixel and frame of each cell, NaN where no pixel counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._photons / self._exposure, np.float32)

    def profile(self, rings: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return mean photons per pixel and frame by radius, NaN where no pixel counted.

        Args:
            rings: `rings_of` the detector.

        Returns:
            shape (rings,); ring k lies from k to k + 1 times `RING_PX`.
        """
        photons, exposure = (
            np.bincount(rings, what.reshape(-1)) for what in (self._photons, self._exposure)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(photons / exposure, np.float64)


def rings_of(shape: tuple[int, int], beam_center_px: tuple[float, float]) -> NDArray[np.int64]:
    """Return the ring of each 4 x 4 cell, flat, counted from the beam.

    Args:
        shape: (ss, fs) of the detector.
        beam_center_px: (fs, ss), pixel index; `workers.geometry` bounds it.
    """
    rows, columns = (POOL * np.arange(n) + (POOL - 1) / 2 for n in pooled_shape(shape))
    radius_px = np.hypot(rows[:, None] - beam_center_px[1], columns[None, :] - beam_center_px[0])
    return np.asarray(radius_px / RING_PX, np.int64).reshape(-1)
