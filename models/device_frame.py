"""Memory on a device in which frames are decoded and pooled, one after the other.

One rule: what stands here after a frame is what the C pass of the decoder makes of it, to the bit,
or nothing at all. Its memory never moves, and its work runs on a stream of its own: the frames of
several threads overlap, and the host waits once a frame.

Without a GPU the kernels run in Triton's interpreter, on the same memory.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models.block_kernels import CONSTANTS, OPTIONS, reduce_blocks
from hitfinder.models.frontend import CELL_PX, Pooled, cell_shape

MASK_WORD_PX = 64
"""Blocks hold whole words of the mask, and fields of four pixels lie in one row."""
MOST_BLOCK_BYTES = 2**16
"""Decoded bytes of a block: one warp takes it, byte after byte."""
LARGEST = 2**32 - 1
SPARE_BYTES = 64
"""What bytes that cannot be packed take more, of each block: length word and LZ4's own."""


class DeviceFrame:
    """One frame's memory on a device, and in pinned host memory what the host reads of it.

    Args:
        shape: (ss, fs); `fits` says which.
        dtype: uint8, uint16 or uint32.
        block_bytes: decoded bytes of a block.
        device: `cuda:N`, or `cpu` for the interpreter.

    Attributes:
        image: (ss, fs), counts, host memory; 0 where the mask has none.
        block_bytes: as given.
    """

    def __init__(self, shape: tuple[int, int], dtype: str, block_bytes: int, device: str) -> None:
        self.block_bytes, self._n_fs = block_bytes, shape[1]
        n_px, size = shape[0] * shape[1], np.dtype(dtype).itemsize
        is_cuda = device.startswith("cuda")
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]
        self._size, self._n_px = size, n_px
        cells = cell_shape(shape)
        # 16 pixels of four bytes do not fit one word.
        wide = torch.int64 if size == 4 else torch.int32
        n_blocks = -(-n_px * size // block_bytes)
        with self._on_stream():
            self._payload = torch.empty(
                n_px * size + n_blocks * SPARE_BYTES, dtype=torch.uint8, device=device
            )
            self._table = torch.empty((n_blocks, 2), dtype=torch.int32, device=device)
            self._mask = torch.empty(
                -(-n_px // MASK_WORD_PX) * 8, dtype=torch.uint8, device=device
            )
            self._planes = torch.empty(n_px * size, dtype=torch.uint8, device=device)
            self._image = torch.empty(shape, dtype=getattr(torch, dtype), device=device)
            self._maps = torch.empty((2, *cells), dtype=wide, device=device)
            self._float_maps = torch.empty((2, *cells), device=device)
            self._tally = torch.empty(3, dtype=torch.int64, device=device)
        self._host_image = torch.empty(shape, dtype=self._image.dtype, pin_memory=is_cuda)
        self._host_maps = torch.empty((2, *cells), dtype=torch.int32, pin_memory=is_cuda)
        self._host_tally = torch.empty(3, dtype=torch.int64, pin_memory=is_cuda)
        self.image: NDArray[np.unsignedinteger] = self._host_image.numpy()
        self._uploaded: NDArray[np.uint64] | None = None

    @staticmethod
    def fits(shape: tuple[int, int], dtype: str, block_bytes: int) -> bool:
        """Return whether frames of this shape in such blocks are taken."""
        n_px, size = shape[0] * shape[1], np.dtype(dtype).itemsize
        return (
            0 < n_px * size < 2**31 - MOST_BLOCK_BYTES
            and shape[1] % CELL_PX == 0
            and n_px % 8 == 0
            and 0 < block_bytes <= MOST_BLOCK_BYTES
            and block_bytes % (MASK_WORD_PX * size) == 0
        )

    def reduce(
        self, payload: NDArray[np.uint8], table: NDArray[np.int32], mask: NDArray[np.uint64]
    ) -> Pooled | None:
        """Decode, mask and pool a frame; what was here before is overwritten.

        Args:
            payload: a blob's bytes; they stay as they are until this returns.
            table: (blocks, 2), first byte and number of bytes of each block in the payload: all
                inside it.
            mask: a bit a pixel, lowest first, set where it counts. Only another array than the
                one before is uploaded.

        Returns:
            The maps, borrowed until the next frame; None where the bytes do not follow their
            format, or are more than such a frame can take, or the mask is another detector's.
        """
        fits = len(payload) <= len(self._payload) and mask.nbytes == len(self._mask)
        if not fits or table.shape != tuple(self._table.shape):
            return None
        with self._on_stream():
            if mask is not self._uploaded:
                self._mask.copy_(torch.from_numpy(mask.view(np.uint8)), non_blocking=True)
                self._uploaded = mask
            sent = torch.from_numpy(np.require(payload, requirements="W"))
            self._payload[: len(payload)].copy_(sent, non_blocking=True)
            self._table.copy_(torch.from_numpy(table), non_blocking=True)
            self._maps.zero_()
            self._tally.zero_()
            self._launch()
            self._tally[2] = self._maps[0].sum()
            counts = self._maps.clamp(max=LARGEST) if self._size == 4 else self._maps
            self._float_maps.copy_(counts)
            # The low 32 bits: torch can do little with unsigned numbers.
            self._host_maps.copy_(counts.to(torch.int32), non_blocking=True)
            self._host_image.copy_(self._image, non_blocking=True)
            self._host_tally.copy_(self._tally, non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()
        n_saturated, n_faults, n_photons = self._host_tally.tolist()
        if n_faults:
            return None
        sums, maxima = self._host_maps.numpy().view(np.uint32)
        on_device = (self._float_maps[0], self._float_maps[1])
        return Pooled(sums, maxima, n_photons, n_saturated, on_device)

    def _launch(self) -> None:
        reduce_blocks[(len(self._table),)](
            self._payload,
            self._table,
            self._mask,
            self._planes,
            self._image,
            self._maps[0],
            self._maps[1],
            self._tally,
            self._n_px,
            self._n_fs,
            self.block_bytes,
            ELEM=self._size,
            **CONSTANTS,
            **OPTIONS,
        )

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
