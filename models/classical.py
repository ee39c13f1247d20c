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
        threshold: photons a pixel must exceed.
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
    mean, sigma = _ring_statistics(counts, used, ring)
    limit = np.maximum(s.threshold, mean + s.min_snr * sigma)[ring]
    bright = used & (counts > limit) & (radius >= s.min_res_px) & (radius <= s.max_res_px)
    labels, n_labels = ndimage.label(bright, np.ones((3, 3), np.int64))
    if not n_labels:
        return no_spots()
    return _measure(counts, used, bright, labels, n_labels, mean[ring], s)


def _radius(geometry: Geometry) -> Float:
    x = np.arange(geometry.shape[1]) - geometry.beam_center_px[0]
    y = np.arange(geometry.shape[0]) - geometry.beam_center_px[1]
    return np.asarray(np.hypot(x[None, :], y[:, None]))


def _ring_statistics(
    counts: Float, used: NDArray[np.bool_], ring: NDArray[np.int64]
) -> tuple[Float, Float]:
    """Return mean and sigma per ring, by repeated clipping."""
    n_rings = int(ring.max()) + 1
    index, values = ring[used], counts[used]
    limit = np.full(n_rings, np.inf)
    mean = sigma = np.zeros(n_rings)
    for _ in range(N_CLIPS):
        keep = values <= limit[index]
        n = np.bincount(index[keep], minlength=n_rings)
        total = np.bincount(index[keep], values[keep], n_rings)
        square = np.bincount(index[keep], np.square(values[keep]), n_rings)
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
    s: ClassicalSettings,
) -> Spots:
    """Return peaks of the right size whose surroundings let them stand."""
    index = np.arange(1, n_labels + 1)
    size = np.bincount(labels.ravel(), minlength=n_labels + 1)[1:]
    index = index[(size >= s.min_pix_count) & (size <= s.max_pix_count)]
    if not len(index):
        return no_spots()
    excess = np.where(bright, np.maximum(counts - mean, 1e-9), 0.0)
    centre = np.array(ndimage.center_of_mass(excess, labels, index))
    window = 2 * s.local_bg_radius_px + 1
    around = used & ~bright
    at = tuple(np.rint(centre).astype(np.int64).T)
    n_around = _box_at(around.astype(np.float64), at, window)
    total = _box_at(counts * around, at, window)
    square = _box_at(counts * counts * around, at, window)
    n_safe = np.maximum(n_around, 1)
    local = total / n_safe
    # A nearly empty ring shows no scatter; Poisson says how much there must be.
    noise = np.sqrt(np.maximum(square / n_safe - local * local, np.maximum(local, mean[at])))
    n_pixels = np.bincount(labels.ravel(), minlength=n_labels + 1)[index]
    intensity = ndimage.sum_labels(counts, labels, index) - local * n_pixels
    peak = ndimage.maximum(counts, labels, index)
    snr = (peak - local) / np.maximum(noise, 1e-6)
    keep = (snr >= s.min_snr) & (n_around > 0)
    order = np.flatnonzero(keep)[np.argsort(-snr[keep], kind="stable")]
    columns = (centre[:, 1], centre[:, 0], intensity, snr, np.ones(len(index)))
    return Spots(*(np.ascontiguousarray(c[order], np.float32) for c in columns))


def _box_at(values: Float, at: tuple[NDArray[np.int64], ...], window: int) -> Float:
    """Return the sum of `values` in a square around each place, 0 outside the frame."""
    summed = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    half = window // 2
    low = [np.clip(a - half, 0, n) for a, n in zip(at, values.shape, strict=True)]
    high = [np.clip(a + half + 1, 0, n) for a, n in zip(at, values.shape, strict=True)]
    return np.asarray(
        summed[high[0], high[1]]
        - summed[low[0], high[1]]
        - summed[high[0], low[1]]
        + summed[low[0], low[1]]
    )
