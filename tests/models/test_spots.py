"""Spots at full resolution: the compiled positions and intensities against the plain rule."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.models import spots
from hitfinder.models.image import mask_of
from hitfinder.models.spots import locate

SHAPE = (96, 90)
REACH_PX = 14


def plain(image, valid, ss: float, fs: float, sigma: float, background: float):
    """Return position, intensity and SNR as the docstring of the module tells them."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    near = np.maximum(abs(row - np.rint(ss)), abs(column - np.rint(fs))) <= REACH_PX
    used = near & valid & (image != np.iinfo(image.dtype).max)
    counts = np.where(used, image, 0).astype(np.float64)
    excess = np.where(used, counts - background, 0)
    kernel = max(sigma, spots.MIN_KERNEL_PX)
    corner = np.rint(ss) - REACH_PX, np.rint(fs) - REACH_PX
    for _ in range(spots.N_SHIFTS):
        weight = excess * np.exp(-(((row - ss) ** 2 + (column - fs) ** 2) / (2 * kernel**2)))
        if weight.sum() > 0:
            ss = float(np.clip((weight * row).sum() / weight.sum(), *(corner[0] + (2, 26))))
            fs = float(np.clip((weight * column).sum() / weight.sum(), *(corner[1] + (2, 26))))
    disc_px = np.clip(spots.DISC_SIGMA * sigma, spots.MIN_DISC_PX, spots.MAX_DISC_PX)
    apart = np.hypot(row - ss, column - fs)
    # Rounding decides on which side of a ring's edge a pixel on it lies.
    edges = disc_px, disc_px + spots.GAP_PX, REACH_PX
    assume(min(abs(apart - edge).min() for edge in edges) > 1e-3)
    disc = used & (apart <= disc_px)
    ring = used & (apart > disc_px + spots.GAP_PX) & (apart <= REACH_PX)
    area_out = ring.sum() + spots.PRIOR_PHOTONS / max(background, 1e-6)
    local = (counts[ring].sum() + spots.PRIOR_PHOTONS) / area_out
    n_in, area_in = counts[disc].sum(), disc.sum()
    intensity = n_in - local * area_in
    return ss, fs, intensity, intensity / np.sqrt(max(n_in, 1) + area_in**2 * local / area_out)


def column(value: float) -> NDArray[np.float32]:
    return np.array([value], np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["uint8", "uint16", "uint32"]),
    mean=st.sampled_from([0.004, 0.3, 5.0]),
    masked=st.sampled_from([0.0, 0.2]),
    sigma=st.sampled_from([0.35, 1.8, 4.2]),
)
@settings(max_examples=60, deadline=None)
def test_a_place_becomes_the_spot_that_the_plain_rule_finds(
    seed: int, dtype: str, mean: float, masked: float, sigma: float
):
    rng = np.random.default_rng(seed)
    image = rng.poisson(mean, SHAPE).astype(dtype)
    # Some lie at the detector's edge.
    ss, fs = (float(rng.integers(0, n)) for n in SHAPE)
    for photon in rng.normal((ss, fs), sigma, (rng.integers(20, 200), 2)):
        at = np.clip(np.rint(photon).astype(int), 0, np.array(SHAPE) - 1)
        image[tuple(at)] += image[tuple(at)] < 250
    image[0, 0] = np.iinfo(dtype).max
    valid = rng.random(SHAPE) >= masked
    expected = plain(image, valid, ss, fs, sigma, mean)
    given_ = (column(v) for v in (ss, fs, sigma, mean, 0.9))
    found = locate(image, mask_of(valid), *given_)
    if expected[2] <= 0:
        assert len(found) == 0
        return
    assert (found.ss[0], found.fs[0]) == pytest.approx(expected[:2], abs=5e-4)
    assert found.intensity[0] == pytest.approx(expected[2], rel=1e-4, abs=1e-3)
    assert found.snr[0] == pytest.approx(expected[3], rel=1e-4, abs=1e-3)
    assert found.p[0] == np.float32(0.9)


def test_the_stronger_of_two_places_at_one_spot_stays():
    image = np.zeros(SHAPE, np.uint16)
    image[40:43, 40:43] = 20
    ss, fs, p = (np.array(v, np.float32) for v in ((41, 42, 70), (41, 40, 70), (0.9, 0.8, 0.7)))
    one, low = np.ones(3, np.float32), np.full(3, 0.01, np.float32)
    found = locate(image, mask_of(np.ones(SHAPE, np.bool_)), ss, fs, one, low, p)
    assert found.p.tolist() == [np.float32(0.9)]
    assert (found.ss[0], found.fs[0]) == pytest.approx((41, 41), abs=1e-3)
    assert found.intensity[0] == pytest.approx(180, rel=0.01)


def test_a_place_off_the_image_is_no_spot():
    far = column(1e9)
    image = np.ones(SHAPE, np.uint16)
    assert not len(
        locate(image, mask_of(np.ones(SHAPE, np.bool_)), far, far, column(1), column(1), far)
    )
