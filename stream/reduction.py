"""A compressed frame to its pooled maps and its image, in one pass over its blocks.

One rule: the maps are those that `bslz4.decode_into` and `pooling.pool4` make, to the bit. Each
block is decoded, masked, pooled and counted while it is in the cache, and only those lines of the
image are written that hold photons: in a faint frame most hold none. Decision record 11.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream import _kernels, bslz4
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec
from hitfinder.stream.pooling import pool4, pooled_shape

LINE_BYTES = 64  # of the image, written as a whole
WORD_PX = 64  # pixels of a mask's word

Mask = NDArray[np.uint64]


def mask_of(valid: NDArray[np.bool_]) -> Mask:
    """Return a mask as the kernel reads it: a bit a pixel, lowest first, shape (words,).

    Args:
        valid: bool (ss, fs), True where a pixel counts.
    """
    packed = np.zeros(-(-valid.size // WORD_PX) * WORD_PX // 8, np.uint8)
    packed[: -(-valid.size // 8)] = np.packbits(valid.reshape(-1), bitorder="little")
    return packed.view(np.uint64)


class Reduction:
    """Memory into which frames of one shape and type are reduced, one after the other.

    Args:
        shape: (ss, fs).
        dtype: uint8, uint16 or uint32.

    Attributes:
        image: (ss, fs), counts; 0 where the mask has none.
        sums: `pooled_shape`, uint32, as `pool4` makes them.
        maxima: the same shape and type.
        n_photons: of all pixels that count.
        n_saturated: valid pixels that hold the largest value of the type.
    """

    def __init__(self, shape: tuple[int, int], dtype: str) -> None:
        n_bytes = shape[0] * shape[1] * np.dtype(dtype).itemsize
        memory = np.zeros(n_bytes + LINE_BYTES, np.uint8)
        start = -memory.ctypes.data % LINE_BYTES
        self.image: bslz4.Pixels = memory[start : start + n_bytes].view(dtype).reshape(shape)
        self.sums = np.zeros(pooled_shape(shape), np.uint32)
        self.maxima = np.zeros(pooled_shape(shape), np.uint32)
        self.n_photons = self.n_saturated = 0
        self._is_lit = np.zeros(-(-n_bytes // LINE_BYTES), np.uint8)

    def take(self, blob: Blob, mask: Mask) -> None:
        """Reduce a frame; what was here before is overwritten. The GIL is released meanwhile.

        Args:
            blob: of this shape and type.
            mask: `mask_of` the pixels that count.

        Raises:
            WireError: the payload does not follow its format; the maps are then undefined.
            ValueError: blob or mask of another shape or type.
        """
        if (blob.shape, blob.dtype) != (self.image.shape, self.image.dtype.name):
            raise ValueError(
                f"blob {blob.shape} of {blob.dtype}; expected {self.image.shape} of "
                f"{self.image.dtype}"
            )
        if blob.codec is Codec.BSLZ4 and blob.elem_size == self.image.itemsize:
            body, block_bytes = bslz4.blocks_of(blob)
            n_ss, n_fs = blob.shape
            # Groups of four pixels and words of the mask must not straddle rows and blocks.
            if not (n_fs % 4 or n_ss * n_fs % 8 or block_bytes % (WORD_PX * blob.elem_size)):
                self._take_planes(blob, body, block_bytes, mask)
                return
        self._is_lit[:] = 1
        bslz4.decode_into(blob, self.image)
        valid = np.unpackbits(mask.view(np.uint8), count=self.image.size, bitorder="little")
        valid = valid.reshape(blob.shape)
        np.multiply(self.image, valid, out=self.image)
        self.n_photons, self.n_saturated = pool4(self.image, valid, self.sums, self.maxima)

    def _take_planes(self, blob: Blob, body: memoryview, block_bytes: int, mask: Mask) -> None:
        found = _kernels.reduce(
            body,
            mask,
            self.image,
            self._is_lit,
            self.sums,
            self.maxima,
            *blob.shape,
            blob.elem_size,
            block_bytes,
        )
        if isinstance(found, str):
            raise WireError(f"{blob.codec} blob of {len(blob.payload)} bytes: {found}")
        self.n_photons, self.n_saturated = found
