"""A frame's places as the pipeline finds them, for frames that nobody judges.

One rule: the steps are the pipeline's own, so a gate is trained on what it will see.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models import learned
from hitfinder.models.evidence import gather_evidence
from hitfinder.models.frontend import cell_tables, stack_maps
from hitfinder.models.geometry import Geometry
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
        self._geometry, self._valid = geometry, valid
        self._cells = cell_tables(geometry, valid)

    def places(self, image: Pixels) -> Places:
        """Return the places of one frame, (ss, fs) counts."""
        with torch.inference_mode():
            maps = stack_maps([pool(image, self._valid)], "cpu")
            boxes = gather_evidence(*maps, self._cells).boxes.of_frame(0)
        centre = self._geometry.beam_center_px
        return look_closer(image, self._valid, boxes, centre, trust_bright_pixels=True)


class SeriesScout:
    """Finds places in the blanks of one series, each of which teaches the next ones' mask.

    Args:
        geometry: as of `Scout`.
        valid: as of `Scout`; nothing else is known at first.
    """

    def __init__(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        self._context = SeriesContext(geometry, valid, load_water(), "cpu", learned.no_entries())

    def places(self, image: Pixels) -> Places:
        """Return the places of the next frame, (ss, fs) counts."""
        context = self._context
        pooled = pool(image, context.valid)
        with torch.inference_mode():
            found = gather_evidence(*stack_maps([pooled], "cpu"), context.cells)
        places = look_closer(
            image,
            context.valid,
            found.boxes.of_frame(0),
            context.geometry.beam_center_px,
            context.series.knows_hot_pixels,
        )
        expected = found.background
        context.teach(
            image,
            pooled,
            np.stack((expected.counts_BN[0].numpy(), expected.exposure_BN[0].numpy()), dtype="f4"),
            float(expected.photons_per_px_B[0]),
            is_hit=False,
            frame=context.n_judged,
        )
        return places
