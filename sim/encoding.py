"""Pixels to blobs: the four ways a DECTRIS detector packs an image.

Its one rule: nothing of the receiving floor is used here, so that both ends of a test cannot
share a mistake. Formats from the protocol note, section 3; bitshuffle and LZ4 by their own
packages, every header and length word written here.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import bitshuffle
import lz4.block
import numpy as np
from numpy.typing import NDArray

from hitfinder import HitfinderError
from hitfinder.sim.detector import PIXEL_BITS, Compression, Protocol

# bitshuffle's own default: 8192 bytes for every element size (note, 3.2).
DEFAULT_BLOCK_BYTES = 8192
# HDF5's LZ4 filter cuts at 1 GiB when told nothing, so an image is one block.
DEFAULT_LZ4_BLOCK_BYTES = 1 << 30


class EncodingError(HitfinderError):
    """An image that this detector cannot send."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """How a series' images are packed; equal encoders make equal blobs.

    Attributes:
        block_bytes: block size before compression, 0 for the default of the format.
    """

    protocol: Protocol
    compression: Compression
    dtype: str
    block_bytes: int = 0

    def __call__(self, image: NDArray[Any]) -> EncodedImage:
        """Pack an image.

        Args:
            image: shape (ss, fs), of exactly the encoder's dtype.

        Raises:
            EncodingError: another pixel type or number of dimensions.
        """
        if image.dtype.name != self.dtype or image.dtype.name not in PIXEL_BITS or image.ndim != 2:
            raise EncodingError(
                f"image of {image.dtype.name} {image.shape}; expected 2-D {self.dtype}: "
                "convert it or set the detector's pixel type"
            )
        pixels = np.ascontiguousarray(image).astype(image.dtype.newbyteorder("<"), copy=False)
        if self.compression == "bslz4":
            payload = bslz4(pixels, self.block_bytes)
        elif self.compression == "none":
            payload = pixels.tobytes()
        elif self.protocol == "v1":
            payload = lz4_block(pixels.tobytes())
        else:
            payload = lz4_hdf5(pixels.tobytes(), self.block_bytes)
        shape = (image.shape[0], image.shape[1])
        md5 = hashlib.md5(payload, usedforsecurity=False).hexdigest()
        return EncodedImage(payload, shape, self, md5)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One channel's image, packed.

    Attributes:
        payload: the blob as it stands on the wire.
        shape: (ss, fs).
        encoder: how it was packed.
        md5: hexadecimal digest of `payload`, V1's `hash`.
    """

    payload: bytes
    shape: tuple[int, int]
    encoder: Encoder
    md5: str

    @property
    def dtype(self) -> str:
        """Pixel type: `uint8`, `uint16` or `uint32`."""
        return self.encoder.dtype

    @property
    def compression(self) -> Compression:
        """SIMPLON's word for the packing."""
        return self.encoder.compression


def bslz4(pixels: NDArray[Any], block_bytes: int = 0) -> bytes:
    """Return bitshuffle-LZ4 with its 12-byte header (note, 3.2).

    Args:
        pixels: any shape, C order, little-endian.
        block_bytes: a multiple of 8 elements, 0 for 8192.
    """
    elem_size = pixels.dtype.itemsize
    block_bytes = block_bytes or DEFAULT_BLOCK_BYTES
    if block_bytes % (8 * elem_size):
        raise EncodingError(f"block of {block_bytes} bytes; expected a multiple of 8 elements")
    header = struct.pack(">QI", pixels.nbytes, block_bytes)
    if pixels.size == 0:
        return header
    body: NDArray[np.uint8] = bitshuffle.compress_lz4(pixels.ravel(), block_bytes // elem_size)
    return header + body.tobytes()


def lz4_block(pixel_bytes: bytes) -> bytes:
    """Return V1's `lz4<`: one bare LZ4 block without any header (note, 3.1)."""
    packed: bytes = lz4.block.compress(pixel_bytes, store_size=False)
    return packed


def lz4_hdf5(pixel_bytes: bytes, block_bytes: int = 0) -> bytes:
    """Return V2's `lz4`: HDF5 filter 32004's framing; a block that does not shrink is stored."""
    n_bytes = len(pixel_bytes)
    block_bytes = min(block_bytes or DEFAULT_LZ4_BLOCK_BYTES, n_bytes)
    pieces = [struct.pack(">QI", n_bytes, block_bytes)]
    for at in range(0, n_bytes, block_bytes or 1):
        block = pixel_bytes[at : at + block_bytes]
        packed = lz4_block(block)
        stored = packed if len(packed) < len(block) else block
        pieces += [struct.pack(">I", len(stored)), stored]
    return b"".join(pieces)


def unpack(image: EncodedImage) -> NDArray[Any]:
    """Return the pixels of an image packed here, (ss, fs): what the monitor interface shows."""
    dtype, payload = np.dtype(image.dtype), image.payload
    n_bytes = image.shape[0] * image.shape[1] * dtype.itemsize
    if image.compression == "bslz4":
        block = struct.unpack_from(">I", payload, 8)[0] // dtype.itemsize
        body = np.frombuffer(payload, np.uint8, offset=12)
        pixels: NDArray[Any] = bitshuffle.decompress_lz4(body, image.shape, dtype, block)
        return pixels
    if image.compression == "none":
        plain = payload
    elif image.encoder.protocol == "v1":
        plain = lz4.block.decompress(payload, uncompressed_size=n_bytes)
    else:
        plain = _unpack_lz4_hdf5(payload)
    return np.frombuffer(plain, dtype).reshape(image.shape)


def _unpack_lz4_hdf5(payload: bytes) -> bytes:
    n_bytes, block_bytes = struct.unpack_from(">QI", payload)
    at, pieces = 12, []
    for begin in range(0, n_bytes, block_bytes):
        (stored,) = struct.unpack_from(">I", payload, at)
        block = payload[at + 4 : at + 4 + stored]
        size = min(block_bytes, n_bytes - begin)
        pieces.append(
            block if stored == size else lz4.block.decompress(block, uncompressed_size=size)
        )
        at += 4 + stored
    return b"".join(pieces)
