"""The report's attention heatmap: where the peaks are, pixel by pixel.

One rule: one logit a pixel, trained on pixels that the noise-free image lights up (one in 1e5).
Attention over channels and over places as in CBAM (Woo et al., ECCV 2018). It never found a peak
in the report. A frame's score is its best pixel.

Suffixes: B batch, C channels, Y = ss, X = fs (pixels), H, W (cells of 4 px).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

HEATMAP = "attention_heatmap"
CELL_PX = 4
N_FIRST, N_MAPS, N_SQUEEZED = 16, 32, 2


class ChannelAttention(nn.Module):
    """Weighs channels by their mean and maximum over the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(N_MAPS, N_SQUEEZED), nn.ReLU(), nn.Linear(N_SQUEEZED, N_MAPS)
        )

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the maps, weighed."""
        seen = self.weigh(maps_BCHW.mean((2, 3))) + self.weigh(maps_BCHW.amax((2, 3)))
        return maps_BCHW * torch.sigmoid(seen)[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weighs places by the mean and maximum over their channels, seen 7 x 7."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the maps, weighed."""
        seen = torch.cat((maps_BCHW.mean(1, keepdim=True), maps_BCHW.amax(1, keepdim=True)), 1)
        return maps_BCHW * torch.sigmoid(self.weigh(seen))


class AttentionHeatmap(nn.Module):
    """5 x 5 (16) - pool 4 - 3 x 3 (32) - both attentions - 3 x 3 - back to pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, N_FIRST, 5, padding=2)
        self.first_norm = nn.BatchNorm2d(N_FIRST)
        self.second = nn.Conv2d(N_FIRST, N_MAPS, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(N_MAPS)
        self.dropout = nn.Dropout(0.5)
        self.channels = ChannelAttention()
        self.places = SpatialAttention()
        self.last = nn.Conv2d(N_MAPS, 1, 3, padding=1)

    def forward(self, counts_BCYX: torch.Tensor) -> torch.Tensor:
        """Return logits_BYX of pixels to be part of a peak."""
        maps = torch.relu(self.first_norm(self.first(counts_BCYX)))
        maps = torch.relu(self.second_norm(self.second(functional.max_pool2d(maps, CELL_PX))))
        maps = self.last(self.places(self.channels(self.dropout(maps))))
        shape = counts_BCYX.shape[2:]
        whole = functional.interpolate(maps, shape, mode="bilinear", align_corners=True)
        return whole[:, 0]


def peak_places(logits_YX: torch.Tensor) -> torch.Tensor:
    """Return the (ss, fs) of local maxima above a probability of 0.5, int64 (n, 2)."""
    around = functional.max_pool2d(logits_YX[None], 2 * CELL_PX + 1, 1, CELL_PX)[0]
    return ((logits_YX == around) & (logits_YX > 0)).nonzero()
