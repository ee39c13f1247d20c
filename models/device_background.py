"""The background of a batch where its tensors are: the definition of `background.py`.

Suffixes: B batch, H = ss, W = fs (cells), N bins (ring x sector), R rings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hitfinder.models.background import (
    BLOCK_PRIOR_PHOTONS,
    CLIP_PHOTONS,
    CLIP_SIGMA,
    N_CLIPS,
    RING_PRIOR_PHOTONS,
)
from hitfinder.models.device_tables import DeviceTables, Smoothing, flat_nonzero
from hitfinder.models.frontend import CELL_PX, N_SECTORS


@dataclass(frozen=True, slots=True, eq=False)
class BatchBackground:
    """Expected background of a batch.

    Attributes:
        mean_BHW: float32 expected photons in the cell, 0 where no pixel counts.
        total_BN: float32 photons per (ring, sector) bin, of all cells.
        counts_BN: float32 photons per (ring, sector) bin, clipped cells left out.
        exposure_BN: float32 counted pixels per bin, clipped cells left out.
        photons_per_px_B: float32 mean over the detector.
    """

    mean_BHW: torch.Tensor
    total_BN: torch.Tensor
    counts_BN: torch.Tensor
    exposure_BN: torch.Tensor
    photons_per_px_B: torch.Tensor


def estimate(sums_BHW: torch.Tensor, tables: DeviceTables) -> BatchBackground:
    """Estimate the background of each frame of a batch on its own.

    Args:
        sums_BHW: photons of the cells, whole numbers.
        tables: of their series.
    """
    sums_BHW = sums_BHW.to(torch.float32)
    n_batch, n_bins = len(sums_BHW), tables.exposure_N.numel()
    offset_B = torch.arange(n_batch, device=sums_BHW.device) * n_bins
    bins, cells = tables.bin_HW.view(-1), sums_BHW.flatten(1)
    total_BN = torch.stack([torch.bincount(bins, row, n_bins) for row in cells]).float()
    counts_BN, exposure_BN = total_BN, tables.exposure_N.expand(n_batch, -1)
    spot_BHW = torch.zeros_like(sums_BHW, dtype=torch.bool)
    for _ in range(N_CLIPS):
        rate_BR = ring_rates(_by_ring(counts_BN), _by_ring(exposure_BN), tables.smoothing)
        full_BR = rate_BR * CELL_PX**2
        limit_BR = full_BR + CLIP_SIGMA * full_BR.sqrt() + CLIP_PHOTONS
        spot_BHW = sums_BHW > _to_cells(limit_BR, tables)
        flat = flat_nonzero(spot_BHW)
        b, cell = flat // tables.bin_HW.numel(), flat % tables.bin_HW.numel()
        where = tables.bin_HW.view(-1)[cell] + offset_B[b]
        lost = torch.bincount(where, sums_BHW.view(-1)[flat], n_batch * n_bins).view(
            n_batch, n_bins
        )
        hidden = torch.bincount(where, tables.exposure_HW.view(-1)[cell], n_batch * n_bins)
        counts_BN = (total_BN - lost).clamp(min=0)
        exposure_BN = (tables.exposure_N - hidden.view(n_batch, n_bins)).clamp(min=0)
    rate_BR = ring_rates(_by_ring(counts_BN), _by_ring(exposure_BN), tables.smoothing)
    mean_BHW = _to_cells(rate_BR, tables) * tables.exposure_HW
    mean_BHW *= _coarse_correction(sums_BHW, mean_BHW, spot_BHW, tables.smoothing)
    per_px_B = mean_BHW.sum((1, 2)) / max(tables.host.n_valid, 1)
    return BatchBackground(mean_BHW, total_BN, counts_BN, exposure_BN, per_px_B)


def ring_rates(
    counts_BR: torch.Tensor, exposure_BR: torch.Tensor, smoothing: Smoothing
) -> torch.Tensor:
    """Return photons per pixel of each ring, smoothed as far as the photons ask for it."""
    total = counts_BR.sum(1, keepdim=True)
    rate_BR = (total / exposure_BR.sum(1, keepdim=True).clamp(min=1)).expand_as(counts_BR)
    for window_RR in smoothing.rings:
        seen = counts_BR @ window_RR
        expected = (exposure_BR * rate_BR) @ window_RR
        rate_BR = rate_BR * (seen + RING_PRIOR_PHOTONS) / (expected + RING_PRIOR_PHOTONS)
    return rate_BR


def _by_ring(values_BN: torch.Tensor) -> torch.Tensor:
    return values_BN.view(len(values_BN), -1, N_SECTORS).sum(2)


def _to_cells(values_BR: torch.Tensor, tables: DeviceTables) -> torch.Tensor:
    """Return the value of each cell's ring, (B, H, W)."""
    flat = torch.index_select(values_BR, 1, tables.ring_HW.view(-1))
    return flat.view(len(values_BR), *tables.ring_HW.shape)


def _coarse_correction(
    sums_BHW: torch.Tensor, mean_BHW: torch.Tensor, spot_BHW: torch.Tensor, smoothing: Smoothing
) -> torch.Tensor:
    """Return the smooth ratio of counts to the rings' prediction, float32 (B, H, W)."""
    s = smoothing
    keep = (~spot_BHW).to(torch.float32)
    seen = s.rows_in @ (sums_BHW * keep) @ s.columns_in.T
    expected = s.rows_in @ (mean_BHW * keep) @ s.columns_in.T
    ratio = (seen + BLOCK_PRIOR_PHOTONS) / (expected + BLOCK_PRIOR_PHOTONS)
    return s.rows_out @ ratio @ s.columns_out.T
