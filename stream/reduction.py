"""A compressed frame to its pooled maps and its lit bit planes, in one pass over its blocks.

One rule: the maps are those that `bslz4.decode_into` and `pooling.pool4` make, to the bit. Each
block is decoded, masked, pooled and counted while it is in the cache. What is kept of its pixels
are the planes that hold anything, 64 bytes of 512 pixels: in a faint frame a fifth of the image.
Decision records 11 and 19.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream import _kernels, bslz4
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec
from hitfinder.stream.pooling import pool4, pooled_shape

STEP_PX = 512  # whose planes are kept together

Mask = NDArray[np.uint64]


class Reduction:
    """Memory into which frames of one shape and type are reduced, one after the other.

    Args:
        shape: (ss, fs).
        dtype: uint8, uint16 or uint32.

    Attributes:
        shape: as given.
        dtype: as given.
        planes: uint8 (planes, 64), the lit ones; a bit a pixel, lowest first, 0 where the mask
            has none.
        steps: uint32 (steps, 2), of each 512 pixels the first of its planes, and a bit for each
            that is there.
        are_planes: the last frame lies in them; otherwise `pixels` holds it.
        sums: `pooled_shape`, uint32, as `pool4` makes them.
        maxima: the same shape and type.
        n_photons: of all pixels that count.
        n_saturated: valid pixels that hold the largest value of the type.
    """

    def __init__(self, shape: tuple[int, int], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype
        self._itemsize, n_steps = np.dtype(dtype).itemsize, -(-shape[0] * shape[1] // STEP_PX)
        self.planes = np.zeros((n_steps * 8 * self._itemsize, STEP_PX // 8), np.uint8)
        self.steps = np.zeros((n_steps, 2), np.uint32)
        self.are_planes = True
        self.sums = np.zeros(pooled_shape(shape), np.uint32)
        self.maxima = np.zeros(pooled_shape(shape), np.uint32)
        self.n_photons = self.n_saturated = 0
        self._image: bslz4.Pixels | None = None

    @property
    def pixels(self) -> bslz4.Pixels:
        """The frame's image, (ss, fs), counts; 0 where the mask has none. Made when asked for."""
        image = self._room()
        if self.are_planes:
            _kernels.pixels(self.planes, self.steps, image, self._itemsize)
        return image

    def take(self, blob: Blob, mask: Mask) -> None:
        """Reduce a frame; what was here before is overwritten. The GIL is released meanwhile.

        Args:
            blob: of this shape and type.
            mask: which pixels count, a bit each, lowest first, in words of 64.

        Raises:
            WireError: the payload does not follow its format; the maps are then undefined.
            ValueError: blob or mask of another shape or type.
        """
        if (blob.shape, blob.dtype) != (self.shape, self.dtype):
            raise ValueError(
                f"blob {blob.shape} of {blob.dtype}; expected {self.shape} of {self.dtype}"
            )
        if mask.nbytes * 8 < blob.shape[0] * blob.shape[1]:
            raise ValueError(
                f"a mask of {mask.nbytes} bytes does not fit: a bit a pixel is expected"
            )
        self.are_planes = False
        if blob.codec is Codec.BSLZ4 and blob.elem_size == self._itemsize:
            body, block_bytes = bslz4.blocks_of(blob)
            n_ss, n_fs = blob.shape
            # Groups of four pixels must not straddle rows, nor steps blocks.
            if not (n_fs % 4 or n_ss * n_fs % 8 or block_bytes % (STEP_PX * blob.elem_size)):
                self._take_planes(blob, body, block_bytes, mask)
                return
        image = self._room()
        bslz4.decode_into(blob, image)
        valid = np.unpackbits(mask.view(np.uint8), count=image.size, bitorder="little")
        valid = valid.reshape(blob.shape)
        np.multiply(image, valid, out=image)
        self.n_photons, self.n_saturated = pool4(image, valid, self.sums, self.maxima)

    def _room(self) -> bslz4.Pixels:
        if self._image is None:
            self._image = np.zeros(self.shape, self.dtype)
        return self._image

    def _take_planes(self, blob: Blob, body: memoryview, block_bytes: int, mask: Mask) -> None:
        found = _kernels.reduce(
            body,
            mask,
            self.planes,
            self.steps,
            self.sums,
            self.maxima,
            *blob.shape,
            blob.elem_size,
            block_bytes,
        )
        if isinstance(found, str):
            raise WireError(f"{blob.codec} blob of {len(blob.payload)} bytes: {found}")
        self.n_photons, self.n_saturated = found
        self.are_planes = True
