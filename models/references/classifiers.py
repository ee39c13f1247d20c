"""Whole-frame networks that say hit or blank, in the shapes of the project's seed report.

One rule: raw photons in, one logit out. The report's networks end in a linear layer over every
place of the detector, so they are made for one frame shape; the ResNet is not.

Suffixes: B batch, C channels, Y = ss, X = fs (pixels).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

KERNEL_PX = 10
GROUPS = 4
POOL = 2


def _after_first(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the shape after the first convolution (padded by 1) and the pooling."""
    lost = KERNEL_PX - 3
    return (shape[0] - lost) // POOL, (shape[1] - lost) // POOL


class GateCnn(nn.Module):
    """The report's gate: 10 x 10 (8 channels) - pool - 3 x 3 (16) - linear over every place."""

    n_channels = 1

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        height, width = _after_first(shape)
        self.first = nn.Conv2d(self.n_channels, 8, KERNEL_PX, padding=1)
        self.first_norm = nn.GroupNorm(GROUPS, 8)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.second_norm = nn.GroupNorm(GROUPS, 16)
        self.last = nn.Linear(16 * height * width, 1)

    def forward(self, counts_BCYX: torch.Tensor) -> torch.Tensor:
        """Return logits_B."""
        maps = torch.relu(self.first_norm(self.first(counts_BCYX)))
        maps = torch.relu(self.second_norm(self.second(functional.max_pool2d(maps, POOL))))
        logits: torch.Tensor = self.last(maps.flatten(1))[:, 0]
        return logits


class DualInput(GateCnn):
    """The same with the noise-free image as a second channel: cannot exist at a beamline."""

    n_channels = 2


class OneConvolution(nn.Module):
    """The report's baseline: the first half of its gate."""

    n_channels = 1

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        height, width = _after_first(shape)
        self.first = nn.Conv2d(1, 8, KERNEL_PX, padding=1)
        self.first_norm = nn.GroupNorm(GROUPS, 8)
        self.last = nn.Linear(8 * height * width, 1)

    def forward(self, counts_BCYX: torch.Tensor) -> torch.Tensor:
        """Return logits_B."""
        maps = torch.relu(self.first_norm(self.first(counts_BCYX)))
        logits: torch.Tensor = self.last(functional.max_pool2d(maps, POOL).flatten(1))[:, 0]
        return logits


class _Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(GROUPS, n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(GROUPS, n_out)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.first_norm(self.first(maps)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(maps))


class SmallResNet(nn.Module):
    """Stem 7 x 7 at stride 4, three residual blocks, global mean and maximum.

    The maximum is not in the textbook: a mean over a frame forgets a spot of a few pixels.
    """

    n_channels = 1

    def __init__(self, _shape: tuple[int, int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 7, 4, padding=3)
        self.stem_norm = nn.GroupNorm(GROUPS, 16)
        self.blocks = nn.Sequential(
            _Residual(16, 16, 1), _Residual(16, 32, 2), _Residual(32, 64, 2)
        )
        self.last = nn.Linear(128, 1)

    def forward(self, counts_BCYX: torch.Tensor) -> torch.Tensor:
        """Return logits_B."""
        maps = torch.relu(self.stem_norm(self.stem(counts_BCYX.log1p())))
        maps = self.blocks(maps)
        pooled = torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), 1)
        logits: torch.Tensor = self.last(pooled)[:, 0]
        return logits


CLASSIFIERS: dict[str, type[GateCnn] | type[OneConvolution] | type[SmallResNet]] = {
    "gate_cnn": GateCnn,
    "one_convolution": OneConvolution,
    "small_resnet": SmallResNet,
    "dual_input": DualInput,
}
"""By the name of their weights."""
