"""Pooling and backgrounds: what counts, and what does not disturb them."""

import numpy as np
import pytest
import torch

from hitfinder.models import device_background
from hitfinder.models.device_tables import stack_maps, tables_on
from hitfinder.models.errors import ModelError
from hitfinder.models.frontend import cell_tables, pool_frame
from hitfinder.models.geometry import Geometry

SHAPE = (270, 258)


def naive_pool(image, valid):
    top = np.iinfo(image.dtype).max
    used = np.where(valid & (image != top), image, 0).astype(np.int64)
    rows, columns = range(0, image.shape[0], 4), range(0, image.shape[1], 4)
    sums = [[used[i : i + 4, j : j + 4].sum() for j in columns] for i in rows]
    maxima = [[used[i : i + 4, j : j + 4].max() for j in columns] for i in rows]
    return np.array(sums), np.array(maxima)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_pooled_maps_are_those_of_plain_loops(dtype: str):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 250, (22, 19)).astype(dtype)
    image[3, 4] = image[9, 9] = np.iinfo(dtype).max
    valid = rng.random(image.shape) > 0.1
    valid[3, 4], valid[9, 9] = True, False
    pooled = pool_frame(image, valid)
    sums, maxima = naive_pool(image, valid)
    assert (pooled.sums == sums).all()
    assert (pooled.maxima == maxima).all()
    assert pooled.n_photons == sums.sum()
    assert pooled.n_saturated == 1


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ModelError, match="expected"):
        cell_tables(Geometry.centred(SHAPE), np.ones((3, 3), np.bool_))


def test_a_beam_centre_far_off_the_detector_costs_no_memory():
    geometry = Geometry(SHAPE, (75e-6, 75e-6), (1e9, -1e9))
    tables = cell_tables(geometry, np.ones(SHAPE, np.bool_))
    assert tables.n_rings < 400


@pytest.mark.parametrize("photons_per_px", [0.002, 0.05, 2.0, 20.0])
def test_the_background_is_that_of_the_water_with_and_without_spots(photons_per_px: float):
    rng = np.random.default_rng(2)
    geometry = Geometry.centred(SHAPE)
    radius = np.hypot(
        np.arange(SHAPE[1]) - geometry.beam_center_px[0],
        (np.arange(SHAPE[0]) - geometry.beam_center_px[1])[:, None],
    )
    mean = photons_per_px * np.exp(-radius / 150)
    image = rng.poisson(mean).astype(np.uint16)
    for _ in range(10):
        i, j = rng.integers(8, 240, 2)
        image[i : i + 3, j : j + 3] += rng.poisson(40, (3, 3)).astype(np.uint16)
    valid = np.ones(SHAPE, np.bool_)
    sums, _ = stack_maps([pool_frame(image, valid)], "cpu")
    expected = device_background.estimate(sums, tables_on(cell_tables(geometry, valid)))
    ratio = float(expected.mean_BHW.sum()) / mean.sum()
    assert ratio == pytest.approx(1, abs=4 / np.sqrt(mean.sum()) + 0.01)
    assert float(expected.photons_per_px_B[0]) == pytest.approx(mean.mean() * ratio, rel=1e-3)


def test_a_bright_frame_with_polarisation_leaves_no_false_structure():
    rng = np.random.default_rng(3)
    geometry = Geometry(SHAPE, (600e-6, 600e-6), (128.5, 134.5))
    x = (np.arange(SHAPE[1]) - 128.5) * 600e-6
    y = ((np.arange(SHAPE[0]) - 134.5) * 600e-6)[:, None]
    mean = 50 * (1 - x**2 / (x**2 + y**2 + 0.15**2))
    valid = np.ones(SHAPE, np.bool_)
    sums, _ = stack_maps([pool_frame(rng.poisson(mean).astype(np.uint16), valid)], "cpu")
    expected = device_background.estimate(sums, tables_on(cell_tables(geometry, valid))).mean_BHW[
        0
    ]
    full = expected[:-1, :-1].numpy()
    truth = mean[:268, :256].reshape(67, 4, 64, 4).sum((1, 3))
    assert np.abs(full / truth - 1).max() < 0.12
    assert np.sqrt(np.mean(np.square(full / truth - 1))) < 0.03


def test_frames_of_a_batch_do_not_see_each_other():
    rng = np.random.default_rng(4)
    valid = np.ones(SHAPE, np.bool_)
    tables = tables_on(cell_tables(Geometry.centred(SHAPE), valid))
    frames = [pool_frame(rng.poisson(m, SHAPE).astype(np.uint16), valid) for m in (0.01, 1, 0.1)]
    together = device_background.estimate(stack_maps(frames, "cpu")[0], tables)
    for k, frame in enumerate(frames):
        alone = device_background.estimate(stack_maps([frame], "cpu")[0], tables)
        torch.testing.assert_close(together.mean_BHW[k], alone.mean_BHW[0], rtol=1e-5, atol=0)
        assert (together.counts_BN[k] == alone.counts_BN[0]).all()
