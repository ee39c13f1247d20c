"""Blob decoding against recordings, two independent encoders, and bytes that are wrong.

`decode_guarded` decodes into the middle of a larger array and checks that the rest stayed
untouched; nearly every test goes through it.
"""

import hashlib
import json
import struct
import tracemalloc
from pathlib import Path

import bitshuffle
import dectris.compression
import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.stream.bslz4 import decode, decode_into
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec

GUARD = 128  # untouched bytes on either side of the output
CODECS = {
    "bslz4": Codec.BSLZ4,
    "lz4-raw": Codec.LZ4_BLOCK,
    "lz4-hdf5": Codec.LZ4_HDF5,
    "none": Codec.NONE,
}
DTYPES = ("uint8", "uint16", "uint32")


def decode_guarded(blob: Blob) -> NDArray[np.generic]:
    memory = np.full(blob.n_bytes + 2 * GUARD, 0xA5, np.uint8)
    out = memory[GUARD : GUARD + blob.n_bytes].view(blob.dtype).reshape(blob.shape)
    try:
        decode_into(blob, out)
    finally:
        assert (memory[:GUARD] == 0xA5).all()
        assert (memory[GUARD + blob.n_bytes :] == 0xA5).all()
    return out


def blob_of(
    payload: bytes, pixels: NDArray[np.generic], codec: Codec = Codec.BSLZ4, elem_size: int = 0
) -> Blob:
    shape = (1, pixels.size) if pixels.ndim == 1 else (pixels.shape[0], pixels.shape[1])
    size = elem_size or pixels.itemsize
    return Blob("threshold_1", shape, pixels.dtype.name, codec, size, memoryview(payload))


def encode(pixels: NDArray[np.generic], block_elements: int = 0) -> bytes:
    """Return a bslz4 blob made by the bitshuffle package; 0 means blocks of 8192 bytes."""
    block_elements = block_elements or 8192 // pixels.itemsize
    body = bitshuffle.compress_lz4(pixels, block_elements).tobytes() if pixels.size else b""
    return struct.pack(">QI", pixels.nbytes, block_elements * pixels.itemsize) + body


def encode_lz4_blocks(pixels: NDArray[np.generic], block_bytes: int) -> bytes:
    """Return an HDF5-framed LZ4 blob (filter 32004): raw where LZ4 gains nothing."""
    raw = pixels.tobytes()
    parts = [struct.pack(">QI", len(raw), block_bytes)]
    for start in range(0, len(raw), block_bytes):
        piece = raw[start : start + block_bytes]
        packed = lz4.block.compress(piece, store_size=False)
        packed = packed if len(packed) < len(piece) else piece
        parts.append(struct.pack(">I", len(packed)) + packed)
    return b"".join(parts)


