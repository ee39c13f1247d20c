"""4 x 4 pooled sums and maxima of a decoded frame: what the gate looks at first.

Rule: an invalid pixel counts as nothing, and so does a saturated one (the largest value of its
type, which the detector also writes into gaps), but those are counted. One pass in C, no GIL.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream import _kernels
from hitfinder.stream.bslz4 import Pixels
from hitfinder.stream.messages import PIXEL_TYPES

POOL = 4  # pixels a side


def pooled_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the (ss, fs) shape of the pooled maps of an image; edges are not padded."""
    return -(-shape[0] // POOL), -(-shape[1] // POOL)


def pool4(
    image: Pixels,
    valid: NDArray[np.uint8],
    sums: NDArray[np.uint32],
    maxima: NDArray[np.uint32],
) -> tuple[int, int]:
    """Fill the pooled sums and maxima of one frame.

    Args:
        image: shape (ss, fs), uint8, uint16 or uint32, counts.
        valid: shape (ss, fs), uint8, 1 = use the pixel, 0 = do not.
        sums: shape `pooled_shape`, uint32, overwritten; sums above 2**32 - 1 stay there.
        maxima: the same shape and type, overwritten. All four C-contiguous, the caller's.

    Returns:
        (n_photons, n_saturated): the counts of all pixels that were used, exact, and the number of
        valid pixels that were left out because they hold their type's largest value.

    Raises:
        ValueError: shapes or types do not fit each other.
    """
    if image.ndim != 2 or image.dtype not in PIXEL_TYPES:
        raise ValueError(
            f"image {image.shape} of {image.dtype}; expected (ss, fs) of {PIXEL_TYPES}"
        )
    n_ss, n_fs = image.shape
    pooled = pooled_shape((n_ss, n_fs))
    for name, array, shape, dtype in (
        ("valid", valid, (n_ss, n_fs), "uint8"),
        ("sums", sums, pooled, "uint32"),
        ("maxima", maxima, pooled, "uint32"),
    ):
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name} {array.shape} of {array.dtype}; expected {shape} of {dtype}")
    return _kernels.pool4(image, valid, sums, maxima, n_ss, n_fs, image.itemsize)
