"""What pooled maps hold before anything learned looks at it: background, candidates, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models import _cells, background, scan
from hitfinder.models.frontend import CELL_PX, CellTables
from hitfinder.models.places import Boxes, merge

MIN_EVIDENCE = 1.0
"""Cells are kept out of the background near boxes that chance makes in one frame of ten."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a batch of pooled maps holds before anything learned looks at it."""

    background: background.Background
    candidates: scan.Candidates
    boxes: Boxes


def gather_evidence(
    sums_BHW: torch.Tensor, maxima_BHW: torch.Tensor, cells: CellTables
) -> Evidence:
    """Estimate backgrounds and scan; the part of the pipeline that training shares."""
    expected = background.estimate(sums_BHW, cells)
    found = scan.scan(sums_BHW, maxima_BHW, expected.mean_BHW, cells)
    return Evidence(expected, found, merge(found))


def outside_boxes(
    sums_HW: NDArray[np.uint32],
    total_N: NDArray[np.float32],
    cells: CellTables,
    boxes: Sequence[NDArray[np.float32]],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return counts and exposure per (ring, sector) of one frame's cells away from all boxes.

    Args:
        sums_HW: its pooled map.
        total_N: photons of each bin, all cells.
        cells: tables of its series.
        boxes: `Boxes.of_frame`.
    """
    evidence, _, ss_cells, fs_cells, _, edge_px = boxes
    places = np.stack((ss_cells, fs_cells, edge_px))[:, evidence > MIN_EVIDENCE]
    counts_N = total_N.astype(np.float64)
    exposed_N = cells.exposure_N.cpu().numpy().astype(np.float64)
    narrow, shape = cells.narrow, (sums_HW.shape[0], sums_HW.shape[1])
    _cells.outside(
        np.ascontiguousarray(places),
        CELL_PX,
        sums_HW,
        narrow.exposure_HW,
        narrow.bin_HW,
        shape,
        counts_N,
        exposed_N,
    )
    return np.maximum(counts_N, 0).astype(np.float32), np.maximum(exposed_N, 0).astype(np.float32)
