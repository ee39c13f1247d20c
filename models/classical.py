"""A weight-free peak finder: signal over noise of the radial background, then connected pixels.

One rule: no training and no maps shared with the gate, so it is baseline and oracle. The idea is
the published one of peakfinder8 (Barty et al., J. Appl. Cryst. 47, 1118, 2014): mean and sigma
per radius by clipping, pixels above both thresholds joined to peaks, their sizes bounded, and a
local ring of pixels decides on the signal-to-noise ratio. Own code, numpy and scipy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hitfinder.models.geometry import Geometry
from hitfinder.models.spots import Spots, no_spots

N_CLIPS = 5
MIN_RING_PIXELS = 50
"""A ring of fewer pixels takes its statistics from the whole frame."""

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassicalSettings:
    """Settings in CrystFEL's words.

    Attributes:
        min_snr: of pixels against the ring, and of peaks against their surroundings.
        threshold: photons a pixel must exceed, 0 or more.
        min_pix_count: smallest peak, pixels.
        max_pix_count: largest peak, pixels.
        local_bg_radius_px: half width of the square around a peak that is its background.
        min_res_px: nearest to the beam, pixels.
        max_res_px: farthest from the beam, pixels.
    """

    min_snr: float = 5.0
    threshold: float = 2.0
    min_pix_count: int = 2
    max_pix_count: int = 200
    local_bg_radius_px: int = 5
    min_res_px: float = 0.0
    max_res_px: float = float("inf")


def find_peaks(
    image: NDArray[np.unsignedinteger],
    valid: NDArray[np.bool_],
    geometry: Geometry,
    settings: ClassicalSettings | None = None,
) -> Spots:
    """Find peaks in one frame.

    Args:
        image: uint (ss, fs), photons; the largest value of the type is no count.
        valid: bool (ss, fs).
        geometry: beam centre.
        settings: thresholds.

    Returns:
        Peaks by falling SNR; `p` is 1 for all, as nothing here is a probability.
    """
    s = settings or ClassicalSettings()
    radius = _radius(geometry)
    used = valid & (image != np.iinfo(image.dtype).max)
    counts = np.where(used, image, 0).astype(np.float64)
    ring = radius.astype(np.int64)
    ring -= ring.min()
    lit = np.flatnonzero(counts)
    n_used = np.asarray(np.bincount(ring.ravel(), used.ravel()), np.float64)
    mean, sigma = _ring_statistics(counts.ravel()[lit], ring.ravel()[lit], n_used)
    limit = np.maximum(s.threshold, mean + s.min_snr * sigma)[ring.ravel()[lit]]
    r_lit = radius.ravel()[lit]
    above = counts.ravel()[lit] > limit
    bright = np.zeros(image.shape, np.bool_)
    bright.ravel()[lit[above & (r_lit >= s.min_res_px) & (r_lit <= s.max_res_px)]] = True
    labels, n_labels = ndimage.label(bright, np.ones((3, 3), np.int64))
    if not n_labels:
        return no_spots()
    return _measure(counts, used, bright, labels, n_labels, mean, ring, s)


def _radius(geometry: Geometry) -> Float:
    x = np.arange(geometry.shape[1]) - geometry.beam_center_px[0]
    y = np.arange(geometry.shape[0]) - geometry.beam_center_px[1]
    return np.asarray(np.hypot(x[None, :], y[:, None]))


def _ring_statistics(counts: Float, ring: NDArray[np.int64], n_used: Float) -> tuple[Float, Float]:
    """Return mean and sigma per ring, by repeated clipping.

    Args:
        counts: of the lit pixels; all others hold 0, which no clip takes away.
        ring: of the lit pixels.
        n_used: counting pixels of each ring.
    """
    n_rings = len(n_used)
    limit = np.full(n_rings, np.inf)
    mean = sigma = np.zeros(n_rings)
    for _ in range(N_CLIPS):
        keep = counts <= limit[ring]
        n = n_used - np.bincount(ring[~keep], minlength=n_rings)
        total = np.bincount(ring[keep], counts[keep], n_rings)
        square = np.bincount(ring[keep], np.square(counts[keep]), n_rings)
        few = n < MIN_RING_PIXELS
        total, square = (np.where(few, a.sum() / max(n.sum(), 1), a) for a in (total, square))
        n = np.where(few, 1, n)
        mean = total / n
        sigma = np.sqrt(np.maximum(square / n - mean * mean, 0.0))
        limit = mean + 5.0 * np.maximum(sigma, 1e-3) + 1e-9
    return mean, sigma


def _measure(
    counts: Float,
    used: NDArray[np.bool_],
    bright: NDArray[np.bool_],
    labels: NDArray[np.int32],
    n_labels: int,
    mean: Float,
    ring: NDArray[np.int64],
    s: ClassicalSettings,
) -> Spots:
    """Return peaks of the right size whose surroundings let them stand."""
    ss, fs = np.divmod(np.flatnonzero(bright), bright.shape[1])
    size = np.bincount(labels[ss, fs], minlength=n_labels + 1)[1:]
    chosen = (size >= s.min_pix_count) & (size <= s.max_pix_count)
    if not chosen.any():
        return no_spots()

    def per_peak(weights: Float) -> Float:
        return np.asarray(np.bincount(labels[ss, fs], weights, n_labels + 1)[1:][chosen])

    photons = counts[ss, fs]
    excess = np.maximum(photons - mean[ring[ss, fs]], 1e-9)
    centre_ss, centre_fs = per_peak(excess * ss), per_peak(excess * fs)
    centre_ss, centre_fs = (c / per_peak(excess) for c in (centre_ss, centre_fs))
    at = tuple(np.rint(c).astype(np.int64) for c in (centre_ss, centre_fs))
    n_around, total, square = _surroundings(counts, used & ~bright, at, s.local_bg_radius_px)
    n_safe = np.maximum(n_around, 1)
    local = total / n_safe
    # A nearly empty ring shows no scatter; Poisson says how much there must be.
    noise = np.sqrt(np.maximum(square / n_safe - local * local, np.maximum(local, mean[ring[at]])))
    intensity = per_peak(photons) - local * size[chosen]
    peak = np.zeros(n_labels + 1)
    np.maximum.at(peak, labels[ss, fs], photons)
    snr = (peak[1:][chosen] - local) / np.maximum(noise, 1e-6)
    keep = (snr >= s.min_snr) & (n_around > 0)
    order = np.flatnonzero(keep)[np.argsort(-snr[keep], kind="stable")]
    columns = (centre_fs, centre_ss, intensity, snr, np.ones(len(snr)))
    return Spots(*(np.ascontiguousarray(c[order], np.float32) for c in columns))


def _surroundings(
    counts: Float, around: NDArray[np.bool_], at: tuple[NDArray[np.int64], ...], half: int
) -> tuple[Float, Float, Float]:
    """Return pixels, photons and their squares in a square around each place, on the frame."""
    span = np.arange(-half, half + 1)
    ss, fs = at[0][:, None, None] + span[:, None], at[1][:, None, None] + span
    n_ss, n_fs = around.shape
    inside = (ss >= 0) & (ss < n_ss) & (fs >= 0) & (fs < n_fs)
    ss, fs = np.clip(ss, 0, n_ss - 1), np.clip(fs, 0, n_fs - 1)
    counted = inside & around[ss, fs]
    photons = counts[ss, fs] * counted
    sums = (a.sum((1, 2), dtype=np.float64) for a in (counted, photons, np.square(photons)))
    n, total, square = sums
    return n, total, square
