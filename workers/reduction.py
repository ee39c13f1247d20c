"""The C front end for frames in host memory: pooled maps in one pass over the decoded image.

`stream` owns the kernel, `models` says what the maps mean; this is where the two meet. A test
holds the kernel equal to the torch definition in `models/frontend.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.frontend import Pooled
from hitfinder.stream.bslz4 import Pixels
from hitfinder.stream.pooling import pool4, pooled_shape


def pool(image: Pixels, valid: NDArray[np.bool_]) -> Pooled:
    """Return the pooled maps of one frame.

    Args:
        image: (ss, fs), uint8/16/32, counts.
        valid: (ss, fs), bool, True where a pixel counts.
    """
    shape = pooled_shape((image.shape[0], image.shape[1]))
    sums, maxima = np.empty(shape, np.uint32), np.empty(shape, np.uint32)
    n_photons, n_saturated = pool4(image, valid.view(np.uint8), sums, maxima)
    return Pooled(sums, maxima, n_photons, n_saturated)
