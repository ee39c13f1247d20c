"""What a detector does not see: dead pixels and rows, the beam stop's and the nozzle's shadow.

One rule: it stays as it is through a series (a source draws it once), reads 0, and nothing in
the header's mask tells of it. Hot pixels, which also stay, are the source's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.nuisances import Span, draw_span
from hitfinder.sim.physics import Detector


@dataclass(frozen=True, slots=True)
class Defects:
    """How much of each.

    Attributes:
        dead_pixels, dead_rows: pixels and whole rows of a module that read 0.
        beam_stop_px: radius of the beam stop's shadow about the detector's beam centre; a holder
            a fifth as wide leads to the array's edge. 0 for none.
        shadow_px: how far a nozzle's straight shadow reaches in from a side of the array.
    """

    dead_pixels: int = 0
    dead_rows: int = 0
    beam_stop_px: Span = 0.0
    shadow_px: Span = 0.0


def dark_pixels(
    defects: Defects, detector: Detector, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw one detector's defects: bool (ss, fs), True where a pixel reads 0."""
    n_ss, n_fs = detector.shape
    dark = np.zeros(detector.shape, np.bool_)
    dark.reshape(-1)[rng.choice(dark.size, defects.dead_pixels, replace=False)] = True
    pitch = detector.modules.cols + detector.modules.gap_cols
    for row, col in rng.integers(0, (n_ss, n_fs), (defects.dead_rows, 2)):
        begin = col - col % pitch
        dark[row, begin : begin + detector.modules.cols] = True
    radius_px = draw_span(rng, defects.beam_stop_px)
    if radius_px > 0:
        dark |= _beam_stop(detector, radius_px, rng)
    depth_px = draw_span(rng, defects.shadow_px)
    if depth_px > 0:
        _shade_side(dark, int(depth_px), rng)
    return dark


def _beam_stop(
    detector: Detector, radius_px: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return the disc and its holder."""
    center_fs, center_ss = detector.center_px
    fs = np.arange(detector.shape[1])[None, :] + 0.5 - center_fs
    ss = np.arange(detector.shape[0])[:, None] + 0.5 - center_ss
    angle = rng.uniform(0, 2 * np.pi)
    along = fs * np.cos(angle) + ss * np.sin(angle)
    across = ss * np.cos(angle) - fs * np.sin(angle)
    holder = (along > 0) & (np.abs(across) < radius_px / 5)
    return np.asarray((fs**2 + ss**2 < radius_px**2) | holder)


def _shade_side(dark: NDArray[np.bool_], depth_px: int, rng: np.random.Generator) -> None:
    """Shade one side of the array, part of its length."""
    turned = np.rot90(dark, int(rng.integers(4)))
    begin, end = np.sort(rng.integers(0, turned.shape[1], 2))
    turned[:depth_px, begin : end + 1] = True
