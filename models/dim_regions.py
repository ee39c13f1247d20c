"""Regions of a detector where photons are missing: dead, or in the shadow of something.

One rule: a square is taken only when its counts over many frames lie below half of what its ring
promises, beyond any doubt that the number of squares leaves, and those of its quarters do too.
Squares of one cell need many photons; larger ones, inside a large region, are seen earlier.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from hitfinder.models.frontend import CELL_PX
from hitfinder.models.learned import Entries, Kind, entries, no_entries

EDGES_CELLS = (16, 8, 4, 2, 1)
SHADOW_SHARE, DEAD_SHARE = 0.5, 0.02
"""Counts over expected counts, below which a square is in a shadow, and dead."""
DOUBT = 1e-3
"""Chance that any square of the detector is taken wrongly at one look."""
MOST_TAKEN = 0.25
"""More than this share of the detector is not missing: the rings are wrong (beam centre)."""
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
        self._counts_HW = np.zeros(exposure_HW.shape, np.float32)
        self._all_exposure = float(exposure_HW.sum())
        self.n_frames = 0

    def add(self, sums_HW: NDArray[np.uint32]) -> None:
        """Add the counts of a frame, without its spots."""
        np.add(self._counts_HW, sums_HW, out=self._counts_HW, casting="same_kind")
        self.n_frames += 1

    def look(self, frame: int) -> Entries:
        """Return the squares that are dim, largest first; their cells count no more here."""
        is_open = self._exposure_HW > 0
        squares: list[tuple[Kind, int, NDArray[np.int64]]] = []
        for _ in range(N_PASSES):
            expected_HW = self._expected(is_open)
            for edge in EDGES_CELLS:
                squares += self._dim_squares(expected_HW, is_open, edge)
        taken = 1 - float(self._exposure_HW[is_open].sum()) / max(self._all_exposure, 1.0)
        if taken > MOST_TAKEN or not squares:
            return no_entries()
        self._exposure_HW = np.where(is_open, self._exposure_HW, np.float32(0))
        return np.concatenate(
            [entries(kind, pixels, edge * CELL_PX, frame) for kind, edge, pixels in squares]
        )

    # ------------------------------------------------------------------------------------

    def _expected(self, is_open: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the counts that each cell's ring and sector promise."""
        bins = self._bin_HW.ravel()
        exposure = np.where(is_open, self._exposure_HW, 0).ravel()
        counts = np.where(is_open, self._counts_HW, 0).ravel()
        seen, total = np.bincount(bins, exposure), np.bincount(bins, counts)
        rate = total / np.maximum(seen, 1)
        return np.asarray(rate[self._bin_HW] * self._exposure_HW)

    def _dim_squares(
        self, expected_HW: NDArray[np.float64], is_open: NDArray[np.bool_], edge: int
    ) -> list[tuple[Kind, int, NDArray[np.int64]]]:
        """Return the dim squares of one size by kind, as flat indices of their first pixels."""
        expected = _squares(np.where(is_open, expected_HW, 0), edge)
        counts = _squares(np.where(is_open, self._counts_HW, 0), edge)
        # Even no counts at all would leave doubt where few are expected.
        doubt = DOUBT / self._exposure_HW.size
        half = SHADOW_SHARE * expected
        is_dim = (counts < half) & (half > -np.log(doubt))
        if edge > 1:
            is_dim &= _whole(
                _squares(np.where(is_open, self._counts_HW, 0), edge // 2)
                <= SHADOW_SHARE * _squares(np.where(is_open, expected_HW, 0), edge // 2)
            )
        # P(X <= n) of a Poisson variable of half the expected mean.
        is_dim[is_dim] = special.gammaincc(counts[is_dim] + 1, half[is_dim]) < doubt
        is_dead = is_dim & (counts < DEAD_SHARE * expected)
        found = []
        for kind, chosen in ((Kind.DEAD, is_dead), (Kind.SHADOW, is_dim & ~is_dead)):
            row, column = np.nonzero(chosen)
            if len(row):
                for i, j in zip(row * edge, column * edge, strict=True):
                    is_open[i : i + edge, j : j + edge] = False
                first = row * edge * CELL_PX * self._shape[1] + column * edge * CELL_PX
                found.append((kind, edge, first.astype(np.int64)))
        return found


def _squares(map_HW: NDArray[np.floating], edge: int) -> NDArray[np.float64]:
    """Return the sums over squares of `edge` cells; those at the end may be cut."""
    height, width = map_HW.shape
    whole = np.pad(map_HW, ((0, -height % edge), (0, -width % edge)))
    rows = whole.reshape(-1, edge, whole.shape[1]).sum(1)
    return np.asarray(rows.reshape(len(rows), -1, edge).sum(2), np.float64)


def _whole(quarters: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the squares of which all quarters are True; what lies outside is."""
    height, width = quarters.shape
    padded = np.pad(quarters, ((0, height % 2), (0, width % 2)), constant_values=True)
    return np.asarray(
        padded.reshape(len(padded) // 2, 2, padded.shape[1] // 2, 2).all(axis=(1, 3))
    )
