"""Where a blob's blocks lie, against the decoder that walks them, and for bytes that are wrong."""

import struct

import bitshuffle
import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.stream.bslz4 import block_table, decode
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec


def blob_of(payload: bytes, n: int, dtype: str, *, has_header: bool = True) -> Blob:
    size = np.dtype(dtype).itemsize
    return Blob("", (1, n), dtype, Codec.BSLZ4, size, memoryview(payload), has_header)


def encode(pixels: np.ndarray, block_px: int) -> bytes:
    body = bitshuffle.compress_lz4(pixels, block_px).tobytes()
    return struct.pack(">QI", pixels.nbytes, block_px * pixels.itemsize) + body


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    dtype=st.sampled_from(("uint8", "uint16", "uint32")),
    n=st.integers(8, 3000),
    block_px=st.integers(1, 80).map(lambda k: 8 * k),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_rows_hold_what_each_block_was_packed_into(
    dtype: str, n: int, block_px: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).poisson(0.3, n).astype(dtype)
    payload = encode(pixels, block_px)
    table = block_table(blob_of(payload, n, dtype))
    planes = b"".join(
        lz4.block.decompress(payload[start : start + size], block_px * pixels.itemsize)
        for start, size in table.tolist()
    )
    n_packed = n - n % 8
    for first in range(0, n_packed, block_px):
        part = pixels[first : min(first + block_px, n_packed)]
        expected = bitshuffle.bitshuffle(part, part.size).tobytes()
        at = first * pixels.itemsize
        assert planes[at : at + part.nbytes] == expected
    assert len(planes) == n_packed * pixels.itemsize


def test_a_blob_without_header_has_its_rows_from_its_first_byte_on() -> None:
    pixels = np.arange(16_384, dtype=np.uint16)
    payload = encode(pixels, 4096)
    with_header = block_table(blob_of(payload, pixels.size, "uint16"))
    without = block_table(blob_of(payload[12:], pixels.size, "uint16", has_header=False))
    np.testing.assert_array_equal(without + [12, 0], with_header)


@pytest.mark.parametrize("tail_px", [0, 5])
def test_a_blob_cut_or_lengthened_anywhere_is_a_wire_error(tail_px: int) -> None:
    pixels = np.random.default_rng(0).poisson(0.3, 320 + tail_px).astype(np.uint16)
    payload = encode(pixels, 64)
    for wrong in [payload[:k] for k in range(len(payload))] + [payload + b"\0"]:
        with pytest.raises(WireError):
            block_table(blob_of(wrong, pixels.size, "uint16"))


def test_rows_of_changed_bytes_stay_inside_the_payload_and_what_decodes_has_rows() -> None:
    rng = np.random.default_rng(1)
    pixels = rng.poisson(0.3, 640).astype(np.uint16)
    good, n_refused = encode(pixels, 64), 0
    for _ in range(2000):
        payload = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            payload[int(rng.integers(len(payload)))] = int(rng.integers(256))
        blob = blob_of(bytes(payload), pixels.size, "uint16")
        try:
            table = block_table(blob)
        except WireError:
            n_refused += 1
            with pytest.raises(WireError):
                decode(blob)
        else:
            assert (table >= 0).all()
            assert (table.sum(axis=1) <= len(payload)).all()
    assert 100 < n_refused < 2000
