"""A frame's places as the pipeline finds them, for frames that nobody judges.

One rule: the steps are the pipeline's own, so a gate is trained on what it will see.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import learned
from hitfinder.models.evidence import gather_evidence
from hitfinder.models.frontend import cell_tables
from hitfinder.models.geometry import Geometry
from hitfinder.models.image import mask_of
from hitfinder.models.places import Places, look_closer
from hitfinder.models.series_context import SeriesContext
from hitfinder.models.weights import load_water
from hitfinder.stream.bslz4 import Pixels
from hitfinder.workers.reduction import pool


class Scout:
    """Finds places on one detector whose hot pixels are known.

    Args:
        geometry: beam centre and pixel size are used.
        valid: bool (ss, fs), True where a pixel counts.
    """

    def __init__(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        self._geometry, self._valid, self._mask = geometry, valid, mask_of(valid)
        self._cells = cell_tables(geometry, valid)

    def places(self, image: Pixels) -> Places:
        """Return the places of one frame, (ss, fs) counts."""
        pooled = pool(image, self._valid)
        boxes = gather_evidence(pooled.sums, pooled.maxima, self._cells).boxes()
        centre = self._geometry.beam_center_px
        return look_closer(image, self._mask, boxes, centre, trust_bright_pixels=True)


class SeriesScout:
    """Finds places in the blanks of one series, each of which teaches the next ones' mask.

    Args:
        geometry: as of `Scout`.
        valid: as of `Scout`; nothing else is known at first.
    """

    def __init__(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        self._context = SeriesContext(geometry, valid, load_water(), learned.no_entries())

    def places(self, image: Pixels) -> Places:
        """Return the places of the next frame, (ss, fs) counts."""
        context = self._context
        pooled = pool(image, context.valid)
        found = gather_evidence(pooled.sums, pooled.maxima, context.cells)
        places = look_closer(
            image,
            context.mask,
            found.boxes(),
            context.geometry.beam_center_px,
            context.series.knows_hot_pixels,
        )
        context.teach(
            image,
            pooled,
            np.stack((found.counts_N, found.exposure_N)),
            found.photons_per_px,
            is_hit=False,
            frame=context.n_judged,
        )
        return places
