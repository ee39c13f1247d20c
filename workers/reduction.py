"""What frames of a worker are reduced in: on the host by the C pass, or on the worker's GPU.

`stream` owns the C kernels, `models` says what the maps mean; this is where the two meet. Tests
hold the kernels equal to the torch definition in `models/frontend.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.frontend import Pooled
from hitfinder.models.image import Image, LitPlanes
from hitfinder.stream.bslz4 import Pixels
from hitfinder.stream.messages import Blob
from hitfinder.stream.pooling import pool4, pooled_shape
from hitfinder.stream.reduction import Mask, Reduction

log = logging.getLogger(__name__)


class FrameReduction(Protocol):
    """Memory into which frames of one shape and type are reduced, one after the other.

    Attributes:
        shape: (ss, fs).
        dtype: uint8, uint16 or uint32.
        image: the frame as it is judged, borrowed until the next one; 0 where the mask has none.
        pixels: the same, (ss, fs), counts.
        pooled: its maps, borrowed until the next frame.
    """

    shape: tuple[int, int]
    dtype: str

    @property
    def image(self) -> Image: ...

    @property
    def pixels(self) -> Pixels: ...

    @property
    def pooled(self) -> Pooled: ...

    def take(self, blob: Blob, mask: Mask) -> None: ...


class HostReduction(Reduction):
    """A reduction in host memory that can be judged."""

    @property
    def image(self) -> Image:
        """The frame as it is judged, borrowed until the next frame."""
        if not self.are_planes:
            return self.pixels
        return LitPlanes(self.planes, self.steps, self.shape, np.dtype(self.dtype))

    @property
    def pooled(self) -> Pooled:
        """The frame's maps, borrowed until the next frame."""
        return Pooled(self.sums, self.maxima, self.n_photons, self.n_saturated)


def reductions_on(device: str) -> Callable[[tuple[int, int], str], FrameReduction]:
    """Return what makes the memory for frames of a shape and type, for a worker on this device.

    A GPU is tried with a frame of each pixel type, which also compiles what it runs. Where that
    fails, for whatever reason, the host reduces the frames, and the log says why.
    """
    if device == "cpu":
        return HostReduction
    try:
        # Triton comes with a torch that can use a GPU.
        from hitfinder.workers.device_reduction import DeviceReduction, try_device

        try_device(device)
    except Exception as error:  # a compiler, a driver, a device: any of them may say no
        log.warning("%s does not decode frames, the host does: %r", device, error)
        return HostReduction
    return partial(DeviceReduction, device=device)


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
