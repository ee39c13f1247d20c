"""A blob's size word must be the shape's; only leniency looks past a faulty 12-byte header."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hitfinder.stream.blob import checked_blob
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec

CODECS = {"bslz4": Codec.BSLZ4, "lz4-raw": Codec.LZ4_BLOCK, "lz4-hdf5": Codec.LZ4_HDF5}


def blob(codec: Codec, payload: bytes, shape: tuple[int, int] = (2, 3)) -> Blob:
    return Blob("t", shape, "uint16", codec, 2, memoryview(payload))


def _recorded(shared: Path) -> list[tuple[dict[str, Any], Blob]]:
    vectors = shared / "protocol" / "vectors"
    listed = json.loads((vectors / "manifest.json").read_text())["blobs"]
    assert len(listed) >= 128
    found = []
    for about in listed:
        payload = memoryview((vectors / about["file"]).read_bytes())
        shape, dtype = (1, math.prod(about["shape"])), np.dtype(about["dtype"]).name
        codec = CODECS.get(about["codec"], Codec.NONE)
        found.append((about, Blob("t", shape, dtype, codec, about["elem_size"], payload)))
    return found


def test_every_recorded_blob_passes_and_is_unchanged(shared: Path) -> None:
    for about, recorded in _recorded(shared):
        if about["name"] == "bslz4_empty":
            with pytest.raises(WireError, match="pixels"):
                checked_blob(recorded)
            continue
        assert checked_blob(recorded) is recorded, about["name"]
        assert checked_blob(recorded, lenient=True) is recorded, about["name"]


def test_every_recorded_blob_of_another_size_is_refused(shared: Path) -> None:
    for about, recorded in _recorded(shared):
        if recorded.codec is not Codec.LZ4_BLOCK and about["name"] != "bslz4_empty":
            with pytest.raises(WireError, match="header says|raw pixels"):
                checked_blob(replace(recorded, shape=(1, recorded.shape[1] + 1)))


def test_a_headerless_spelling_of_each_recorded_blob_is_known_when_lenient(shared: Path) -> None:
    for about, recorded in _recorded(shared):
        has_blocks = recorded.n_bytes >= 8 * recorded.elem_size
        if recorded.codec is Codec.BSLZ4 and has_blocks:
            body = bytes(recorded.payload[12:])
            for payload in (body, bytes(12) + body):
                found = checked_blob(replace(recorded, payload=memoryview(payload)), lenient=True)
                assert (found.has_header, bytes(found.payload)) == (False, body), about["name"]


@pytest.mark.parametrize("codec", [Codec.BSLZ4, Codec.LZ4_HDF5])
@pytest.mark.parametrize("payload", [b"", bytes(11), bytes(12), b"\xff" * 20])
def test_a_wrong_or_missing_size_word_is_refused(codec: Codec, payload: bytes) -> None:
    with pytest.raises(WireError):
        checked_blob(blob(codec, payload))


def test_leniency_is_for_bitshuffle_only() -> None:
    with pytest.raises(WireError, match="header says 0"):
        checked_blob(blob(Codec.LZ4_HDF5, bytes(12)), lenient=True)


@pytest.mark.parametrize("lenient", [False, True])
def test_raw_pixels_are_exactly_as_long_as_the_shape(lenient: bool) -> None:
    assert checked_blob(blob(Codec.NONE, bytes(12)), lenient=lenient).n_bytes == 12
    for n in (0, 11, 13):
        with pytest.raises(WireError, match=f"{n} bytes of raw"):
            checked_blob(blob(Codec.NONE, bytes(n)), lenient=lenient)


def test_an_empty_lz4_block_is_refused() -> None:
    with pytest.raises(WireError, match="empty"):
        checked_blob(blob(Codec.LZ4_BLOCK, b""))


@pytest.mark.parametrize("shape", [(0, 3), (1 << 30, 1 << 30), (-1, -1)])
def test_an_absurd_shape_is_refused_first(shape: tuple[int, int]) -> None:
    with pytest.raises(WireError, match="shape"):
        checked_blob(blob(Codec.NONE, b"", shape))
