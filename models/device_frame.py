"""Memory on a device in which frames are decoded and pooled, one after the other.

One rule: what stands here after a frame is what the C pass of the decoder makes of it, to the bit,
or nothing at all. Its memory never moves, and its work runs on a stream of its own: the frames of
several threads overlap. What crosses the link is packed bytes one way, maps and lit planes the
other; the host waits once a frame, and again where more planes were lit than it expected.

Without a GPU the kernels run in Triton's interpreter, on the same memory.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models.block_kernels import CONSTANTS, OPTIONS, reduce_blocks
from hitfinder.models.frontend import CELL_PX, Pooled, cell_shape
from hitfinder.models.image import STEP_PX, WORD_PX

MOST_BLOCK_BYTES = 2**16
"""Decoded bytes of a block: one warp takes it, byte after byte."""
LARGEST = 2**32 - 1
SPARE_BYTES = 64
"""What bytes that cannot be packed take more, of each block: length word and LZ4's own."""
PLANE_BYTES = STEP_PX // 8
N_TALLIES = 4
"""Saturated pixels, faulty blocks, photons, lit planes; int64."""


class DeviceFrame:
    """One frame's memory on a device, and in pinned host memory what the host reads of it.

    Args:
        shape: (ss, fs); `fits` says which.
        dtype: uint8, uint16 or uint32.
        block_bytes: decoded bytes of a block.
        device: `cuda:N`, or `cpu` for the interpreter.

    Attributes:
        planes: uint8 (planes, 64), host memory with room for all; see `image.LitPlanes`.
        steps: uint32 (steps, 2), host memory; see there.
        block_bytes: as given.
    """

    def __init__(self, shape: tuple[int, int], dtype: str, block_bytes: int, device: str) -> None:
        self.block_bytes, self._n_fs = block_bytes, shape[1]
        n_px, size = shape[0] * shape[1], np.dtype(dtype).itemsize
        is_cuda = device.startswith("cuda")
        self._stream = torch.cuda.Stream(device) if is_cuda else None  # type: ignore[no-untyped-call]
        self._size, self._n_px = size, n_px
        cells, n_steps = cell_shape(shape), -(-n_px // STEP_PX)
        n_cells, n_blocks = cells[0] * cells[1], -(-n_px * size // block_bytes)
        n_planes = n_steps * 8 * size
        # What the host reads of every frame lies together: tallies, maps, steps.
        n_tallies = 2 * N_TALLIES
        n_cleared = n_tallies + 2 * n_cells
        n_answer = n_cleared + 2 * n_steps
        with self._on_stream():
            self._payload = torch.empty(
                n_px * size + n_blocks * SPARE_BYTES, dtype=torch.uint8, device=device
            )
            self._table = torch.empty((n_blocks, 2), dtype=torch.int32, device=device)
            self._mask = torch.empty(-(-n_px // WORD_PX) * 8, dtype=torch.uint8, device=device)
            self._planes = torch.empty(n_px * size, dtype=torch.uint8, device=device)
            self._lit = torch.empty((n_planes, PLANE_BYTES), dtype=torch.uint8, device=device)
            self._answer = torch.empty(n_answer, dtype=torch.int32, device=device)
            self._float_maps = torch.empty((2, *cells), device=device)
            # 16 pixels of four bytes do not fit one word.
            self._wide = torch.empty(
                (2, *cells) if size == 4 else 0, dtype=torch.int64, device=device
            )
        self._cleared = self._answer[:n_cleared]
        self._tally = self._cleared[:n_tallies].view(torch.int64)
        self._maps = self._cleared[n_tallies:].view(2, *cells)
        self._steps = self._answer[n_cleared:].view(n_steps, 2)
        self._host_answer = torch.empty(n_answer, dtype=torch.int32, pin_memory=is_cuda)
        self._host_lit = torch.empty(self._lit.shape, dtype=torch.uint8, pin_memory=is_cuda)
        read = self._host_answer.numpy()
        self._host_tally = read[:n_tallies].view(np.int64)
        self._host_maps = read[n_tallies:n_cleared].view(np.uint32).reshape(2, *cells)
        self.steps: NDArray[np.uint32] = read[n_cleared:].view(np.uint32).reshape(n_steps, 2)
        self.planes: NDArray[np.uint8] = self._host_lit.numpy()
        self._n_expected = min(4 * n_steps, n_planes)
        self._uploaded: NDArray[np.uint64] | None = None

    @staticmethod
    def fits(shape: tuple[int, int], dtype: str, block_bytes: int) -> bool:
        """Return whether frames of this shape in such blocks are taken."""
        n_px, size = shape[0] * shape[1], np.dtype(dtype).itemsize
        return (
            0 < n_px * size < 2**31 - MOST_BLOCK_BYTES
            # Fields of four pixels lie in one row, and blocks hold whole steps.
            and shape[1] % CELL_PX == 0
            and n_px % 8 == 0
            and 0 < block_bytes <= MOST_BLOCK_BYTES
            and block_bytes % (STEP_PX * size) == 0
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
            self._launch()
            self._host_answer.copy_(self._answer, non_blocking=True)
        self._fetch_planes(0, self._n_expected)
        n_saturated, n_faults, n_photons, n_lit = self._host_tally.tolist()
        if n_faults:
            return None
        if n_lit > self._n_expected:
            self._fetch_planes(self._n_expected, n_lit)
        # Frames of a series are alike; an eighth more than the last is there at the first wait.
        self._n_expected = min(n_lit + n_lit // 8, len(self._lit))
        sums, maxima = self._host_maps
        on_device = (self._float_maps[0], self._float_maps[1])
        return Pooled(sums, maxima, n_photons, n_saturated, on_device)

    def _fetch_planes(self, first: int, end: int) -> None:
        """Bring some lit planes, and what was asked for before, to the host; wait for them."""
        with self._on_stream():
            self._host_lit[first:end].copy_(self._lit[first:end], non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()

    def _launch(self) -> None:
        """Fill the answer and the lit planes."""
        self._cleared.zero_()
        maps = self._wide.zero_() if self._size == 4 else self._maps
        reduce_blocks[(len(self._table),)](
            self._payload,
            self._table,
            self._mask,
            self._planes,
            self._lit,
            self._steps,
            maps[0],
            maps[1],
            self._tally,
            self._n_px,
            self._n_fs,
            self.block_bytes,
            ELEM=self._size,
            **CONSTANTS,
            **OPTIONS,
        )
        if self._size == 4:
            # The low 32 bits: torch can do little with unsigned numbers.
            self._maps.copy_(maps.clamp_(max=LARGEST))
        self._float_maps.copy_(maps)

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
