"""The multi-scale Poisson scan: where are there more photons than the background explains.

One rule: evidence is -log10 of a Poisson tail probability, less log10 of the number of places
looked at, so 0 means "once a frame by chance" at any flux, radius and scale. Scales: the largest
pixel of a cell, and boxes of 4, 8 and 16 px at every cell.

Suffixes: B batch, H = ss, W = fs (cells), C candidates of the whole batch, K kept per frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hitfinder.models import _cells
from hitfinder.models.frontend import CELL_PX, CellTables, flat_nonzero

SCALES_PX = (1, 4, 8, 16)
CANDIDATES_PER_SCALE = 1024
"""Bound of what is kept of a frame, strongest first: as many as peaks are written; blanks hold 50
to 900 of all scales."""
FLOOR = -6.0
"""Evidence of "nothing": below any candidate."""
CUT_SIGMA = 3.0
CUT_PHOTONS = (1.5, 1.0, 1.0, 1.0)
"""A place is a candidate above mean + 3 sqrt(mean) + this: a cheap cut before the exact tail."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The strongest candidates of each frame and scale; empty places hold `FLOOR`.

    All float32 of shape (B, 4, K), by falling evidence.

    Attributes:
        evidence: -log10 tail - log10 number of places.
        rest: the same with the brightest pixel of the box counting at most one photon more than
            all others have above background: a lone hot pixel has none, a spot keeps its own.
        ss: centre of the box in cells.
        fs: centre of the box in cells.
        mean: background photons in the box (of one pixel for the first scale).
    """

    evidence: torch.Tensor
    rest: torch.Tensor
    ss: torch.Tensor
    fs: torch.Tensor
    mean: torch.Tensor

    def columns(self) -> tuple[torch.Tensor, ...]:
        """Return all columns in the order of the fields."""
        return self.evidence, self.rest, self.ss, self.fs, self.mean


def neg_log10_tail(n: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return -log10 P(X >= n) of a Poisson variable, for n above its mean; 0 elsewhere.

    Stable for means from 1e-6 to 1e5: the leading term times Kummer's function, whose
    continued fraction (NIST DLMF 13.5.1 with a = 1) converges where n > mean.
    """
    if n.device.type != "cpu":
        return neg_log10_tail_torch(n, mean)
    tails = np.empty(n.numel(), np.float32)
    n64, mean64 = (t.to(torch.float64).contiguous().numpy() for t in (n, mean))
    _cells.neg_log10_tails(n64, mean64, tails)
    return torch.from_numpy(tails).view(n.shape)


