"""A network of a folder as a reference.

One rule: a network sees photons of counting pixels and zeros elsewhere, as in its training.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hitfinder.models.errors import ModelError
from hitfinder.models.geometry import Geometry
from hitfinder.models.references.classifiers import CLASSIFIERS
from hitfinder.models.references.heatmap import HEATMAP, AttentionHeatmap, peak_places
from hitfinder.models.references.stored import fill, load, shape_of


def counts_of(image: NDArray[np.unsignedinteger], valid: NDArray[np.bool_]) -> torch.Tensor:
    """Return float32 (ss, fs) photons, 0 where a pixel does not count."""
    used = valid & (image != np.iinfo(image.dtype).max)
    return torch.from_numpy(np.where(used, image, 0).astype(np.float32))


def build(name: str, shape: tuple[int, int]) -> nn.Module:
    """Return an untrained network that scores frames of this shape (ss, fs)."""
    return AttentionHeatmap() if name == HEATMAP else CLASSIFIERS[name](shape)


class TrainedReference:
    """A network of this package with its weights.

    Args:
        folder: of the weights.
        name: which network.

    Raises:
        ModelError: no such weights, or their card does not vouch for them.
    """

    def __init__(self, folder: Path, name: str) -> None:
        arrays, self.card = load(folder, name)
        self.name = name.replace("_", " ")
        self.needs_truth = name == "dual_input"
        self._shape = shape_of(self.card)
        self._net = build(name, self._shape)
        fill(self._net, arrays, name)
        self._is_heatmap = name == HEATMAP
        self._valid: NDArray[np.bool_] | None = None

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        """Take the series' mask."""
        if geometry.shape != self._shape:
            raise ModelError(
                f"{self.name} is trained for frames of {self._shape}, not {geometry.shape}"
            )
        self._valid = valid

    def score(
        self, image: NDArray[np.unsignedinteger], noise_free: NDArray[np.float32] | None
    ) -> float:
        """Return the network's logit, of a heatmap that of its best pixel."""
        return float(self._logits(image, noise_free).max())

    def peaks(self, image: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
        """Return the (ss, fs) of the heatmap's peaks, (n, 2).

        Raises:
            ModelError: a network that names no places.
        """
        if not self._is_heatmap:
            raise ModelError(f"{self.name} gives no positions")
        return np.asarray(peak_places(self._logits(image, None)[0]).numpy(), np.int64)

    def _logits(
        self, image: NDArray[np.unsignedinteger], noise_free: NDArray[np.float32] | None
    ) -> torch.Tensor:
        if self._valid is None:
            raise ModelError("begin a series before scoring frames")
        channels = [counts_of(image, self._valid)]
        if self.needs_truth:
            if noise_free is None:
                raise ModelError(f"{self.name} needs the noise-free image")
            channels.append(torch.from_numpy(np.where(self._valid, noise_free, 0)))
        with torch.inference_mode():
            logits: torch.Tensor = self._net(torch.stack(channels)[None].to(torch.float32))
        return logits
