"""The multi-scale Poisson scan: where are there more photons than the background explains.

One rule: evidence is -log10 of a Poisson tail probability, less log10 of the number of places
looked at, so 0 means "once a frame by chance" at any flux, radius and scale. Scales: the largest
pixel of a cell, and boxes of 4, 8 and 16 px at every cell.

`device_scan.py` is the definition, on any device; this is the same compiled, for one core.

Suffixes: H = ss, W = fs (cells), S scales, K candidates kept per scale.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import _cells
from hitfinder.models.frontend import CELL_PX, CellTables

SCALES_PX = (1, 4, 8, 16)
CANDIDATES_PER_SCALE = 1024
"""Bound of what is kept of a frame, strongest first: as many as peaks are written; blanks hold 50
to 900 of all scales."""
FLOOR = -6.0
"""Evidence of "nothing": below any candidate."""
CUT_SIGMA = 3.0
CUT_PHOTONS = (1.5, 1.0, 1.0, 1.0)
"""A place is a candidate above mean + 3 sqrt(mean) + this: a cheap cut before the exact tail."""


def scan(
    sums_HW: NDArray[np.uint32],
    maxima_HW: NDArray[np.uint32],
    mean_HW: NDArray[np.float32],
    tables: CellTables,
) -> NDArray[np.float32]:
    """Return the strongest candidates of one frame, scale by scale, in one pass over the cells.

    Returns:
        float32 (5, 4, K): the columns of `device_scan.Candidates`; the same boxes have the same
        photons and means to the bit, and evidence within 1e-6.
    """
    columns = np.empty((5, len(SCALES_PX), CANDIDATES_PER_SCALE), np.float32)
    _cells.scan(
        sums_HW,
        maxima_HW,
        mean_HW,
        tables.narrow.exposure_HW,
        columns,
        sums_HW.shape,
        CANDIDATES_PER_SCALE,
        (CUT_SIGMA, FLOOR),
        CUT_PHOTONS,
        places_looked_at(tables),
    )
    return columns


def places_looked_at(tables: CellTables) -> tuple[float, float, float, float]:
    """Return log10 of the number of places of each scale."""
    pixels, cells = tables.n_valid, tables.n_valid / CELL_PX**2
    pixel, cell = (math.log10(max(n, 1.0)) for n in (pixels, cells))
    return pixel, cell, cell, cell
