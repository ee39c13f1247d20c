"""Regions of a detector where photons are missing: dead, or in the shadow of something.

One rule: a square is taken only when its counts over many frames lie below half of what its ring
promises, beyond any doubt that the number of squares leaves, and those of its quarters do too.
Squares of one cell need many photons; larger ones, inside a large region, are seen earlier.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hitfinder.models.frontend import CELL_PX
from hitfinder.models.learned import Entries, Kind, entries, no_entries

EDGES_CELLS = (1, 2, 4, 8, 16)
SHADOW_SHARE, DEAD_SHARE = 0.5, 0.02
"""Counts over expected counts, below which a square is in a shadow, and dead."""
DOUBT = 1e-3
"""Chance that any square of the detector is taken wrongly at one look."""
MOST_TAKEN = 0.25
"""More than this share of the detector is not missing: the rings are wrong (beam centre)."""
ENOUGH_COUNTS = 2**29
"""Far from where a cell's counts would not fit, at any look: frames double between looks."""
N_PASSES = 2
"""Rings whose dark squares were found promise more to the others."""


class DimRegions:
    """Counts of each cell over some frames of a series.

    Args:
        shape: (ss, fs).
        exposure_HW: counted pixels of each cell.
        bin_HW: (ring, sector) of each cell.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        exposure_HW: NDArray[np.float32],
        bin_HW: NDArray[np.int32],
    ) -> None:
        self._shape, self._exposure_HW, self._bin_HW = shape, exposure_HW, bin_HW
        self._counts_HW, self._added_HW = np.zeros((2, *exposure_HW.shape), np.uint32)
        self._all_exposure = float(exposure_HW.sum())
        self.n_frames, self._is_full = 0, False

    def add(self, sums_HW: NDArray[np.uint32], most: int) -> None:
        """Add the counts of a frame; nothing once a cell holds enough.

        Args:
            sums_HW: its pooled map.
            most: a cell counts up to so many photons: what is above is a spot.
        """
        if not self._is_full:
            np.minimum(sums_HW, np.uint32(most), out=self._added_HW)
            self._counts_HW += self._added_HW
            self.n_frames += 1

    def look(self, frame: int) -> Entries:
        """Return the squares that are dim, largest first; their cells count no more here."""
        self._is_full = int(self._counts_HW.max()) > ENOUGH_COUNTS
        height, width = self._exposure_HW.shape
        # Whole squares of the largest size; what lies outside was never exposed.
        padded = tuple(-(-n // EDGES_CELLS[-1]) * EDGES_CELLS[-1] for n in (height, width))
        taken = np.zeros(padded, np.bool_)
        inside = taken[:height, :width]
        found = [no_entries()]
        for _ in range(N_PASSES):
            maps = np.zeros((2, *padded), np.float32)
            maps[:, :height, :width] = np.where(inside, 0, self._counts_and_expected(~inside))
            fresh = np.concatenate(self._dim_squares(maps, taken, frame))
            if not len(fresh):
                break
            found.append(fresh)
        share = float(self._exposure_HW[inside].sum()) / max(self._all_exposure, 1.0)
        if share > MOST_TAKEN:
            return no_entries()
        self._exposure_HW[inside] = 0
        return np.concatenate(found)

    # ------------------------------------------------------------------------------------

    def _counts_and_expected(self, is_open: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the counts of each cell and what its ring and sector promise, (2, H, W)."""
        bins = self._bin_HW.ravel()
        seen = np.bincount(bins, (self._exposure_HW * is_open).ravel())
        total = np.bincount(bins, (self._counts_HW * is_open).ravel())
        rate = (total / np.maximum(seen, 1)).astype(np.float32)
        return np.stack((self._counts_HW, rate[self._bin_HW] * self._exposure_HW))

    def _dim_squares(
        self, maps: NDArray[np.float32], taken: NDArray[np.bool_], frame: int
    ) -> list[Entries]:
        """Return the dim squares of all sizes, largest first, and mark their cells as taken."""
        sums, is_dark = {1: maps}, {}
        for edge in EDGES_CELLS:
            if edge > 1:
                sums[edge] = np.add.reduce(_quarters(sums[edge // 2]))
            counts, expected = sums[edge]
            is_dark[edge] = counts <= SHADOW_SHARE * expected
        found = []
        for edge in reversed(EDGES_CELLS):
            is_dim = self._is_dim(*sums[edge]) & ~taken[::edge, ::edge]
            if edge > 1:
                is_dim &= np.logical_and.reduce(_quarters(is_dark[edge // 2]))
            row, column = np.nonzero(is_dim)
            for i, j in zip(row * edge, column * edge, strict=True):
                taken[i : i + edge, j : j + edge] = True
            first = row * edge * CELL_PX * self._shape[1] + column * edge * CELL_PX
            is_dead = sums[edge][0][is_dim] < DEAD_SHARE * sums[edge][1][is_dim]
            for kind, chosen in ((Kind.DEAD, is_dead), (Kind.SHADOW, ~is_dead)):
                found.append(entries(kind, first[chosen], edge * CELL_PX, frame))
        return found

    def _is_dim(
        self, counts: NDArray[np.float32], expected: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Return where counts are below half of the expected ones beyond doubt."""
        doubt, half = DOUBT / self._exposure_HW.size, SHADOW_SHARE * expected.astype(np.float64)
        # Even no counts at all would leave doubt where few are expected.
        is_dim = np.asarray((counts < half) & (half > -np.log(doubt)))
        # P(X <= n) of a Poisson variable of half the expected mean.
        is_dim[is_dim] = special.gammaincc(counts[is_dim] + 1, half[is_dim]) < doubt
        return is_dim


def _quarters(maps: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the four quarters of each square of two, over the last two axes."""
    return [maps[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