def pixels_of(kind: str, n: int, dtype: str, seed: int) -> NDArray[np.generic]:
    rng = np.random.default_rng(seed)
    largest = int(np.iinfo(dtype).max)
    if kind == "sparse":
        flux = rng.choice([0.002, 0.02, 0.2, 2.0])
        pixels = rng.poisson(flux, n)
        pixels[rng.random(n) < 0.01] = largest
    elif kind == "gaps":
        pixels = np.where(np.arange(n) // 37 % 5 == 0, largest, rng.poisson(0.02, n))
    elif kind == "period":
        pixels = np.resize(rng.integers(0, largest, int(rng.integers(1, 40)), np.uint64), n)
    elif kind == "constant":
        pixels = np.full(n, rng.integers(0, largest, endpoint=True, dtype=np.uint64))
    else:
        pixels = rng.integers(0, largest, n, np.uint64, endpoint=True)
    return pixels.astype(dtype)


KINDS = st.sampled_from(("sparse", "gaps", "period", "constant", "random"))


def test_recorded_blobs_of_all_codecs_decode_to_their_checksums(shared: Path) -> None:
    vectors = shared / "protocol" / "vectors"
    recorded = json.loads((vectors / "manifest.json").read_text())["blobs"]
    assert {entry["codec"] for entry in recorded} == set(CODECS)
    for entry in recorded:
        shape = (1, int(np.prod(entry["shape"])))
        payload = memoryview((vectors / entry["file"]).read_bytes())
        dtype = np.dtype(entry["dtype"]).name
        blob = Blob("", shape, dtype, CODECS[entry["codec"]], entry["elem_size"] or 1, payload)
        pixels = decode_guarded(blob)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        assert digest == entry["sha256_decoded"], entry["name"]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    kind=KINDS,
    n=st.one_of(st.integers(1, 600), st.integers(1, 40_000)),
    dtype=st.sampled_from(DTYPES),
    groups=st.one_of(st.just(0), st.integers(1, 40), st.integers(1, 3000)),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_block_size_decodes_as_two_other_decoders_do(
    kind: str, n: int, dtype: str, groups: int, seed: int
) -> None:
    pixels = pixels_of(kind, n, dtype, seed)
    payload = encode(pixels, 8 * groups)
    theirs = dectris.compression.decompress(payload, "bslz4", elem_size=pixels.itemsize)
    assert theirs == pixels.tobytes()
    assert decode_guarded(blob_of(payload, pixels)).tobytes() == theirs


@settings(deadline=None, derandomize=True, max_examples=60)
@given(kind=KINDS, n=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1))
def test_shuffle_width_may_differ_from_pixel_width(kind: str, n: int, seed: int) -> None:
    wide = pixels_of(kind, n, "uint32", seed).astype(np.uint64) << np.uint64(17)
    pixels = wide.view(np.uint16)
    assert (decode_guarded(blob_of(encode(wide), pixels, elem_size=8)) == pixels).all()


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    kind=KINDS,
    n=st.integers(1, 20_000),
    dtype=st.sampled_from(DTYPES),
    block_bytes=st.integers(1, 70_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_lz4_framings_decode_what_lz4_encoded(
    kind: str, n: int, dtype: str, block_bytes: int, seed: int
) -> None:
    pixels = pixels_of(kind, n, dtype, seed)
    bare = lz4.block.compress(pixels.tobytes(), store_size=False)
    assert (decode_guarded(blob_of(bare, pixels, Codec.LZ4_BLOCK)) == pixels).all()
    framed = encode_lz4_blocks(pixels, max(block_bytes, n // 50))
    assert (decode_guarded(blob_of(framed, pixels, Codec.LZ4_HDF5)) == pixels).all()


def test_a_detector_sized_frame_decodes_in_a_new_array() -> None:
    pixels = pixels_of("sparse", 2162 * 2068, "uint16", 1).reshape(2162, 2068)
    assert (decode(blob_of(encode(pixels), pixels)) == pixels).all()


def test_a_blob_without_header_has_blocks_of_8192_bytes() -> None:
    pixels = pixels_of("sparse", 12_345, "uint16", 2)
    blob = blob_of(encode(pixels)[12:], pixels)
    lenient = Blob(blob.channel, blob.shape, blob.dtype, blob.codec, 2, blob.payload, False)
    assert (decode_guarded(lenient) == pixels).all()


def small_blobs() -> list[Blob]:
    """Return short valid blobs of every codec, with leftovers and several blocks."""
    blobs = []
    for dtype in DTYPES:
        for kind in ("sparse", "random", "period"):
            pixels = pixels_of(kind, 331, dtype, 3)
            blobs.append(blob_of(encode(pixels, 64), pixels))
            blobs.append(blob_of(encode(pixels), pixels))
            blobs.append(blob_of(encode_lz4_blocks(pixels, 200), pixels, Codec.LZ4_HDF5))
            bare = lz4.block.compress(pixels.tobytes(), store_size=False)
            blobs.append(blob_of(bare, pixels, Codec.LZ4_BLOCK))
            blobs.append(blob_of(pixels.tobytes(), pixels, Codec.NONE))
    return blobs


def with_payload(blob: Blob, payload: bytes) -> Blob:
    return Blob("", blob.shape, blob.dtype, blob.codec, blob.elem_size, memoryview(payload))


def test_a_blob_cut_at_any_length_is_a_wire_error() -> None:
    for blob in small_blobs():
        for length in range(len(blob.payload)):
            with pytest.raises(WireError):
                decode_guarded(with_payload(blob, bytes(blob.payload[:length])))


def test_trailing_bytes_are_a_wire_error() -> None:
    for blob in small_blobs():
        for tail in (b"\0", b"\0" * 4, b"\xff" * 40):
            with pytest.raises(WireError):
                decode_guarded(with_payload(blob, bytes(blob.payload) + tail))


def test_flipped_bytes_decode_or_are_a_wire_error() -> None:
    rng = np.random.default_rng(4)
    for blob in small_blobs():
        for where in range(len(blob.payload)):
            payload = bytearray(blob.payload)
            payload[where] ^= int(rng.choice([1, 0x80, 0xFF, rng.integers(1, 256)]))
            try:
                decode_guarded(with_payload(blob, bytes(payload)))
            except WireError:
                continue


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    codec=st.sampled_from(Codec),
    noise=st.binary(max_size=300),
    n=st.integers(1, 500),
    elem_size=st.sampled_from((1, 2, 3, 4, 8)),
    has_size=st.booleans(),
)
def test_arbitrary_bytes_decode_or_are_a_wire_error(
    codec: Codec, noise: bytes, n: int, elem_size: int, has_size: bool
) -> None:
    header = struct.pack(">QI", 2 * n, 64 * 8) if has_size else b""
    blob = Blob("", (1, n), "uint16", codec, elem_size, memoryview(header + noise))
    try:
        decode_guarded(blob)
    except WireError:
        return


@pytest.mark.parametrize("word", [0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_wrong_length_word_is_a_wire_error(word: int) -> None:
    pixels = pixels_of("sparse", 5000, "uint16", 5)
    payload = bytearray(encode(pixels))
    payload[12:16] = struct.pack(">I", word)
    with pytest.raises(WireError, match="block 0"):
        decode_guarded(blob_of(bytes(payload), pixels))


@pytest.mark.parametrize("block_bytes", [0, 1, 8, 8191, 8200])
def test_a_block_size_that_breaks_the_rule_is_a_wire_error(block_bytes: int) -> None:
    pixels = pixels_of("sparse", 5000, "uint16", 6)
    payload = struct.pack(">QI", pixels.nbytes, block_bytes) + encode(pixels)[12:]
    with pytest.raises(WireError):
        decode_guarded(blob_of(payload, pixels))


def test_an_absurd_block_size_allocates_no_more_than_the_image() -> None:
    pixels = pixels_of("sparse", 800, "uint16", 7)
    payload = struct.pack(">QI", pixels.nbytes, 0xFFFF_FFF0) + encode(pixels)[12:]
    blob, out = blob_of(payload, pixels), np.empty((1, 800), np.uint16)
    tracemalloc.start()
    try:
        decode_into(blob, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (out == pixels).all()
    assert peak < 1 << 16


@pytest.mark.parametrize("size", [0, 8, 1602, 1 << 60, (1 << 64) - 1])
def test_an_announced_size_other_than_the_image_is_a_wire_error(size: int) -> None:
    pixels = pixels_of("sparse", 800, "uint16", 8)
    for codec in (Codec.BSLZ4, Codec.LZ4_HDF5):
        blob = blob_of(struct.pack(">QI", size, 8192) + encode(pixels)[12:], pixels, codec)
        with pytest.raises(WireError, match="1600"):
            decode_guarded(blob)


def test_zero_bytes_are_a_wire_error() -> None:
    pixels = np.zeros(500, np.uint16)
    for codec in (Codec.BSLZ4, Codec.LZ4_BLOCK, Codec.LZ4_HDF5):
        for length in (0, 1, 12, 16, 100, 5000):
            with pytest.raises(WireError):
                decode_guarded(blob_of(bytes(length), pixels, codec))


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("10 41 00 00 00", "before the block"),  # offset 0
        ("10 41 02 00 00", "before the block"),  # offset 2 after one byte
        ("1f 41 01 00 ff ff ff ff ff 00", "length runs|exceeds"),
        ("f0 ff ff ff ff", "length runs"),
        ("10 41 01 00", "last literals|before its"),
        ("20 41", "literals run past"),
        ("10 41 01", "inside a match offset"),
        ("10 41", "too few"),
    ],
)
def test_each_fault_of_an_lz4_block_is_named(block: str, why: str) -> None:
    pixels = np.zeros(40, np.uint8)
    with pytest.raises(WireError, match=why):
        decode_guarded(blob_of(bytes.fromhex(block), pixels, Codec.LZ4_BLOCK))


def test_an_output_that_does_not_fit_is_refused() -> None:
    pixels = pixels_of("sparse", 800, "uint16", 9)
    blob = blob_of(encode(pixels), pixels)
    locked = np.empty((1, 800), np.uint16)
    locked.flags.writeable = False
    for out in (np.empty((1, 799), np.uint16), np.empty((1, 1600), np.uint16)[:, ::2], locked):
        with pytest.raises(ValueError, match="out holds"):
            decode_into(blob, out)


def test_a_shape_that_no_detector_has_is_refused_before_it_is_allocated() -> None:
    blob = Blob("", (1 << 20, 1 << 20), "uint32", Codec.BSLZ4, 4, memoryview(b""))
    with pytest.raises(WireError, match="image shape"):
        decode(blob)
