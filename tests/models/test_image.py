"""A frame as lit bit planes against the same as pixels, through everything that reads either."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.models.errors import ModelError
from hitfinder.models.frontend import pool_again, pool_frame
from hitfinder.models.image import (
    Image,
    LitPlanes,
    counts_at,
    mask_of,
    saturated_pixels,
    valid_at,
)
from hitfinder.models.places import log_ratios
from hitfinder.models.spots import locate

F = np.float32
DTYPES = ("uint8", "uint16", "uint32")


def planes_of(image: NDArray[np.unsignedinteger]) -> LitPlanes:
    """Return the planes of an image, as a decoder leaves them."""
    n_steps, n_planes = -(-image.size // 512), 8 * image.itemsize
    pixels = np.zeros(n_steps * 512, image.dtype)
    pixels[: image.size] = image.reshape(-1)
    each = pixels.reshape(n_steps, 1, 512) >> np.arange(n_planes, dtype=image.dtype)[:, None] & 1
    packed = np.packbits(each.astype(np.uint8), axis=2, bitorder="little")
    is_lit = packed.any(axis=2)
    n_lit = is_lit.sum(1)
    named = (is_lit.astype(np.uint64) << np.arange(n_planes, dtype=np.uint64)).sum(1)
    steps = np.stack((np.cumsum(n_lit) - n_lit, named), axis=1).astype(np.uint32)
    # Readers find nothing behind the last plane.
    return LitPlanes(packed[is_lit], steps, (image.shape[0], image.shape[1]), image.dtype)


def frame(
    shape: tuple[int, int], dtype: str, flux: float, rng: np.random.Generator
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]]:
    """Return photons with bright and saturated pixels among them, 0 where the mask has none."""
    top = int(np.iinfo(dtype).max)
    image = np.minimum(rng.poisson(flux, shape), top - 1).astype(np.uint64)
    bright = rng.random(shape) < 0.01
    image[bright] = rng.choice([253, 254, 255, 256, 1000, top - 1, top], int(bright.sum())) % (
        top + 1
    )
    valid = rng.random(shape) < rng.choice([1.0, 0.9])
    image[~valid] = 0
    return image.astype(dtype), valid


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 150)),
    flux=st.sampled_from((0.0, 0.02, 0.5, 20.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_planes_read_as_their_pixels(
    dtype: str, shape: tuple[int, int], flux: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image, valid = frame(shape, dtype, flux, rng)
    planes, mask = planes_of(image), mask_of(valid)
    pixels = rng.integers(0, image.size, (3, 40))
    np.testing.assert_array_equal(counts_at(image, pixels), image.reshape(-1)[pixels])
    np.testing.assert_array_equal(counts_at(planes, pixels), image.reshape(-1)[pixels])
    np.testing.assert_array_equal(valid_at(mask, pixels), valid.reshape(-1)[pixels])
    full = np.flatnonzero((image == np.iinfo(dtype).max) & valid)
    np.testing.assert_array_equal(saturated_pixels(planes, valid, len(full)), full)
    valid.reshape(-1)[full[::2]] = False
    np.testing.assert_array_equal(saturated_pixels(planes, valid, len(full) // 2), full[1::2])
    valid.reshape(-1)[full] = True
    np.testing.assert_array_equal(saturated_pixels(image, valid, image.size), full)


def looked_at(image: Image, mask: NDArray[np.uint64], at: NDArray[F]) -> list[NDArray[F]]:
    """Return what is said of places and of spots around some pixels, (2, n) ss and fs."""
    n = at.shape[1]
    boxes = np.stack((*(at / 4), np.full(n, 2.0, F), np.full(n, 4.0, F))).astype(F)
    said = log_ratios(image, mask, boxes, (20.0, 30.0), trust_bright_pixels=True)
    one = np.ones(n, F)
    spots = locate(image, mask, at[0], at[1], one, one / 8, one)
    return [*said, spots.fs, spots.ss, spots.intensity, spots.snr]


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 200)),
    flux=st.sampled_from((0.02, 0.5, 20.0)),
    seed=st.integers(0, 2**32 - 1),
)
def test_places_and_spots_are_the_same_in_planes_and_in_pixels(
    dtype: str, shape: tuple[int, int], flux: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image, valid = frame(shape, dtype, flux, rng)
    at = (rng.random((2, 12)) * np.array(shape)[:, None]).astype(F)
    in_pixels = looked_at(image, mask_of(valid), at)
    in_planes = looked_at(planes_of(image), mask_of(valid), at)
    for one, other in zip(in_pixels, in_planes, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_maps_without_some_pixels_are_those_of_the_smaller_mask(dtype: str) -> None:
    rng = np.random.default_rng(5)
    image, valid = frame((37, 90), dtype, 0.5, rng)
    before = pool_frame(image, valid)
    gone = rng.permutation(np.flatnonzero(valid))[:200]
    valid.reshape(-1)[gone] = False
    expected = pool_frame(image, valid)
    for shown in (image, planes_of(image)):
        found = pool_again(before, shown, valid, gone)
        np.testing.assert_array_equal(found.sums, expected.sums)
        np.testing.assert_array_equal(found.maxima, expected.maxima)
        assert (found.n_photons, found.n_saturated) == (expected.n_photons, expected.n_saturated)


def test_what_does_not_fit_is_refused_or_dark() -> None:
    image = np.ones((8, 64), np.uint16)
    planes, first = planes_of(image), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="outside the image"):
        counts_at(planes, first + 8 * 64)
    with pytest.raises(ValueError, match="do not fit"):
        counts_at(LitPlanes(planes.planes, planes.steps, (8, 128), image.dtype), first)
    with pytest.raises(ValueError, match="do not fit"):
        looked_at(planes, mask_of(np.ones((8, 8), np.bool_)), np.ones((2, 1), F))
    with pytest.raises(ModelError, match="without its maps"):
        pool_frame(planes, np.ones((8, 64), np.bool_))
    beyond = LitPlanes(
        planes.planes, planes.steps + np.array([7, 0], np.uint32), (8, 64), image.dtype
    )
    assert counts_at(beyond, first)[0] == 0
