"""The tables of a detector's cells and a batch's maps, where a device has them.

One rule: tables are the host's as they are when they are asked for; they are made anew when the
host's are replaced, which pixels that frames teach do a few times in a series.

Suffixes: B batch, H = ss, W = fs (cells), N bins, R rings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models.background import BLOCK_CELLS, RING_WINDOWS
from hitfinder.models.frontend import CellTables, Pooled


@dataclass(frozen=True, slots=True, eq=False)
class Smoothing:
    """Window sums and interpolation as float32 matrices along one axis each.

    A product with a small banded matrix is several times faster on a CPU than pooling or
    resampling a frame.

    Attributes:
        rings: (R, R) for each of `RING_WINDOWS`: sum of the rings within the window.
        rows_in: (blocks, H): sum of the cells of three blocks; `columns_in` the same along W.
        rows_out: (H, blocks): linear interpolation between blocks; `columns_out` along W.
    """

    rings: tuple[torch.Tensor, ...]
    rows_in: torch.Tensor
    rows_out: torch.Tensor
    columns_in: torch.Tensor
    columns_out: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTables:
    """A detector's `CellTables` as tensors on one device.

    Attributes:
        exposure_HW, ring_HW, bin_HW, exposure_N: as in `CellTables`.
        smoothing: window sums of the background, as matrices.
        host: what they were made from.
    """

    exposure_HW: torch.Tensor
    ring_HW: torch.Tensor
    bin_HW: torch.Tensor
    exposure_N: torch.Tensor
    smoothing: Smoothing
    host: CellTables


def tables_on(host: CellTables, device: torch.device | str = "cpu") -> DeviceTables:
    """Copy tables to a device."""

    height, width = host.exposure_HW.shape

    def copied(table: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(table.copy()).to(device)

    return DeviceTables(
        exposure_HW=copied(host.exposure_HW),
        ring_HW=copied(host.ring_HW),
        bin_HW=copied(host.bin_HW),
        exposure_N=copied(host.exposure_N),
        smoothing=_smoothing(host.n_rings, height, width, device),
        host=host,
    )


def _smoothing(n_rings: int, height: int, width: int, device: torch.device | str) -> Smoothing:
    ring = torch.arange(n_rings)
    apart = (ring[:, None] - ring).abs()
    rows, columns = _block_matrices(height), _block_matrices(width)
    return Smoothing(
        tuple((apart <= window // 2).to(torch.float32).to(device) for window in RING_WINDOWS),
        *(m.to(device) for m in (*rows, *columns)),
    )


def _block_matrices(n_cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    n_blocks = -(-n_cells // BLOCK_CELLS)
    cell, block = torch.arange(n_cells), torch.arange(n_blocks)
    near = (cell // BLOCK_CELLS - block[:, None]).abs() <= 1
    at = ((cell + 0.5) / BLOCK_CELLS - 0.5).clamp(0, n_blocks - 1)
    weight = (1 - (at[:, None] - block).abs()).clamp(min=0)
    return near.to(torch.float32), weight


def stack_maps(
    pooled: Sequence[Pooled], device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sums_BHW and maxima_BHW: uint32 on a CPU, float32 on a GPU.

    One frame on a CPU is not copied, and maps that were made on the GPU are only put together
    there. Others are gathered in pinned memory, so that the copy overlaps with what the host does
    next; the allocator keeps such memory until the copy is done.
    """
    on_device = [p.on_device for p in pooled if p.on_device is not None]
    if torch.device(device).type != "cpu" and len(on_device) == len(pooled):
        return torch.stack([sums for sums, _ in on_device]), torch.stack([m for _, m in on_device])
    return _stack([p.sums for p in pooled], device), _stack([p.maxima for p in pooled], device)


def _stack(maps: Sequence[NDArray[np.uint32]], device: torch.device | str) -> torch.Tensor:
    if torch.device(device).type == "cpu":
        return torch.from_numpy(_writable(maps[0][None] if len(maps) == 1 else np.stack(maps)))
    staged_BHW = torch.empty((len(maps), *maps[0].shape), pin_memory=True)
    np.stack(maps, out=staged_BHW.numpy(), casting="same_kind")
    return staged_BHW.to(device, non_blocking=True)


def flat_nonzero(mask: torch.Tensor) -> torch.Tensor:
    """Return the flat index of True elements; numpy's is several times faster on a CPU."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.reshape(-1).nonzero().view(-1)


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that torch may wrap: shared memory is often mapped read-only."""
    return np.require(array, requirements=("C", "W"))
