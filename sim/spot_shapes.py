"""Spots with a shape: where their photons land, and how bright the pixels are on average.

One rule: a spot is a Gaussian of its own covariance in pixels, and both faces are of the same
Gaussian: `land` places single photons, at the cost of the photons alone, `render` gives the mean
of every pixel, at the cost of the area. Covariances are float64 (n, 3): ss-ss, ss-fs, fs-fs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from hitfinder.sim.patterns import REACH_SIGMA, Pattern, Spots, gather, gaussian_pixels, join_spots

# A narrower Gaussian stays in its pixel.
SHARP_PX2 = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class BraggSpots:
    """Reflections with their shapes on the detector.

    Attributes:
        spots: n of them.
        covariance_px2: float64 (n, 3), ss-ss, ss-fs, fs-fs.
    """

    spots: Spots
    covariance_px2: NDArray[np.float64]

    @property
    def sigma_px(self) -> NDArray[np.float32]:
        """Geometric mean of a spot's two widths: float32 (n,)."""
        c = self.covariance_px2
        area = np.maximum(c[:, 0] * c[:, 2] - c[:, 1] ** 2, 0)
        return np.asarray(area**0.25, dtype=np.float32)


def joined(parts: Sequence[BraggSpots]) -> BraggSpots:
    """Return the spots of several crystals as one list."""
    if len(parts) == 1:
        return parts[0]
    return BraggSpots(
        join_spots([part.spots for part in parts]),
        np.concatenate([np.zeros((0, 3)), *(part.covariance_px2 for part in parts)]),
    )


def round_spots(spots: Spots, sigma_px: float) -> BraggSpots:
    """Return spots that are all equally wide in every direction."""
    one = np.array([[sigma_px**2, 0.0, sigma_px**2]])
    return BraggSpots(spots, np.repeat(one, len(spots), axis=0))


def land(
    shape: tuple[int, int],
    ss: NDArray[np.floating],
    fs: NDArray[np.floating],
    covariance_px2: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.int32]:
    """Place photons: one from each row, spread by its covariance about its centre.

    Args:
        shape: (ss, fs) of the array.
        ss, fs: (n,), centres in pixel indices.
        covariance_px2: (n, 3) or (1, 3).
        rng: of the draw.

    Returns:
        Flat pixel index of each photon that met the array, int32, in no order.
    """
    var_ss, cross, var_fs = covariance_px2.T
    sigma_ss = np.sqrt(np.maximum(var_ss, SHARP_PX2))
    tilt = cross / sigma_ss
    sigma_fs = np.sqrt(np.maximum(var_fs - tilt**2, 0))
    along_ss, along_fs = rng.standard_normal((2, len(ss)))
    at_ss = np.rint(ss + sigma_ss * along_ss).astype(np.int32)
    at_fs = np.rint(fs + tilt * along_ss + sigma_fs * along_fs).astype(np.int32)
    inside = (at_ss >= 0) & (at_ss < shape[0]) & (at_fs >= 0) & (at_fs < shape[1])
    flat: NDArray[np.int32] = at_ss[inside] * np.int32(shape[1]) + at_fs[inside]
    return flat


def draw_spots(
    shape: tuple[int, int], bragg: BraggSpots, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draw one Poisson shot of spots: the flat pixel index of every photon, in no order."""
    counts = rng.poisson(bragg.spots.photons)
    row = np.repeat(np.arange(len(counts)), counts)
    return land(shape, bragg.spots.ss[row], bragg.spots.fs[row], bragg.covariance_px2[row], rng)


def render(shape: tuple[int, int], bragg: BraggSpots) -> Pattern:
    """Return the mean of every pixel; a sharp spot stays in one pixel.

    Exact for spots that lie along the pixels' axes; an oblique one takes the middle of each row
    for the whole row, and is as wide as it should be.
    """
    longest = np.sqrt(np.maximum(bragg.covariance_px2[:, [0, 2]].max(axis=1, initial=0.0), 0.0))
    # Reaches in few classes, so that sharp spots do not pay for the widest.
    reach = 2 ** np.ceil(np.log2(REACH_SIGMA * longest + 0.5)).clip(0).astype(np.int64)
    pixels = [
        _spread(bragg.spots[chosen], bragg.covariance_px2[chosen], int(reach[chosen][0]))
        for chosen in (reach == r for r in np.unique(reach))
    ]
    none = np.zeros(0, np.int64)
    ss, fs = (np.concatenate([none, *(p[k].astype(np.int64) for p in pixels)]) for k in (0, 1))
    photons = np.concatenate([np.zeros(0, np.float32), *(p[2] for p in pixels)])
    return gather(shape, ss, fs, photons, bragg.spots)


def _spread(
    spots: Spots, covariance_px2: NDArray[np.float64], reach_px: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return ss, fs and photons of all pixels within reach of each spot, flat."""
    var_ss, cross, var_fs = covariance_px2.T
    sigma_ss = np.sqrt(np.maximum(var_ss, SHARP_PX2))
    slope = cross / sigma_ss**2
    # Within a row the spot's middle runs along the slope, which widens the row's share.
    rest = np.maximum(var_fs - slope * cross, 0) + np.minimum(slope**2 / 12, var_fs)
    at_ss, at_fs = np.rint(spots.ss).astype(np.int64), np.rint(spots.fs).astype(np.int64)
    steps = np.arange(-reach_px, reach_px + 1)
    off_ss, off_fs = spots.ss - at_ss, spots.fs - at_fs
    shares_ss = gaussian_pixels(off_ss, sigma_ss, reach_px)
    middle_fs = off_fs[:, None] + slope[:, None] * (steps - off_ss[:, None])
    shares_fs = _row_shares(middle_fs, np.sqrt(rest), reach_px)
    photons = spots.photons[:, None, None] * shares_ss[:, :, None] * shares_fs
    ss = np.broadcast_to((at_ss[:, None] + steps)[:, :, None], photons.shape)
    fs = np.broadcast_to((at_fs[:, None] + steps)[:, None, :], photons.shape)
    return ss.ravel(), fs.ravel(), photons.ravel().astype(np.float32)


def _row_shares(
    middle_fs: NDArray[np.float64], sigma_fs: NDArray[np.float64], reach_px: int
) -> NDArray[np.float64]:
    """Return the share of each fs pixel in each row: (n, rows, pixels); one row if all are alike.

    As `gaussian_pixels` for every row, but what lies beyond the reach is not scaled back: an
    oblique spot's row may leave the window.
    """
    if np.array_equal(middle_fs, np.broadcast_to(middle_fs[:, :1], middle_fs.shape)):
        return gaussian_pixels(middle_fs[:, 0], sigma_fs, reach_px)[:, None, :].astype(np.float64)
    edges = np.arange(-reach_px - 0.5, reach_px + 1)
    scale = np.sqrt(2) * np.maximum(sigma_fs, 1e-6)[:, None, None]
    shares = np.diff(erf((edges - middle_fs[:, :, None]) / scale), axis=2) / 2
    return np.asarray(shares)