def neg_log10_tail_torch(n: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return what `neg_log10_tail` does, on any device: the definition."""
    mean = mean.to(torch.float64).clamp(min=1e-12)
    n = n.to(torch.float64)
    above = n > mean
    safe = torch.where(above, n, mean + 1)
    b = safe + 1
    fraction = torch.zeros_like(safe)
    for k in range(12, 0, -1):
        # Odd terms pull down, even terms push up: z/(b + z/(b+1 - bz/(b+2 + 2z/(b+3 - ...)))).
        half = (k + 1) // 2
        term = half * mean if k % 2 else -(b + half - 1) * mean
        fraction = term / (b + k + fraction)
    kummer = 1 / (1 - mean / (b + fraction))
    log_tail = safe * mean.log() - mean - torch.lgamma(b) + kummer.clamp(min=1).log()
    return torch.where(above, -log_tail / math.log(10), 0.0).clamp(min=0).to(torch.float32)


def scan_on_host(
    sums_HW: NDArray[np.uint32],
    maxima_HW: NDArray[np.uint32],
    mean_HW: NDArray[np.float32],
    tables: CellTables,
) -> NDArray[np.float32]:
    """Do as `scan` does with one frame, on one core in one pass over the cells.

    The same boxes have the same photons and means to the bit, and evidence within 1e-6.

    Returns:
        float32 (5, 4, K): the columns of `Candidates`.
    """
    columns = np.empty((5, len(SCALES_PX), CANDIDATES_PER_SCALE), np.float32)
    _cells.scan(
        sums_HW,
        maxima_HW,
        mean_HW,
        tables.narrow.exposure_HW,
        columns,
        sums_HW.shape,
        CANDIDATES_PER_SCALE,
        (CUT_SIGMA, FLOOR),
        CUT_PHOTONS,
        places_looked_at(tables),
    )
    return columns


def places_looked_at(tables: CellTables) -> tuple[float, float, float, float]:
    """Return log10 of the number of places of each scale."""
    pixels, cells = tables.n_valid, tables.n_valid / CELL_PX**2
    pixel, cell = (math.log10(max(n, 1.0)) for n in (pixels, cells))
    return pixel, cell, cell, cell


def scan(
    sums_BHW: torch.Tensor,
    maxima_BHW: torch.Tensor,
    mean_BHW: torch.Tensor,
    tables: CellTables,
) -> Candidates:
    """Return the strongest candidates of each frame, scale by scale: the definition.

    Args:
        sums_BHW: photons of the cells, whole numbers.
        maxima_BHW: largest pixel of the cells, of the same type.
        mean_BHW: float32, expected photons of the cells.
        tables: of their series.
    """
    sums_BHW, maxima_BHW = sums_BHW.to(torch.float32), maxima_BHW.to(torch.float32)
    scale, b, i, j, n, mean = _boxes_above(sums_BHW, maxima_BHW, mean_BHW, tables)
    n_rows = len(sums_BHW) * len(SCALES_PX)
    places = torch.tensor(places_looked_at(tables), device=n.device)
    evidence = neg_log10_tail_torch(n, mean) - places[scale]
    frame_scale = b * len(SCALES_PX) + scale
    # A frame of empty cells around each map, so that no place has neighbours across an edge.
    height, width = sums_BHW.shape[1] + 2, sums_BHW.shape[2] + 2
    place = ((scale * len(sums_BHW) + b) * height + i + 1) * width + j + 1
    top = local_maxima(evidence, place, width, n_rows * height * width)
    kept, rank = _strongest(evidence, frame_scale, flat_nonzero(top), n_rows)
    evidence, frame_scale, scale = evidence[kept], frame_scale[kept], scale[kept]
    b, i, j, n, mean = (column[kept] for column in (b, i, j, n, mean))
    span = torch.tensor([max(s // CELL_PX, 1) for s in SCALES_PX], device=n.device)[scale]
    brightest = _brightest(maxima_BHW, b, i, j, span)
    others = n - brightest
    tamed = others + torch.minimum(brightest, 1 + (others - mean).clamp(min=0))
    rest = torch.where(scale == 0, FLOOR, neg_log10_tail_torch(tamed, mean) - places[scale])
    middle = (span - 1) / 2
    laid = []
    for empty, column in (
        (FLOOR, evidence),
        (FLOOR, rest),
        (0.0, i + middle),
        (0.0, j + middle),
        (0.0, mean),
    ):
        out = torch.full((n_rows, CANDIDATES_PER_SCALE), empty, device=n.device)
        out[frame_scale, rank] = column.to(torch.float32)
        laid.append(out.view(len(sums_BHW), len(SCALES_PX), -1))
    return Candidates(*laid)


def _boxes_above(
    sums_BHW: torch.Tensor,
    maxima_BHW: torch.Tensor,
    mean_BHW: torch.Tensor,
    tables: CellTables,
) -> tuple[torch.Tensor, ...]:
    """Return the boxes worth an exact tail, by scale, frame and place.

    Returns:
        scale, frame, row, column, int64; photons and expected photons of the box, float32.
    """
    per_px = mean_BHW / tables.exposure_HW.clamp(min=1)
    two, two_mean = _double(sums_BHW, 1), _double(mean_BHW, 1)
    four, four_mean = _double(two, 2), _double(two_mean, 2)
    maps = ((maxima_BHW, per_px), (sums_BHW, mean_BHW), (two, two_mean), (four, four_mean))
    found = [_above(*boxes, scale) for scale, boxes in enumerate(maps)]
    scale = torch.cat([torch.full_like(part[0], k) for k, part in enumerate(found)])
    return scale, *(torch.cat(part) for part in zip(*found, strict=True))


def _double(cells: torch.Tensor, step: int) -> torch.Tensor:
    """Add the neighbours `step` cells on; boxes that leave the detector are left out."""
    rows = cells[:, step:] + cells[:, :-step]
    return rows[:, :, step:] + rows[:, :, :-step]


def _above(n_BHW: torch.Tensor, mean_BHW: torch.Tensor, scale: int) -> tuple[torch.Tensor, ...]:
    """Return frame, row, column, photons and mean of the boxes worth an exact tail."""
    limit = mean_BHW.sqrt().mul_(CUT_SIGMA).add_(mean_BHW).add_(CUT_PHOTONS[scale])
    flat = flat_nonzero(n_BHW > limit)
    n, mean = n_BHW.reshape(-1)[flat], mean_BHW.reshape(-1)[flat]
    height, width = n_BHW.shape[1:]
    b, at = flat // (height * width), flat % (height * width)
    return b, at // width, at % width, n, mean


def local_maxima(
    evidence: torch.Tensor, place: torch.Tensor, width: int, n_places: int
) -> torch.Tensor:
    """Return True where no neighbouring box of the same frame and scale has more evidence.

    Without it a few strong spots, each with a hundred boxes, would fill the candidates' table.

    Args:
        evidence: of each box.
        place: int64, rising; neighbours are 1, or `width` and up to 1, apart.
        width: places from one row to the next.
        n_places: more than any place.
    """
    dense = torch.full((n_places,), 2 * FLOOR, device=evidence.device)
    dense[place] = evidence
    before = torch.tensor([-width - 1, -width, -width + 1, -1], device=place.device)
    # Of equals the first stays.
    earlier, later = dense[place[:, None] + before], dense[place[:, None] - before]
    return ((evidence[:, None] > earlier) & (evidence[:, None] >= later)).all(1)


def _brightest(
    maxima_BHW: torch.Tensor,
    b: torch.Tensor,
    i: torch.Tensor,
    j: torch.Tensor,
    span: torch.Tensor,
) -> torch.Tensor:
    """Return the largest pixel of each box."""
    step = torch.arange(max(SCALES_PX) // CELL_PX, device=span.device)
    inside = torch.minimum(step, span[:, None] - 1)
    rows, columns = i[:, None] + inside, j[:, None] + inside
    return maxima_BHW[b[:, None, None], rows[:, :, None], columns[:, None, :]].amax((1, 2))


def _strongest(
    evidence: torch.Tensor, row: torch.Tensor, among: torch.Tensor, n_rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the candidates to keep of each row, strongest first, and their rank in it."""
    order = among[torch.argsort(evidence[among], descending=True, stable=True)]
    order = order[torch.argsort(row[order], stable=True)]
    per_row = torch.bincount(row[order], minlength=n_rows)
    start = functional.pad(per_row.cumsum(0), (1, 0))[:-1]
    rank = torch.arange(len(order), device=order.device) - start[row[order]]
    keep = rank < CANDIDATES_PER_SCALE
    return order[keep], rank[keep]
