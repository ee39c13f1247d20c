"""A frame's places as the pipeline finds them, for frames that have no series.

One rule: the steps are the pipeline's own, so a gate is trained on what it will see.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models.evidence import gather_evidence
from hitfinder.models.frontend import cell_tables, stack_maps
from hitfinder.models.geometry import Geometry
from hitfinder.models.places import Places, look_closer
from hitfinder.stream.bslz4 import Pixels
from hitfinder.workers.reduction import pool


class Scout:
    """Finds places on one detector.

    Args:
        geometry: beam centre and pixel size are used.
        valid: bool (ss, fs), True where a pixel counts.
    """

    def __init__(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        self._geometry, self._valid = geometry, valid
        self._cells = cell_tables(geometry, valid)

    def places(self, image: Pixels, *, knows_hot_pixels: bool) -> Places:
        """Return the places of one frame.

        Args:
            image: (ss, fs) counts.
            knows_hot_pixels: lone bright pixels count; before a series knows, they do not.
        """
        with torch.inference_mode():
            maps = stack_maps([pool(image, self._valid)], "cpu")
            boxes = gather_evidence(*maps, self._cells).boxes.of_frame(0)
        centre = self._geometry.beam_center_px
        return look_closer(image, self._valid, boxes, centre, knows_hot_pixels)
