"""Spots at full resolution: from significant cells to positions, intensities and SNR.

One rule: a place becomes a position by following its photons (mean shift of the excess under a
Gaussian of the box's size), and its intensity comes by the three-ring method: an inner disc is
the spot, a gap, an outer ring is the local background. Only frames that need positions get here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PEAKS = 1024
REACH_PX = 14
"""Half width of the window around a spot."""
MIN_KERNEL_PX = 1.0
"""Gaussian sigma of the mean shift: the spot's own, but not less."""
DISC_SIGMA, MIN_DISC_PX, MAX_DISC_PX = 2.5, 2.5, 10.0
"""The inner disc holds 96 % of a Gaussian spot's photons."""
GAP_PX = 1.5
N_SHIFTS = 5
SAME_SPOT_PX = 3.0
PRIOR_PHOTONS = 10.0
"""The frame's background counts as this many photons of the outer ring."""

Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Spots of one frame, float32 (n,) each, strongest evidence first.

    `fs`, `ss`: pixel index, centre of the first pixel 0.0. `intensity`: photons above background.
    `snr`: intensity over its sigma. `p`: probability to be a Bragg spot.
    """

    fs: Float
    ss: Float
    intensity: Float
    snr: Float
    p: Float

    def __len__(self) -> int:
        return len(self.fs)


def no_spots() -> Spots:
    """Return the empty set."""
    return Spots(*(np.empty(0, np.float32) for _ in range(5)))


def locate(
    image: NDArray[np.unsignedinteger],
    valid: NDArray[np.bool_],
    ss_px: Float,
    fs_px: Float,
    sigma_px: Float,
    background_per_px: Float,
    p: Float,
) -> Spots:
    """Turn places into spots.

    Args:
        image: uint (ss, fs), photons; the largest value of the type is not a count.
        valid: bool (ss, fs).
        ss_px: start position of each place, strongest first.
        fs_px: start position.
        sigma_px: width of the spot.
        background_per_px: photons per pixel expected there.
        p: probability of each place.
    """
    if not len(ss_px):
        return no_spots()
    counts, used, ss0, fs0 = _windows(image, valid, ss_px, fs_px)
    excess = np.where(used, counts - background_per_px[:, None, None], 0.0)
    ss, fs = _follow(excess, ss_px - ss0, fs_px - fs0, np.maximum(sigma_px, MIN_KERNEL_PX))
    disc = np.clip(DISC_SIGMA * sigma_px, MIN_DISC_PX, MAX_DISC_PX)
    intensity, snr = _three_rings(counts, used, ss, fs, disc, background_per_px)
    ss, fs = ss + ss0, fs + fs0
    keep = _distinct(ss, fs) & (intensity > 0)
    columns = (fs, ss, intensity, snr, p)
    return Spots(*(np.ascontiguousarray(c[keep][:MAX_PEAKS], np.float32) for c in columns))


def _windows(
    image: NDArray[np.unsignedinteger], valid: NDArray[np.bool_], ss_px: Float, fs_px: Float
) -> tuple[Float, NDArray[np.bool_], Float, Float]:
    """Return counts, use and first row and column of a window around each place."""
    ss0 = np.rint(ss_px).astype(np.int64) - REACH_PX
    fs0 = np.rint(fs_px).astype(np.int64) - REACH_PX
    span = np.arange(2 * REACH_PX + 1)
    row, column = ss0[:, None] + span, fs0[:, None] + span
    inside = ((row >= 0) & (row < image.shape[0]))[:, :, None]
    inside = inside & ((column >= 0) & (column < image.shape[1]))[:, None, :]
    row = np.clip(row, 0, image.shape[0] - 1)[:, :, None]
    column = np.clip(column, 0, image.shape[1] - 1)[:, None, :]
    raw = image[row, column]
    used = inside & valid[row, column] & (raw != np.iinfo(image.dtype).max)
    counts = np.where(used, raw, 0).astype(np.float32)
    return counts, used, ss0.astype(np.float32), fs0.astype(np.float32)


def _follow(excess: Float, ss: Float, fs: Float, kernel: Float) -> tuple[Float, Float]:
    """Shift each position to the weighted mean of the excess around it."""
    span = np.arange(excess.shape[1], dtype=np.float32)
    scale = -0.5 / np.square(kernel)[:, None]
    for _ in range(N_SHIFTS):
        along_ss = np.exp(scale * np.square(span - ss[:, None]))
        along_fs = np.exp(scale * np.square(span - fs[:, None]))
        rows = np.einsum("kij,kj->ki", excess, along_fs) * along_ss
        columns = np.einsum("kij,ki->kj", excess, along_ss) * along_fs
        total = rows.sum(1)
        found = total > 0
        total = np.where(found, total, 1.0)
        ss = np.where(found, np.clip(rows @ span / total, 2, span[-1] - 2), ss)
        fs = np.where(found, np.clip(columns @ span / total, 2, span[-1] - 2), fs)
    return ss, fs


def _three_rings(
    counts: Float,
    used: NDArray[np.bool_],
    ss: Float,
    fs: Float,
    disc_px: Float,
    background_per_px: Float,
) -> tuple[Float, Float]:
    """Return intensity above the local background and its SNR."""
    span = np.arange(counts.shape[1], dtype=np.float32)
    distance = np.hypot((span - ss[:, None])[:, :, None], (span - fs[:, None])[:, None, :])
    disc = used & (distance <= disc_px[:, None, None])
    ring = used & (distance > (disc_px + GAP_PX)[:, None, None]) & (distance <= REACH_PX)
    n_in = (counts * disc).sum((1, 2))
    n_out = (counts * ring).sum((1, 2))
    area_in, area_out = disc.sum((1, 2)), ring.sum((1, 2))
    area_out = area_out + PRIOR_PHOTONS / np.maximum(background_per_px, 1e-6)
    local = (n_out + PRIOR_PHOTONS) / area_out
    intensity = n_in - local * area_in
    variance = np.maximum(n_in, 1.0) + np.square(area_in) * local / area_out
    return intensity.astype(np.float32), (intensity / np.sqrt(variance)).astype(np.float32)


def _distinct(ss: Float, fs: Float) -> NDArray[np.bool_]:
    """Return False for a position that repeats a stronger one."""
    apart2 = np.square(ss[:, None] - ss) + np.square(fs[:, None] - fs)
    repeats = np.tril(apart2 < SAME_SPOT_PX**2, -1)
    return np.asarray(~repeats.any(axis=1))
