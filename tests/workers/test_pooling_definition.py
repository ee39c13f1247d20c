"""The C pooling of the decoder against the definition in the models' front end."""

import numpy as np
import pytest

from hitfinder.models.frontend import cell_shape, pool_frame
from hitfinder.stream.pooling import pool4, pooled_shape


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (37, 61), (128, 258)])
def test_both_poolings_make_the_same_maps(dtype: str, shape: tuple[int, int]):
    rng = np.random.default_rng(shape[1])
    image = rng.poisson(3, shape).astype(dtype)
    image[rng.random(shape) < 0.05] = np.iinfo(dtype).max
    valid = rng.random(shape) > 0.1
    assert cell_shape(shape) == pooled_shape(shape)
    sums = np.empty(pooled_shape(shape), np.uint32)
    maxima = np.empty_like(sums)
    totals = pool4(image, valid.view(np.uint8), sums, maxima)
    defined = pool_frame(image, valid)
    assert (sums == defined.sums).all()
    assert (maxima == defined.maxima).all()
    assert totals == (defined.n_photons, defined.n_saturated)
