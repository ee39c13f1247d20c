"""The background of a frame from the frame alone: rings, then a coarse correction.

One rule: every estimate starts from a wider one and leaves it only as far as photons support it
(gamma prior: rate = wide * (counts + k) / (expected + k)), so a frame of 300 photons and one of
10 million take the same path. Cells that hold a spot are clipped away by iteration.

`device_background.py` is the definition, on any device; this is the same compiled, for one core.

Suffixes: H = ss, W = fs (cells), N bins (ring x sector).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import _cells
from hitfinder.models.frontend import CELL_PX, N_SECTORS, CellTables

RING_WINDOWS = (129, 33, 9, 1)
"""Widths in rings of the nested background estimates, widest first."""
BLOCK_CELLS = 8
"""Coarse correction of the background: blocks of 32 px, averaged over 3 x 3 blocks."""
RING_PRIOR_PHOTONS = 25.0
"""A wider window predicts a narrower one to about 1 / sqrt(25) = 20 %."""
BLOCK_PRIOR_PHOTONS = 100.0
"""Rings predict a block to about 10 % (polarisation, a shifted beam centre, a shadow)."""
CLIP_SIGMA, CLIP_PHOTONS = 4.5, 3.0
"""A cell above mean + 4.5 sqrt(mean) + 3 is a spot; below 1e-6 of background cells are."""
N_CLIPS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """Expected background of one frame in host memory.

    Attributes:
        mean_HW: float32 expected photons in the cell, 0 where no pixel counts.
        total_N: float32 photons per (ring, sector) bin, of all cells.
        counts_N: float32 photons per (ring, sector) bin, clipped cells left out.
        exposure_N: float32 counted pixels per bin, clipped cells left out.
        photons_per_px: mean over the detector.
    """

    mean_HW: NDArray[np.float32]
    total_N: NDArray[np.float32]
    counts_N: NDArray[np.float32]
    exposure_N: NDArray[np.float32]
    photons_per_px: float


def estimate(sums_HW: NDArray[np.uint32], tables: CellTables) -> Background:
    """Estimate the background of one frame, to the rounding of float32 sums.

    Args:
        sums_HW: photons of the cells.
        tables: of their series.
    """
    n_bins, narrow = tables.exposure_N.size, tables.narrow
    mean_HW = np.empty(sums_HW.shape, np.float32)
    total_N, counts_N, exposure_N = np.empty((3, n_bins), np.float32)
    sum_of_mean = _cells.background(
        sums_HW,
        narrow.bin_HW,
        narrow.lowest,
        narrow.above,
        narrow.exposure_HW,
        tables.exposure_N,
        mean_HW,
        total_N,
        counts_N,
        exposure_N,
        sums_HW.shape,
        N_SECTORS,
        RING_WINDOWS,
        (RING_PRIOR_PHOTONS, BLOCK_PRIOR_PHOTONS, CLIP_SIGMA, CLIP_PHOTONS),
        (N_CLIPS, CELL_PX, BLOCK_CELLS),
    )
    per_px = float(np.float32(sum_of_mean / max(tables.n_valid, 1)))
    return Background(mean_HW, total_N, counts_N, exposure_N, per_px)
