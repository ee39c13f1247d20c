"""Frames reduced on a GPU from the bytes as they were received, or on the host where it cannot.

One rule: the host's pass is the oracle. It says what is wrong with a frame that the device does
not take, and a device is used only after it has made the host's maps of a frame of its own.
"""

from __future__ import annotations

import numpy as np
from bitshuffle import compress_lz4

from hitfinder.models.device_frame import DeviceFrame
from hitfinder.models.frontend import Pooled
from hitfinder.models.image import Mask, mask_of
from hitfinder.stream import bslz4
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import PIXEL_TYPES, Blob, Codec
from hitfinder.workers.reduction import FrameReduction, HostReduction

TRIAL_SHAPE = (130, 1028)
"""Of the frames by which a device is tried: rows across blocks, and a short last block."""


class DeviceReduction(HostReduction):
    """Memory for frames of one shape and type, as `Reduction`, on a device.

    Args:
        shape: (ss, fs).
        dtype: uint8, uint16 or uint32.
        device: `cuda:N`, or `cpu` for Triton's interpreter.

    Attributes:
        n_by_host: frames that the host reduced.
    """

    def __init__(self, shape: tuple[int, int], dtype: str, device: str) -> None:
        super().__init__(shape, dtype)
        self._device = device
        self._frame: DeviceFrame | None = None
        self._pooled: Pooled | None = None
        self.n_by_host = 0

    @property
    def pooled(self) -> Pooled:
        """The frame's maps, borrowed until the next frame."""
        return self._pooled or super().pooled

    def take(self, blob: Blob, mask: Mask) -> None:
        """Reduce a frame; what was here before is overwritten.

        Args:
            blob: of this shape and type.
            mask: `mask_of` the pixels that count.

        Raises:
            WireError: the payload does not follow its format; the maps are then undefined.
            ValueError: blob or mask of another shape or type.
        """
        self._pooled = self._take_on_device(blob, mask)
        if self._pooled is None:
            self.n_by_host += 1
            super().take(blob, mask)

    def _take_on_device(self, blob: Blob, mask: Mask) -> Pooled | None:
        if blob.codec is not Codec.BSLZ4 or (blob.shape, blob.dtype) != (self.shape, self.dtype):
            return None
        if blob.elem_size != np.dtype(blob.dtype).itemsize:
            return None
        try:
            _, block_bytes = bslz4.blocks_of(blob)
            if not DeviceFrame.fits(blob.shape, blob.dtype, block_bytes):
                return None
            table = bslz4.block_table(blob)
        except WireError:
            return None
        if self._frame is None or self._frame.block_bytes != block_bytes:
            self._frame = DeviceFrame(blob.shape, blob.dtype, block_bytes, self._device)
            # What the host reduces lies there as well.
            self.planes, self.steps = self._frame.planes, self._frame.steps
        self.are_planes = True
        return self._frame.reduce(np.frombuffer(blob.payload, np.uint8), table, mask)


def try_device(
    device: str,
    shape: tuple[int, int] = TRIAL_SHAPE,
    block_bytes: int = bslz4.DEFAULT_BLOCK_BYTES,
) -> None:
    """Reduce a frame of each pixel type: photons, noise, runs, saturated and masked pixels.

    Raises:
        RuntimeError: the device's maps or image are not the host's.
    """
    rng = np.random.default_rng(0)
    for dtype in PIXEL_TYPES:
        third, largest = shape[0] // 3, np.iinfo(dtype).max
        image = rng.poisson(0.05, shape).astype(dtype)
        image[:third:2] = rng.integers(0, largest, image[:third:2].shape, dtype, endpoint=True)
        image[-third:], image[third, :100] = 0, largest
        mask = mask_of(rng.random(shape) < 0.95)
        body = compress_lz4(image.reshape(-1), block_bytes // image.itemsize).tobytes()
        payload = memoryview(bslz4.HEADER.pack(image.nbytes, block_bytes) + body)
        blob = Blob("", shape, dtype, Codec.BSLZ4, image.itemsize, payload)
        expected, found = HostReduction(shape, dtype), DeviceReduction(shape, dtype, device)
        expected.take(blob, mask)
        found.take(blob, mask)
        if found.n_by_host or not is_equal(expected, found):
            raise RuntimeError(f"a {dtype} frame comes out wrong on {device}")


def is_equal(a: FrameReduction, b: FrameReduction) -> bool:
    """Return whether two reductions hold the same frame."""
    return (
        np.array_equal(a.pixels, b.pixels)
        and np.array_equal(a.pooled.sums, b.pooled.sums)
        and np.array_equal(a.pooled.maxima, b.pooled.maxima)
        and a.pooled.n_photons == b.pooled.n_photons
        and a.pooled.n_saturated == b.pooled.n_saturated
    )
