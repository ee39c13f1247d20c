"""probixi 0.10 (MIT licence) as a reference, where it is installed.

One rule: its public classes as they come: a noise model warmed and calibrated on the first frames
of a series, the threshold for its own noise budget, both then frozen, as its pipeline does. Beam
centre and mask are stated. It is made for GPUs: a core takes 37 s to calibrate on 512 x 512 pixels
and seconds for each 4M frame.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models.errors import ModelError
from hitfinder.models.geometry import Geometry
from hitfinder.models.references.trained import counts_of

N_SEED_FRAMES = 32
"""Its default."""


def is_importable() -> bool:
    """Return whether probixi is installed, not just a folder of that name in sight."""
    return find_spec("probixi") is not None and find_spec("probixi.peakfinding") is not None


class ProbixiReference:
    """Number of peaks; the first 32 frames of a series calibrate it and score 0."""

    name = "probixi"
    needs_truth = False

    def __init__(self) -> None:
        self._parts: Any = import_module("probixi.peakfinding")
        self._noise: Any = None
        self._finder: Any = None
        self._seeds: list[torch.Tensor] = []
        self._valid: NDArray[np.bool_] | None = None

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        """Start with an empty noise model."""
        centre_fs, centre_ss = geometry.beam_center_px
        self._valid, self._seeds, self._finder = valid, [], None
        self._noise = self._parts.NoiseModel(
            geometry.shape,
            beam_center=(centre_ss, centre_fs),
            valid_mask=torch.from_numpy(np.array(valid)),
        )

    def score(
        self, image: NDArray[np.unsignedinteger], _noise_free: NDArray[np.float32] | None
    ) -> float:
        """Return the number of its peaks, 0 until it is calibrated."""
        if self._valid is None:
            raise ModelError("begin a series before scoring frames")
        counts = counts_of(image, self._valid)
        if self._finder is not None:
            (found,) = self._finder.peak_stream([counts])
            return float(len(found))
        self._seeds.append(counts)
        if len(self._seeds) == N_SEED_FRAMES:
            self._calibrate()
        return 0.0

    def _calibrate(self) -> None:
        finder = self._parts.PeakFinder(self._noise, matched_filter=True)
        self._parts.calibrate_noise(self._noise, self._seeds).apply(self._noise, finder)
        threshold = self._parts.calibrate_threshold(self._noise, self._seeds, finder=finder)
        threshold.apply(finder)
        self._finder, self._seeds = finder, []
