"""How well the heads do on simulated frames: coverage of their sigmas, and their matrix.

One rule: the heads are likelihoods of the physics, so nothing of them is fitted; training measures
them, and the card says what came out. Their accuracy against the bound is the evaluation's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.geometry import Geometry
from hitfinder.models.heads import MATRIX_CLEN_M, MATRIX_ENERGY_EV
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.weights import Weights
from hitfinder.sim import presets
from hitfinder.sim.frames import FrameSource
from hitfinder.sim.physics import Detector

EVERY_FRAME = -1.0
"""A threshold that every frame passes, blanks included."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadsMeasured:
    """What the heads said of frames whose truth is known.

    Attributes:
        energy_z: (n,) error over sigma, continuous energy and camera length.
        clen_z: (n,) the same of the camera length.
        energy_matrix: int64 (3, 3), frames of the nine data sets: true by likeliest energy.
        clen_matrix: int64 (3, 3), true by likeliest camera length.
    """

    energy_z: NDArray[np.float64]
    clen_z: NDArray[np.float64]
    energy_matrix: NDArray[np.int64]
    clen_matrix: NDArray[np.int64]

    def coverage(self) -> dict[str, dict[str, float]]:
        """Return the share of frames within one and two sigma, for the card."""
        return {
            name: {
                "within_1_sigma": round(float(np.mean(np.abs(z) < 1)), 3),
                "within_1.96_sigma": round(float(np.mean(np.abs(z) < 1.96)), 3),
            }
            for name, z in (("photon_energy", self.energy_z), ("clen", self.clen_z))
            if len(z)
        }


def measure_heads(
    weights: Weights,
    n_frames: int,
    seed: int,
    detector: Detector,
    on_frame: Callable[[], None],
) -> HeadsMeasured:
    """Judge `n_frames` on continuous ranges and as many of the nine data sets, half of them hits.

    Args:
        weights: of the pipeline.
        n_frames: of either sort, at 3e8 photons.
        seed: of the frames.
        detector: the array.
        on_frame: called after each frame.
    """
    named = replace(presets.JITTER, hit_fraction=0.5, patterns="generator")
    wild = presets.TRAINING
    free = replace(named, photon_energy_eV=wild.photon_energy_eV, clen_m=wild.clen_m)
    pipeline = Pipeline(weights, threshold=EVERY_FRAME)
    fs, ss = detector.center_px
    size_m = (detector.pixel_size_m, detector.pixel_size_m)
    geometry = Geometry(detector.shape, size_m, (fs - 0.5, ss - 0.5))
    energy_z, clen_z = np.zeros(n_frames), np.zeros(n_frames)
    matrices = np.zeros((2, 3, 3), np.int64)
    for settings in (free, named):
        source = FrameSource(settings, seed, detector)
        context = pipeline.begin(geometry, ~detector.gap_mask)
        for frame in range(n_frames):
            shown = source.draw(frame)
            judged = pipeline.judge([shown.image], context)[0]
            energy, energy_sigma = judged.photon_energy_eV, judged.photon_energy_sigma_eV
            clen, clen_sigma = judged.clen_m, judged.clen_sigma_m
            if settings is free and energy and energy_sigma and clen and clen_sigma:
                energy_z[frame] = (energy - shown.photon_energy_eV) / energy_sigma
                clen_z[frame] = (clen - shown.clen_m) / clen_sigma
            elif judged.matrix is not None:
                row = MATRIX_ENERGY_EV.index(shown.photon_energy_eV)
                column = MATRIX_CLEN_M.index(shown.clen_m)
                matrices[0, row, int(judged.matrix.sum(axis=1).argmax())] += 1
                matrices[1, column, int(judged.matrix.sum(axis=0).argmax())] += 1
            on_frame()
    return HeadsMeasured(energy_z, clen_z, matrices[0], matrices[1])
