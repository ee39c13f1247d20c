"""The fused pass against decoding and pooling one after the other, and against wrong bytes."""

import struct
from collections.abc import Callable

import bitshuffle
import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.models.image import mask_of
from hitfinder.stream.bslz4 import decode
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Blob, Codec
from hitfinder.stream.pooling import pool4, pooled_shape
from hitfinder.stream.reduction import Reduction

DTYPES = ("uint8", "uint16", "uint32")
FLUXES = (0.0, 0.002, 0.02, 0.2, 2.0, 20.0, 55.0, 70.0, 3000.0)


def bslz4_blob(image: NDArray[np.generic], block_px: int = 0) -> Blob:
    block_px = block_px or 8192 // image.itemsize
    body = bitshuffle.compress_lz4(image.reshape(-1), block_px).tobytes()
    payload = struct.pack(">QI", image.nbytes, block_px * image.itemsize) + body
    shape = (image.shape[0], image.shape[1])
    return Blob("", shape, image.dtype.name, Codec.BSLZ4, image.itemsize, memoryview(payload))


def frame(
    shape: tuple[int, int], dtype: str, flux: float, rng: np.random.Generator
) -> NDArray[np.generic]:
    """Return photons, and now and then bright and saturated pixels."""
    largest = int(np.iinfo(dtype).max)
    image = np.minimum(rng.poisson(flux, shape), largest).astype(np.uint64)
    bright = rng.random(shape) < rng.choice([0.0, 0.0005, 0.05])
    image[bright] = rng.integers(0, largest, int(bright.sum()), np.uint64)
    image[rng.random(shape) < rng.choice([0.0, 0.001, 0.05])] = largest
    image[: int(rng.integers(0, 2)) * shape[0] // 3] = rng.choice([0, largest])
    return image.astype(dtype)


def assert_reduced(reduction: Reduction, blob: Blob, valid: NDArray[np.bool_]) -> None:
    """Reduce and compare with the two steps."""
    image = decode(blob)
    sums, maxima = (np.empty(pooled_shape(blob.shape), np.uint32) for _ in range(2))
    counts = pool4(image, valid.view(np.uint8), sums, maxima)
    reduction.take(blob, mask_of(valid))
    np.testing.assert_array_equal(reduction.sums, sums)
    np.testing.assert_array_equal(reduction.maxima, maxima)
    assert (reduction.n_photons, reduction.n_saturated) == counts
    np.testing.assert_array_equal(reduction.pixels, np.where(valid, image, 0))


@settings(deadline=None, derandomize=True, max_examples=250)
@given(
    dtype=st.sampled_from(DTYPES),
    n_ss=st.integers(1, 30),
    n_fs=st.one_of(st.integers(1, 90), st.integers(1, 200).map(lambda n: 8 * n)),
    block_px=st.one_of(st.just(0), st.integers(1, 40), st.sampled_from((64, 128, 192))),
    valid_fraction=st.sampled_from((1.0, 0.95, 0.5, 0.0)),
    fluxes=st.lists(st.sampled_from(FLUXES), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_frames_reduce_as_they_decode_and_pool(
    dtype: str,
    n_ss: int,
    n_fs: int,
    block_px: int,
    valid_fraction: float,
    fluxes: list[float],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    shape = (n_ss, n_fs)
    reduction = Reduction(shape, dtype)
    for flux in fluxes:
        valid = rng.random(shape) < valid_fraction
        assert_reduced(reduction, bslz4_blob(frame(shape, dtype, flux, rng), 8 * block_px), valid)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_detector_sized_series_reduces_alike_and_masked_pixels_read_0(dtype: str) -> None:
    rng, shape = np.random.default_rng(1), (2162, 2068)
    valid = rng.random(shape) < 0.99
    valid[512:550], valid[:, 1028:1040] = False, False
    reduction = Reduction(shape, dtype)
    for flux in (0.02, 2.0, 0.002, 100.0, 0.2):
        image = np.minimum(rng.poisson(flux, shape), np.iinfo(dtype).max - 1).astype(dtype)
        image[~valid] = np.iinfo(dtype).max
        assert_reduced(reduction, bslz4_blob(image), valid)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bright_square_among_few_photons_reduces_alike(dtype: str) -> None:
    rng, shape = np.random.default_rng(2), (256, 1028)
    valid = np.ones(shape, np.bool_)
    reduction = Reduction(shape, dtype)
    for _ in range(3):
        image = rng.poisson(0.02, shape).astype(dtype)
        image[100:130, 500:580] = np.iinfo(dtype).max - 3
        image[101:105, 510:520] = np.iinfo(dtype).max
        assert_reduced(reduction, bslz4_blob(image), valid)
        image = rng.poisson(0.02, shape).astype(dtype)
        assert_reduced(reduction, bslz4_blob(image), valid)


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.LZ4_BLOCK])
def test_other_codecs_reduce_alike_between_bitshuffled_frames(codec: Codec) -> None:
    rng, shape = np.random.default_rng(3), (40, 520)
    valid = rng.random(shape) < 0.9
    reduction = Reduction(shape, "uint16")
    for _ in range(3):
        image = frame(shape, "uint16", 0.2, rng)
        raw = image.tobytes()
        payload = raw if codec is Codec.NONE else lz4.block.compress(raw, store_size=False)
        assert_reduced(reduction, Blob("", shape, "uint16", codec, 2, memoryview(payload)), valid)
        assert_reduced(reduction, bslz4_blob(frame(shape, "uint16", 0.02, rng)), valid)


def test_sums_of_uint32_stay_at_the_largest_and_photons_do_not() -> None:
    image = np.zeros((8, 512), np.uint32)
    image[0, 0:2], image[0, 2], image[5] = 2**32 - 2, 5, 2**31
    reduction = Reduction((8, 512), "uint32")
    reduction.take(bslz4_blob(image), mask_of(np.ones(image.shape, np.bool_)))
    assert reduction.sums[0, 0] == 2**32 - 1
    assert reduction.maxima[0, 0] == 2**32 - 2
    assert reduction.n_photons == int(image.sum(dtype=np.uint64))


def damaged(blob: Blob, rng: np.random.Generator) -> Blob:
    """Return the blob cut, lengthened, or with bytes changed behind its header."""
    payload = bytearray(blob.payload)
    kind = rng.integers(0, 4)
    if kind == 0:
        payload = payload[: int(rng.integers(0, len(payload)))]
    elif kind == 1:
        payload += rng.bytes(int(rng.integers(1, 40)))
    else:
        for _ in range(int(rng.integers(1, 9))):
            payload[int(rng.integers(8, len(payload)))] = int(rng.integers(0, 256))
    return Blob("", blob.shape, blob.dtype, blob.codec, blob.elem_size, memoryview(payload))


def what_is_wrong(step: Callable[[], object]) -> str | None:
    try:
        step()
    except WireError as error:
        return str(error)
    return None


@pytest.mark.parametrize("dtype", DTYPES)
def test_damaged_bytes_reduce_as_they_decode_or_are_the_same_wire_error(dtype: str) -> None:
    rng, shape = np.random.default_rng(4), (24, 264)
    reduction, valid = Reduction(shape, dtype), rng.random(shape) < 0.9
    n_refused = 0
    for k in range(600):
        blob = damaged(bslz4_blob(frame(shape, dtype, 0.1, rng), 512), rng)
        wrong = what_is_wrong(lambda blob=blob: decode(blob))
        if wrong is None:
            assert_reduced(reduction, blob, valid)
        else:
            n_refused += 1
            assert what_is_wrong(lambda blob=blob: reduction.take(blob, mask_of(valid))) == wrong
        if k % 8 == 0:  # what the wrong ones left behind does not shine through
            whole = bslz4_blob(frame(shape, dtype, 0.02, rng), 512)
            assert_reduced(reduction, whole, valid)
    assert n_refused > 100


def test_a_frame_of_another_shape_or_type_is_refused() -> None:
    reduction = Reduction((8, 16), "uint16")
    mask = mask_of(np.ones((8, 16), np.bool_))
    for shape, dtype in (((16, 8), "uint16"), ((8, 16), "uint8")):
        with pytest.raises(ValueError, match="expected"):
            reduction.take(bslz4_blob(np.zeros(shape, dtype)), mask)
    with pytest.raises(ValueError, match="not fit"):
        reduction.take(bslz4_blob(np.zeros((8, 16), np.uint16)), mask[:1])
