"""The weight-free peak finder."""

import numpy as np
import pytest

from hitfinder.models.classical import ClassicalSettings, find_peaks
from hitfinder.models.geometry import Geometry

SHAPE = (300, 280)
GEOMETRY = Geometry.centred(SHAPE)
VALID = np.ones(SHAPE, np.bool_)
PLANTED = np.array([(40, 50), (150, 60), (90, 200), (250, 250), (201, 110)])


def frame(seed: int, photons_per_px: float = 0.2):
    rng = np.random.default_rng(seed)
    image = rng.poisson(photons_per_px, SHAPE).astype(np.uint16)
    for i, j in PLANTED:
        image[i - 1 : i + 2, j - 1 : j + 2] += rng.poisson(15, (3, 3)).astype(np.uint16)
    return image


@pytest.mark.parametrize("photons_per_px", [0.01, 0.2, 2.0])
def test_planted_peaks_are_found_where_they_are(photons_per_px: float):
    peaks = find_peaks(frame(1, photons_per_px), VALID, GEOMETRY)
    found = np.stack((peaks.ss, peaks.fs), axis=1)
    apart = np.abs(PLANTED[:, None] - found[None]).max(axis=2)
    assert (apart.min(axis=1) < 1).all()
    assert len(found) <= len(PLANTED) + 1
    np.testing.assert_allclose(peaks.intensity[: len(PLANTED)], 135, rtol=0.35)
    assert (np.diff(peaks.snr) <= 0).all()


def test_blanks_hold_few_peaks_and_empty_frames_none():
    rng = np.random.default_rng(2)
    image = rng.poisson(0.2, SHAPE).astype(np.uint16)
    assert len(find_peaks(image, VALID, GEOMETRY)) <= 1
    assert len(find_peaks(np.zeros_like(image), VALID, GEOMETRY)) == 0


def test_sizes_resolution_and_masks_bound_the_peaks():
    image = frame(3)
    image[20, 20] = 900
    image[100:108] = 65535
    assert len(find_peaks(image, VALID, GEOMETRY)) == len(PLANTED)
    one_px = ClassicalSettings(min_pix_count=1, threshold=40)
    single = find_peaks(image, VALID, GEOMETRY, one_px)
    assert (single.ss.tolist(), single.fs.tolist()) == ([20], [20])
    assert len(find_peaks(image, VALID, GEOMETRY, ClassicalSettings(max_pix_count=3))) == 0
    inner = find_peaks(image, VALID, GEOMETRY, ClassicalSettings(max_res_px=70))
    assert len(inner) == 1
    valid = VALID.copy()
    valid[30:50, 40:60] = False
    assert len(find_peaks(image, valid, GEOMETRY)) == len(PLANTED) - 1
