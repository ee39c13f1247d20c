"""Pooled maps against plain numpy, on odd shapes, all pixel types, dim and bright frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.stream.pooling import pool4, pooled_shape

DTYPES = ("uint8", "uint16", "uint32")
Maps = tuple[NDArray[np.uint32], NDArray[np.uint32], int, int]


def pool4_in_numpy(image: NDArray[np.generic], valid: NDArray[np.uint8]) -> Maps:
    is_full = (valid != 0) & (image == np.iinfo(image.dtype).max)
    n_ss, n_fs = pooled_shape((image.shape[0], image.shape[1]))
    padded = np.zeros((4 * n_ss, 4 * n_fs), np.uint64)
    padded[: image.shape[0], : image.shape[1]] = np.where((valid != 0) & ~is_full, image, 0)
    fields = padded.reshape(n_ss, 4, n_fs, 4)
    sums = np.minimum(fields.sum((1, 3)), 2**32 - 1).astype(np.uint32)
    return sums, fields.max((1, 3)).astype(np.uint32), int(padded.sum()), int(is_full.sum())


def pooled(image: NDArray[np.generic], valid: NDArray[np.uint8]) -> Maps:
    shape = pooled_shape((image.shape[0], image.shape[1]))
    sums, maxima = np.full(shape, 77, np.uint32), np.full(shape, 78, np.uint32)
    n_photons, n_saturated = pool4(image, valid, sums, maxima)
    return sums, maxima, n_photons, n_saturated


def assert_same(ours: Maps, theirs: Maps) -> None:
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
    assert ours[2:] == theirs[2:]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    n_ss=st.integers(1, 14),
    n_fs=st.integers(1, 150),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(("dim", "spots", "gaps", "bright", "any")),
    valid_fraction=st.sampled_from((1.0, 0.95, 0.5, 0.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_maxima_and_counts_equal_numpy(
    n_ss: int, n_fs: int, dtype: str, kind: str, valid_fraction: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    largest = int(np.iinfo(dtype).max)
    image = rng.poisson(0.3, (n_ss, n_fs)).astype(np.uint64)
    if kind == "spots":
        image[rng.random(image.shape) < 0.02] = largest // int(rng.integers(1, 9)) - 1
    elif kind == "gaps":
        image[rng.random(image.shape) < 0.1] = largest
    elif kind == "bright":
        image[:] = largest - 1
    elif kind == "any":
        image = rng.integers(0, largest, image.shape, np.uint64, endpoint=True)
    valid = (rng.random(image.shape) < valid_fraction).astype(np.uint8)
    pixels = image.astype(dtype)
    assert_same(pooled(pixels, valid), pool4_in_numpy(pixels, valid))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_detector_sized_frame_equals_numpy(dtype: str) -> None:
    rng = np.random.default_rng(1)
    image = rng.poisson(0.2, (2162, 2068)).astype(dtype)
    image[512:550] = np.iinfo(dtype).max
    valid = (rng.random(image.shape) < 0.99).astype(np.uint8)
    assert_same(pooled(image, valid), pool4_in_numpy(image, valid))


def test_sums_of_uint32_stay_at_the_largest_and_photons_do_not() -> None:
    image = np.full((5, 40), 2**32 - 2, np.uint32)
    sums, maxima, n_photons, n_saturated = pooled(image, np.ones_like(image, np.uint8))
    assert (sums == 2**32 - 1).all()
    assert (maxima == 2**32 - 2).all()
    assert (n_photons, n_saturated) == (image.size * (2**32 - 2), 0)


def test_nothing_outside_the_maps_is_written() -> None:
    image = np.ones((9, 70), np.uint16)
    valid = np.ones_like(image, np.uint8)
    memory = np.full(3 * 18 + 32, 5, np.uint32)
    maps = memory[16:-16].reshape(3, 18)
    pool4(image, valid, maps, np.empty_like(maps))
    assert (memory[:16] == 5).all()
    assert (memory[-16:] == 5).all()
    assert int(maps.sum()) == image.size


@pytest.mark.parametrize("wrong", ["image", "valid", "sums", "maxima", "dtype", "strided"])
def test_arrays_that_do_not_fit_each_other_are_refused(wrong: str) -> None:
    image, valid = np.zeros((8, 12), np.uint16), np.ones((8, 12), np.uint8)
    sums, maxima = np.zeros((2, 3), np.uint32), np.zeros((2, 3), np.uint32)
    if wrong == "image":
        image = image.ravel()
    elif wrong == "valid":
        valid = valid[:4]
    elif wrong == "sums":
        sums = np.zeros((2, 4), np.uint32)
    elif wrong == "maxima":
        maxima = np.zeros((2, 3), np.float32)  # type: ignore[assignment]
    elif wrong == "dtype":
        image = image.astype(np.int16)
    else:
        image = np.zeros((8, 24), np.uint16)[:, ::2]
    with pytest.raises((ValueError, BufferError)):
        pool4(image, valid, sums, maxima)
