"""The report's heads: one linear layer over all pixels each, for photon energy and camera length.

One rule: three classes each, as the report had them, whatever the frame can tell. Its 100 % came
from nine fixed backgrounds; here water is drawn anew for every frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from hitfinder.models.errors import ModelError
from hitfinder.models.references.stored import fill, load, shape_of
from hitfinder.models.references.trained import counts_of

LINEAR_HEADS = "linear_heads"
N_CLASSES = 3


class LinearHeads(nn.Module):
    """Pixels -> logits of 6, 7, 8 keV and of 0.15, 0.25, 0.35 m."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.last = nn.Linear(shape[0] * shape[1], 2 * N_CLASSES)

    def forward(self, counts_BCYX: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 2, 3): energy, then camera length."""
        logits: torch.Tensor = self.last(counts_BCYX.flatten(1))
        return logits.view(-1, 2, N_CLASSES)


class LinearHeadsReference:
    """Names energy and camera length of single frames.

    Args:
        folder: of weights by `python -m hitfinder.workers.train_references`.

    Raises:
        ModelError: no such weights, or their card does not vouch for them.
    """

    name = "linear heads"

    def __init__(self, folder: Path) -> None:
        arrays, self.card = load(folder, LINEAR_HEADS)
        self._shape = shape_of(self.card)
        self._net = LinearHeads(self._shape)
        fill(self._net, arrays, LINEAR_HEADS)

    def matrix(
        self, image: NDArray[np.unsignedinteger], valid: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Return float32 (3, 3), probability over (6, 7, 8 keV) x (0.15, 0.25, 0.35 m).

        Args:
            image: uint (ss, fs) of the shape they were trained for.
            valid: bool (ss, fs).

        Raises:
            ModelError: another shape.
        """
        if image.shape != self._shape:
            raise ModelError(f"image {image.shape}; {self.name} are trained for {self._shape}")
        with torch.inference_mode():
            logits = self._net(counts_of(image, valid)[None, None])[0]
            energy, clen = functional.softmax(logits, 1)
        return np.asarray((energy[:, None] * clen).numpy(), np.float32)
