"""A frame's counts, as pixels or as the bit planes of it that hold anything.

One rule: what judges a frame reads few of its pixels, so it takes either and asks here for what
it needs. A decoder leaves planes (decision record 19); everything else shows images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import _lit

STEP_PX = 512
"""Pixels whose planes are kept together, one after the other in memory."""
WORD_PX = 64
"""Pixels of a mask's word."""


@dataclass(frozen=True, slots=True, eq=False)
class LitPlanes:
    """The bit planes of a frame that hold anything.

    Attributes:
        planes: uint8 (planes, 64), a bit a pixel, lowest first; 0 where a pixel does not count.
        steps: uint32 (steps, 2), of each 512 pixels the first of their planes, and a bit for each
            plane that is there; the others are 0.
        shape: (ss, fs).
        dtype: uint8, uint16 or uint32.
    """

    planes: NDArray[np.uint8]
    steps: NDArray[np.uint32]
    shape: tuple[int, int]
    dtype: np.dtype[Any]


Image = NDArray[np.unsignedinteger] | LitPlanes
Memory = tuple[NDArray[Any], NDArray[np.uint32]]
Mask = NDArray[np.uint64]

_NO_STEPS = np.empty(0, np.uint32)


def memory(image: Image) -> Memory:
    """Return counts and steps as the compiled parts take them; none where counts are pixels."""
    if isinstance(image, LitPlanes):
        return image.planes, image.steps
    return np.ascontiguousarray(image), _NO_STEPS


def mask_of(valid: NDArray[np.bool_]) -> Mask:
    """Return a mask as the compiled parts read it: a bit a pixel, lowest first, shape (words,).

    Args:
        valid: bool (ss, fs), True where a pixel counts.
    """
    packed = np.zeros(-(-valid.size // WORD_PX) * WORD_PX // 8, np.uint8)
    packed[: -(-valid.size // 8)] = np.packbits(valid.reshape(-1), bitorder="little")
    return packed.view(np.uint64)


def valid_at(mask: Mask, pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of some pixels, flat indices of any shape, count."""
    return (mask.view(np.uint8)[pixels // 8] >> (pixels % 8).astype(np.uint8) & 1).astype(np.bool_)


def counts_at(image: Image, pixels: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return what pixels, flat indices of any shape, count; the largest value is no count."""
    found = np.empty(pixels.shape, np.uint32)
    pixels = np.ascontiguousarray(pixels)
    _lit.counts_at(*memory(image), image.shape, image.dtype.itemsize, pixels, found)
    return found


def saturated_pixels(image: Image, valid: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """Return the flat indices of the valid pixels that read the largest value of their type.

    Args:
        image: (ss, fs).
        valid: bool (ss, fs).
        n: how many are expected; planes also hold those that left the mask since.
    """
    if not isinstance(image, LitPlanes):
        return np.flatnonzero((image == np.iinfo(image.dtype).max) & valid)
    found = np.empty(n, np.int64)
    n_found = _lit.saturated(*memory(image), image.shape, image.dtype.itemsize, found)
    if n_found > n:
        return saturated_pixels(image, valid, n_found)
    found = found[:n_found]
    return found[valid.reshape(-1)[found]]
