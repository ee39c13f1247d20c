"""One hit as a picture: the part of the image with most of its spots, these circled.

One rule: pixels come from the hit file. Single pixels are too small to see, so each shows the
photons near it: those under a Gaussian whose peak counts one. A lone photon is dark, a spot
bright, on one scale for all hits; gaps are grey.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy import ndimage

CROP_PX = 900
SMOOTH_PX = 3.0
CIRCLE_POINTS2 = 130
# Photons under the Gaussian from which on a pixel is not black, and where it is brightest.
DARK, BRIGHT = 0.4, 40.0


def draw_hit(
    axes: Axes,
    image: NDArray[np.unsignedinteger],
    fs: NDArray[np.float32],
    ss: NDArray[np.float32],
) -> AxesImage:
    """Draw a hit and return what a colour bar needs.

    Args:
        image: (ss, fs) counts as received.
        fs, ss: float32 (n_peaks,), its spots in pixels, centre of the first pixel 0.0.
    """
    rows, cols = _window(image.shape[0], ss), _window(image.shape[1], fs)
    crop = image[rows, cols]
    valid = crop < np.iinfo(crop.dtype).max
    photons = ndimage.gaussian_filter(crop * valid.astype(np.float32), SMOOTH_PX)
    photons *= 2 * np.pi * SMOOTH_PX**2
    photons[~valid] = np.nan
    axes.set_facecolor("#9a9a9a")
    shown = axes.imshow(
        photons,
        extent=(cols.start - 0.5, cols.stop - 0.5, rows.stop - 0.5, rows.start - 0.5),
        norm=LogNorm(DARK, BRIGHT, clip=True),
        cmap="magma",
        interpolation="nearest",
    )
    axes.scatter(fs, ss, CIRCLE_POINTS2, facecolors="none", edgecolors="#3ddbd9", linewidths=1.2)
    axes.set(xlim=(cols.start, cols.stop), ylim=(rows.stop, rows.start))
    axes.tick_params(labelsize=8)
    axes.set_xlabel("fs (pixel)", fontsize=9)
    axes.set_ylabel("ss (pixel)", fontsize=9)
    return shown


def _window(size_px: int, at_px: NDArray[np.float32]) -> slice:
    """Return the window along one axis that holds most of the spots."""
    begins = np.arange(0, max(size_px - CROP_PX, 0) + 1, 20)
    n_inside = [int(((at_px >= b) & (at_px < b + CROP_PX)).sum()) for b in begins]
    best = begins[np.flatnonzero(np.array(n_inside) == max(n_inside))]
    begin = int(best[len(best) // 2])
    return slice(begin, min(begin + CROP_PX, size_px))
