"""The simulator's blobs against the format note's examples and foreign decoders."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import dectris.compression
import h5py
import hdf5plugin  # noqa: F401  (registers the HDF5 filters)
import numpy as np
import pytest
from numpy.typing import NDArray

from hitfinder.sim import encoding
from hitfinder.sim.encoding import Encoder, EncodingError, unpack

ONE_TO_NINE = np.arange(1, 10, dtype=np.uint16)
SHAPES = [(1, 1), (1, 3), (1, 8), (3, 5), (64, 64), (61, 83), (67, 1031)]


def pixels(shape: tuple[int, int], dtype: str) -> NDArray[Any]:
    rng = np.random.default_rng(shape[0] * 1000 + shape[1])
    image = rng.poisson(0.5, shape).astype(dtype)
    image[rng.random(shape) < 0.1] = np.iinfo(dtype).max
    image[: shape[0] // 3] = rng.integers(0, np.iinfo(dtype).max, image[: shape[0] // 3].shape)
    return image


def test_nine_counts_make_the_blob_of_the_worked_example():
    expected = "000000000000001200002000 00000012 f001 55667880 000000000000000000000000 0900"
    assert encoding.bslz4(ONE_TO_NINE) == bytes.fromhex(expected)


def test_fewer_than_eight_counts_make_a_blob_without_a_block():
    expected = "0000000000000006 00002000 070008000900"
    assert encoding.bslz4(np.array([7, 8, 9], np.uint16)) == bytes.fromhex(expected)


def test_no_pixels_make_a_header_alone():
    blob = encoding.bslz4(np.zeros(0, np.uint16))
    assert blob == bytes.fromhex("0000000000000000 00002000")


def test_the_two_lz4_formats_of_the_worked_examples_differ():
    raw = ONE_TO_NINE.tobytes()
    header = bytes.fromhex("0000000000000012 00000012 00000012")
    assert encoding.lz4_hdf5(raw) == header + raw
    assert encoding.lz4_block(raw) == bytes.fromhex("f003") + raw


@pytest.mark.parametrize("block_bytes", [0, 64, 4096])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_the_makers_decoder_reads_what_is_packed(dtype, shape, block_bytes):
    image = pixels(shape, dtype)
    shuffled = Encoder("v2", "bslz4", dtype, block_bytes)(image)
    framed = Encoder("v2", "lz4", dtype, block_bytes)(image)
    decompress = dectris.compression.decompress
    elem_size = image.dtype.itemsize
    assert decompress(shuffled.payload, "bslz4", elem_size=elem_size) == image.tobytes()
    assert decompress(framed.payload, "lz4") == image.tobytes()


@pytest.mark.parametrize(("compression", "filter_id"), [("bslz4", 32008), ("lz4", 32004)])
def test_hdf5_filters_read_the_blobs_as_chunks(compression, filter_id):
    image = pixels((61, 83), "uint16")
    blob = Encoder("v2", compression, "uint16")(image)
    with h5py.File(BytesIO(), "w") as file:
        create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        create.set_chunk(image.shape)
        create.set_filter(filter_id, h5py.h5z.FLAG_MANDATORY, (0, 2))
        space = h5py.h5s.create_simple(image.shape)
        made = h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT16, space, create)
        made.write_direct_chunk((0, 0), blob.payload)
        assert np.array_equal(file["x"][()], image)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
@pytest.mark.parametrize("compression", ["bslz4", "lz4", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_what_is_packed_here_is_unpacked_here(dtype, compression, protocol):
    image = pixels((61, 83), dtype)
    packed = Encoder(protocol, compression, dtype)(image)
    assert packed.shape == (61, 83)
    assert np.array_equal(unpack(packed), image)


def test_a_real_frame_is_packed_to_the_bytes_a_real_detector_sent(shared: Path):
    folder = shared / "protocol" / "vectors" / "streams" / "v1_real_eiger1_4m_image"
    payload = (folder / "m000_p2.bin").read_bytes()
    image = dectris.compression.decompress(payload, "bslz4", elem_size=2)
    counts = np.frombuffer(image, np.uint16).reshape(2167, 2070)
    packed = Encoder("v1", "bslz4", "uint16")(counts)
    assert packed.payload[:12] == payload[:12]
    assert abs(len(packed.payload) - len(payload)) < 0.01 * len(payload)
    assert np.array_equal(unpack(packed), counts)


def test_big_endian_or_sliced_images_are_sent_as_the_same_counts():
    image = pixels((64, 64), "uint16")
    plain = Encoder("v2", "none", "uint16")
    assert plain(image.astype(">u2")).payload == image.tobytes()
    assert plain(image[:, ::2]).payload == np.ascontiguousarray(image[:, ::2]).tobytes()


def test_another_pixel_type_than_announced_is_refused():
    with pytest.raises(EncodingError, match="float64 .* expected 2-D uint16"):
        Encoder("v2", "bslz4", "uint16")(np.zeros((4, 4)))


def test_a_block_that_splits_a_group_of_eight_is_refused():
    with pytest.raises(EncodingError, match="multiple of 8 elements"):
        encoding.bslz4(ONE_TO_NINE, block_bytes=24)
