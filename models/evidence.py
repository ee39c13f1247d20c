"""What pooled maps hold before anything learned looks at it: background, candidates, boxes.

One rule: a frame's evidence lies in host memory wherever it was gathered, as places are looked at
there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import _cells, background, scan
from hitfinder.models.frontend import CELL_PX, N_SECTORS, CellTables
from hitfinder.models.places import CONSIDERED, merge

MIN_EVIDENCE = 1.0
"""Cells are kept out of the background near boxes that chance makes in one frame of ten."""

Float = NDArray[np.float32]
NO_MEAN = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What one frame's pooled maps hold before anything learned looks at it.

    Attributes:
        total_N: float32 photons per (ring, sector) bin, of all cells.
        counts_N, exposure_N: photons and counted pixels per bin, clipped cells left out.
        photons_per_px: background, mean over the detector.
        candidates_5SK: float32 (5, 4, K), the columns of `device_scan.Candidates`.
    """

    total_N: Float
    counts_N: Float
    exposure_N: Float
    photons_per_px: float
    candidates_5SK: Float

    def boxes(self, n_keep: int = CONSIDERED) -> Float:
        """Return the boxes that no stronger one hides, as `places.merge` does."""
        return merge(self.candidates_5SK, n_keep)


def gather_evidence(
    sums_HW: NDArray[np.uint32],
    maxima_HW: NDArray[np.uint32],
    cells: CellTables,
    mean_HW: Float = NO_MEAN,
    n_candidates: int = scan.CANDIDATES_PER_SCALE,
) -> Evidence:
    """Estimate the background of one frame and scan it, on one core.

    A row is scanned while its background is in the cache: the background of a frame is laid out
    nowhere.

    Args:
        sums_HW: uint32, photons of the cells.
        maxima_HW: uint32, largest pixel of the cells.
        cells: of their series.
        mean_HW: where to lay it out nevertheless, float32 photons expected in each cell.
        n_candidates: kept of each scale; for 0 nothing is scanned.
    """
    n_bins, narrow = cells.exposure_N.size, cells.narrow
    total_N, counts_N, exposure_N = np.empty((3, n_bins), np.float32)
    candidates_5SK = np.empty((5, len(scan.SCALES_PX), n_candidates), np.float32)
    sum_of_mean = _cells.evidence(
        sums_HW,
        maxima_HW,
        narrow.bin_HW,
        narrow.lowest,
        narrow.above,
        narrow.exposure_HW,
        cells.exposure_N,
        mean_HW,
        total_N,
        counts_N,
        exposure_N,
        candidates_5SK,
        sums_HW.shape,
        N_SECTORS,
        background.RING_WINDOWS,
        (
            background.RING_PRIOR_PHOTONS,
            background.BLOCK_PRIOR_PHOTONS,
            background.CLIP_SIGMA,
            background.CLIP_PHOTONS,
        ),
        (background.N_CLIPS, CELL_PX, background.BLOCK_CELLS),
        (scan.CUT_SIGMA, scan.FLOOR),
        scan.CUT_PHOTONS,
        scan.places_looked_at(cells),
    )
    per_px = float(np.float32(sum_of_mean / max(cells.n_valid, 1)))
    return Evidence(total_N, counts_N, exposure_N, per_px, candidates_5SK)


def outside_boxes(
    sums_HW: NDArray[np.uint32],
    total_N: Float,
    cells: CellTables,
    boxes: Float,
) -> tuple[Float, Float]:
    """Return counts and exposure per (ring, sector) of one frame's cells away from all boxes.

    Args:
        sums_HW: its pooled map.
        total_N: photons of each bin, all cells.
        cells: tables of its series.
        boxes: `places.merge`'s.
    """
    places = boxes[2:, boxes[0] > MIN_EVIDENCE][[0, 1, 3]]
    counts_N = total_N.astype(np.float64)
    exposed_N = cells.exposure_N.astype(np.float64)
    narrow = cells.narrow
    _cells.outside(
        places,
        CELL_PX,
        sums_HW,
        narrow.exposure_HW,
        narrow.bin_HW,
        sums_HW.shape,
        counts_N,
        exposed_N,
    )
    return np.maximum(counts_N, 0).astype(np.float32), np.maximum(exposed_N, 0).astype(np.float32)
