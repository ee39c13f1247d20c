"""What pooled maps hold before anything learned looks at it: background, candidates, boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models import background, scan
from hitfinder.models.frontend import CELL_PX, CellTables
from hitfinder.models.places import Boxes, merge

MIN_EVIDENCE = 1.0
"""Cells are kept out of the background near boxes that chance makes in one frame of ten."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a batch of pooled maps holds before anything learned looks at it."""

    sums: torch.Tensor
    background: background.Background
    candidates: scan.Candidates
    boxes: Boxes


def gather_evidence(
    sums_BHW: torch.Tensor, maxima_BHW: torch.Tensor, cells: CellTables
) -> Evidence:
    """Estimate backgrounds and scan; the part of the pipeline that training shares."""
    expected = background.estimate(sums_BHW, cells)
    found = scan.scan(sums_BHW, maxima_BHW, expected.mean_BHW, cells)
    return Evidence(sums_BHW, expected, found, merge(found))


def outside_boxes(
    part: Evidence, row: int, cells: CellTables, boxes: tuple[NDArray[np.float32], ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return counts and exposure per (ring, sector) of one frame's cells away from all boxes."""
    near = np.zeros(tuple(cells.bin_HW.shape), np.bool_)
    evidence, _, ss_cells, fs_cells, _, edge_px = boxes
    significant = evidence > MIN_EVIDENCE
    columns = (c[significant] for c in (ss_cells, fs_cells, np.maximum(edge_px / CELL_PX, 1)))
    for ss, fs, size in zip(*columns, strict=True):
        reach = size / 2 + 1
        top, left = max(int(ss - reach), 0), max(int(fs - reach), 0)
        near[top : int(ss + reach) + 2, left : int(fs + reach) + 2] = True
    inside = torch.from_numpy(np.flatnonzero(near)).to(cells.bin_HW.device)
    index = cells.bin_HW.view(-1)[inside]

    def without(total_N: torch.Tensor, map_HW: torch.Tensor) -> NDArray[np.float32]:
        lost_N = torch.bincount(index, map_HW.reshape(-1)[inside], len(total_N))
        return np.asarray((total_N - lost_N).clamp(min=0).to(torch.float32).cpu().numpy())

    return (
        without(part.background.total_BN[row], part.sums[row]),
        without(cells.exposure_N, cells.exposure_HW),
    )
