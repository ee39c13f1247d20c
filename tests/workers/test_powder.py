"""Sums of frames: a mean per pixel that counted, also when a pixel stops counting."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hitfinder.workers.powder import RING_PX, Powder, SeriesPixels, rings_of

SHAPE = (64, 80)


def sums_of(image: NDArray[np.uint32], valid: NDArray[np.bool_]) -> NDArray[np.uint32]:
    kept = np.where(valid, image, 0).astype(np.uint32)
    return kept.reshape(SHAPE[0] // 4, 4, SHAPE[1] // 4, 4).sum(axis=(1, 3), dtype=np.uint32)


def test_the_mean_counts_only_pixels_that_count() -> None:
    valid = np.ones(SHAPE, np.bool_)
    valid[0:4, 0:2] = False  # half a cell
    valid[4:8, 0:4] = False  # a whole one
    powder = Powder(SeriesPixels(valid))
    for counts in (2, 4):
        powder.add(sums_of(np.full(SHAPE, counts, np.uint32), valid))
    mean = powder.per_px()
    assert np.isnan(mean[1, 0])
    mean[1, 0] = 3.0
    assert np.all(mean == 3.0)


def test_a_pixel_found_to_be_hot_takes_its_cells_past_with_it() -> None:
    valid = np.ones(SHAPE, np.bool_)
    powder = Powder(SeriesPixels(valid))
    image = np.ones(SHAPE, np.uint32)
    image[9, 9] = 5000
    powder.add(sums_of(image, valid))
    known = valid.copy()
    known[9, 9] = False
    powder.know(SeriesPixels(known))
    assert np.isnan(powder.per_px()[2, 2])
    powder.add(sums_of(image, known))
    assert np.all(powder.per_px() == 1.0)


@pytest.mark.parametrize("center_px", [(40.0, 32.0), (-300.0, 10.0), (0.0, 20_000.0)])
def test_the_profile_follows_the_radius(center_px: tuple[float, float]) -> None:
    valid = np.ones(SHAPE, np.bool_)
    ss, fs = np.indices(SHAPE)
    radius_px = np.hypot(ss - center_px[1], fs - center_px[0])
    powder = Powder(SeriesPixels(valid))
    powder.add(sums_of((10 + radius_px / 10).astype(np.uint32), valid))
    profile = powder.profile(rings_of(SHAPE, center_px))
    there = np.flatnonzero(np.isfinite(profile))
    assert there[0] == int((radius_px.min() + 2) // RING_PX)
    expected = 10 + (there + 0.5) * RING_PX / 10
    assert np.allclose(profile[there], expected, atol=1.5)
