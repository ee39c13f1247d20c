"""What the frames of one series share: geometry, mask, tables, and what they have taught.

One rule: tables and mask are the stated ones less what was learned, changed in place as frames
teach, so what a frame is judged with costs nothing to look up.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import heads, learned
from hitfinder.models.frontend import CELL_PX, CellTables, Pooled, cell_tables, pool_again
from hitfinder.models.geometry import Geometry
from hitfinder.models.image import Image, mask_of, saturated_pixels
from hitfinder.models.series_model import SeriesModel
from hitfinder.models.water import WaterTable

FEW_SATURATED = 64
"""Up to this many overflowed pixels the exposure of their cells is not worth correcting."""


class SeriesContext:
    """What the frames of one series share: geometry, mask, tables, and what they have taught.

    Attributes:
        valid: bool (ss, fs), the stated mask less what was learned; changes as frames teach.
        mask: the same, `mask_of` it; another array once it has changed.
        series: what the frames have taught.
        n_judged: frames judged in this context.
    """

    def __init__(
        self,
        geometry: Geometry,
        valid: NDArray[np.bool_],
        water: WaterTable,
        known: learned.Entries,
    ) -> None:
        self.geometry, self.valid = geometry, np.array(valid, order="C")
        self.mask = mask_of(self.valid)
        self.cells = cell_tables(geometry, valid)
        self.heads = heads.head_tables(water, self.cells, geometry.pixel_size_m[0])
        self.n_judged = 0
        self._stuck: NDArray[np.intp] | None = None
        self._stuck_cells = self.cells
        self._take_out(known)
        self.series = SeriesModel(geometry.shape, self.cells, known)

    def teach(
        self,
        image: Image,
        pooled: Pooled,
        radial_counts: NDArray[np.float32],
        photons_per_px: float,
        *,
        is_hit: bool,
        frame: int,
    ) -> None:
        """Learn from a judged frame, as `SeriesModel.teach` says; the next are judged with it."""
        self.n_judged += 1
        fresh = self.series.teach(
            image,
            pooled,
            self.mask,
            radial_counts,
            photons_per_px,
            is_hit=is_hit,
            frame=frame,
        )
        if len(fresh):
            self._take_out(fresh)
            self.series.forget(self.valid)

    def pooled_now(self, image: Image, pooled: Pooled, version: int) -> Pooled:
        """Return the maps of a frame without what was learned since this version."""
        since = self.series.entries[version:]
        if not len(since):
            return pooled
        return pool_again(pooled, image, self.valid, learned.pixels_of(since, image.shape))

    def _take_out(self, entries: learned.Entries) -> None:
        """Take learned pixels out of mask and tables; costs by their number."""
        pixels = learned.pixels_of(entries, self.geometry.shape)
        pixels = pixels[self.valid.reshape(-1)[pixels]]
        if not len(pixels):
            return
        self.valid.reshape(-1)[pixels] = False
        self.mask = mask_of(self.valid)
        row, column = np.divmod(pixels, self.geometry.shape[1])
        width = self.cells.exposure_HW.shape[1]
        flat = row // CELL_PX * width + column // CELL_PX
        np.subtract.at(self.cells.narrow.exposure_HW.reshape(-1), flat, 1)
        np.subtract.at(self.cells.exposure_HW.reshape(-1), flat, 1)
        np.subtract.at(self.cells.exposure_N, self.cells.bin_HW.reshape(-1)[flat], 1)
        # Another object, by which a GPU sees that its copy of the tables is out of date.
        self.cells = replace(self.cells, n_valid=self.cells.n_valid - len(pixels))
        self._stuck, self._stuck_cells = None, self.cells

    def cells_of(self, image: Image, n_saturated: int) -> CellTables:
        """Return the tables for a frame, without its saturated pixels if they are many.

        A module gap that no mask names reads the largest value in every frame; the tables of the
        last such pattern are kept, and used only where a frame repeats it exactly.
        """
        if n_saturated <= FEW_SATURATED:
            return self.cells
        stuck = saturated_pixels(image, self.valid, n_saturated)
        if self._stuck is None or not np.array_equal(stuck, self._stuck):
            usable = self.valid.copy()
            usable.reshape(-1)[stuck] = False
            self._stuck, self._stuck_cells = stuck, cell_tables(self.geometry, usable)
        return self._stuck_cells
