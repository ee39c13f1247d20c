"""One definition of the front end, two implementations: the C kernel equals the torch one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hitfinder.models.frontend import pool_frame
from hitfinder.workers.reduction import pool


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(["uint8", "uint16", "uint32"]),
    st.integers(1, 41),
    st.integers(1, 41),
    st.floats(0.0, 300.0),
    st.integers(0, 2**32 - 1),
)
def test_the_kernel_makes_the_maps_that_the_definition_makes(
    dtype: str, n_ss: int, n_fs: int, mean: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    image = np.minimum(rng.poisson(mean, (n_ss, n_fs)), top).astype(dtype)
    image[rng.random(image.shape) < 0.05] = top
    valid = rng.random(image.shape) < 0.9
    by_kernel, by_definition = pool(image, valid), pool_frame(image, valid)
    np.testing.assert_array_equal(by_kernel.sums, by_definition.sums)
    np.testing.assert_array_equal(by_kernel.maxima, by_definition.maxima)
    assert by_kernel.n_photons == by_definition.n_photons
    assert by_kernel.n_saturated == by_definition.n_saturated


def test_a_whole_detector_pools_alike() -> None:
    rng = np.random.default_rng(3)
    image = rng.poisson(0.02, (2162, 2068)).astype(np.uint16)
    image[512:550] = 65535
    valid = np.ones(image.shape, bool)
    by_kernel, by_definition = pool(image, valid), pool_frame(image, valid)
    np.testing.assert_array_equal(by_kernel.sums, by_definition.sums)
    np.testing.assert_array_equal(by_kernel.maxima, by_definition.maxima)
    assert by_kernel.n_saturated == pytest.approx(38 * 2068)
