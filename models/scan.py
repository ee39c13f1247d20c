"""The multi-scale Poisson scan: where are there more photons than the background explains.

One rule: evidence is -log10 of a Poisson tail probability, less log10 of the number of places
looked at, so 0 means "once a frame by chance" at any flux, radius and scale. Scales: the largest
pixel of a cell, and boxes of 4, 8 and 16 px at every cell.

`device_scan.py` is the definition, on any device, `evidence.py` calls the same compiled for one
core; these are the numbers of both.
"""

from __future__ import annotations

import math

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


def places_looked_at(tables: CellTables) -> tuple[float, float, float, float]:
    """Return log10 of the number of places of each scale."""
    pixels, cells = tables.n_valid, tables.n_valid / CELL_PX**2
    pixel, cell = (math.log10(max(n, 1.0)) for n in (pixels, cells))
    return pixel, cell, cell, cell
