"""Compressed image blobs to pixels: bitshuffle-LZ4, both LZ4 framings, raw.

Rule: every announced size is checked against the image before memory is touched, and a blob that
is not exactly right is a `WireError`. Layouts: protocol note, section 3 (HDF5 filters 32008 and
32004); the blocks themselves are walked in C without the GIL (`_kernels.c`).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream import _kernels
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec, check_shape

Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]

HEADER = struct.Struct(">QI")  # decoded bytes, block size in decoded bytes
DEFAULT_BLOCK_BYTES = 8192  # bitshuffle's, where a sender leaves the header out


def decode(blob: Blob) -> Pixels:
    """Return a blob's pixels as a new array of shape (ss, fs), in counts.

    Raises:
        WireError: as `decode_into`, or a shape or pixel type that no Eiger has.
    """
    check_shape(blob.shape, blob.dtype)
    out: Pixels = np.empty(blob.shape, blob.dtype)
    decode_into(blob, out)
    return out


def decode_into(blob: Blob, out: Pixels) -> None:
    """Decode a blob into a given array, e.g. a ring slot's. The GIL is released meanwhile.

    Args:
        blob: one channel's image as received.
        out: C-contiguous, writable, exactly `blob.n_bytes` long; the caller's. Nothing outside
            it is touched; after an error its content is undefined.

    Raises:
        WireError: the payload does not follow its format or is not this image's size.
        ValueError: `out` does not fit.

    Source: protocol note, section 3.
    """
    if out.nbytes != blob.n_bytes or not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(
            f"out holds {out.nbytes} bytes, {out.flags!r}; expected {blob.n_bytes}, "
            "C-contiguous and writable"
        )
    wrong = _decode(blob, out)
    if wrong is not None:
        raise WireError(f"{blob.codec} blob of {len(blob.payload)} bytes: {wrong}")


def _decode(blob: Blob, out: Pixels) -> str | None:
    """Return what is wrong with the blob, or None."""
    match blob.codec:
        case Codec.BSLZ4:
            body, block_bytes = blocks_of(blob)
            return _kernels.bslz4(body, out, blob.elem_size, block_bytes)
        case Codec.LZ4_HDF5:
            block_bytes = _block_bytes(blob)
            return _kernels.lz4_blocks(blob.payload[HEADER.size :], out, block_bytes)
        case Codec.LZ4_BLOCK:
            return _kernels.lz4_block(blob.payload, out)
        case Codec.NONE:
            if blob.payload.nbytes != out.nbytes:
                return f"expected {out.nbytes} bytes of pixels"
            out.reshape(-1).view(np.uint8)[:] = np.frombuffer(blob.payload, np.uint8)
            return None


def blocks_of(blob: Blob) -> tuple[memoryview, int]:
    """Return the blocks of a bitshuffled blob, without header, and the bytes that one makes.

    Raises:
        WireError: another size than the image's, or elements or blocks that the format has not.
    """
    start = f"{blob.codec} blob of {len(blob.payload)} bytes: "
    if blob.elem_size not in (1, 2, 4, 8):
        raise WireError(
            f"{start}shuffled in elements of {blob.elem_size} bytes; expected 1, 2, 4 or 8"
        )
    body, block_bytes = blob.payload, DEFAULT_BLOCK_BYTES
    if blob.has_header:
        body, block_bytes = blob.payload[HEADER.size :], _block_bytes(blob)
    group = 8 * blob.elem_size
    if block_bytes % group:
        raise WireError(f"{start}blocks of {block_bytes} bytes; expected a multiple of {group}")
    return body, block_bytes


def block_table(blob: Blob) -> NDArray[np.int32]:
    """Find a bitshuffled blob's blocks in its payload, for a decoder elsewhere.

    Returns:
        (blocks, 2): first byte in the payload and number of bytes of each block's LZ4 data; all
        inside the payload. What the bytes are is not looked at.

    Raises:
        WireError: as `blocks_of`, or the blocks do not end where the payload does.
        ValueError: a payload of 2 GiB or more.
    """
    body, block_bytes = blocks_of(blob)
    n_leftover = blob.n_bytes % (8 * blob.elem_size)
    table = np.empty((-(-(blob.n_bytes - n_leftover) // block_bytes), 2), np.int32)
    wrong = _kernels.block_table(body, table, n_leftover)
    if wrong is not None:
        raise WireError(f"{blob.codec} blob of {len(blob.payload)} bytes: {wrong}")
    table[:, 0] += len(blob.payload) - len(body)
    return table


def _block_bytes(blob: Blob) -> int:
    """Return the block size that the 12-byte header announces, once the header fits the image."""
    if not blob.has_header or len(blob.payload) < HEADER.size:
        raise WireError(f"{blob.codec} blob of {len(blob.payload)} bytes: no 12-byte header")
    n_bytes, block_bytes = HEADER.unpack_from(blob.payload)
    if n_bytes != blob.n_bytes:
        raise WireError(
            f"{blob.codec} blob says {n_bytes} decoded bytes; expected {blob.n_bytes} for "
            f"(ss, fs) = {blob.shape} of {blob.dtype}"
        )
    if block_bytes == 0 and n_bytes > 0:
        raise WireError(f"{blob.codec} blob says blocks of 0 bytes for {n_bytes} bytes of pixels")
    return int(block_bytes) or DEFAULT_BLOCK_BYTES
