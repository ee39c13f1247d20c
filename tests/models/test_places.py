"""Places at full resolution: the compiled likelihood ratios against their definition."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.models import places
from hitfinder.models.gate import GateNet
from hitfinder.models.host_gate import HostGate
from hitfinder.models.image import mask_of
from hitfinder.models.places import WIDTHS_PX, log_ratios, look_closer

Array = NDArray[np.float64]


def column(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def share_map(width: int, ss: int, fs: int, shape: tuple[int, int]) -> Array:
    """Return the share of a spot's photons in each pixel."""
    wide = np.sqrt(WIDTHS_PX[width] ** 2 + places.BLUR2_PX2)
    reach = min(int(np.ceil(places.REACH_SIGMA * wide)), places.MAX_REACH_PX)
    span = np.arange(-reach, reach + 1)
    d2 = np.square(span)[:, None] + np.square(span)
    kernel = np.where(d2 <= reach**2, np.exp(-d2 / (2 * wide**2)), 0.0)
    kernel /= kernel.sum()
    out = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach))
    out[ss : ss + 2 * reach + 1, fs : fs + 2 * reach + 1] = kernel
    return out[reach : reach + shape[0], reach : reach + shape[1]]


def defined_ratio(
    counts: Array, seen: NDArray[np.bool_], width: int, ss: int, fs: int, background: float
) -> float:
    """Return the log likelihood ratio of a spot here, averaged over intensities."""
    share = share_map(width, ss, fs, (counts.shape[0], counts.shape[1]))
    each = [
        np.log(prior)
        + (counts * np.log1p(intensity * share / background))[seen].sum()
        - intensity * (1 - share[~seen].sum())
        for intensity, prior in zip(places.INTENSITIES, places.PRIOR, strict=True)
    ]
    return float(np.logaddexp.reduce(each))


@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["uint8", "uint16", "uint32"]),
    mean=st.sampled_from([0.004, 0.04, 2.0]),
    masked=st.sampled_from([0.0, 0.1]),
)
@settings(max_examples=40, deadline=None)
def test_a_place_is_worth_what_the_definition_says_at_the_pixel_it_names(
    seed: int, dtype: str, mean: float, masked: float
):
    rng = np.random.default_rng(seed)
    image = rng.poisson(mean, (47, 41)).astype(dtype)
    ss, fs = int(rng.integers(16, 28)), int(rng.integers(16, 24))
    for photon in rng.normal((ss, fs), 1.5, (rng.integers(2, 40), 2)):
        image[tuple(np.rint(photon).astype(int))] += 1
    seen = rng.random(image.shape) >= masked
    image[0, 0] = np.iinfo(dtype).max
    boxes = np.stack((column(ss // 4), column(fs // 4), column(mean * 16), column(4)))
    ratio, found = log_ratios(
        image, mask_of(seen), boxes, (float(fs), float(ss)), trust_bright_pixels=True
    )
    seen &= image != np.iinfo(dtype).max
    width = int(found[0, 2])
    level = np.rint((np.log2(found[0, 4]) + 20) * 16)
    at = int(found[0, 0]), int(found[0, 1])
    # Only what lies within 14 pixels of the box is looked at.
    middle = np.array((ss // 4, fs // 4)) * 4 + 2
    assume(np.abs(np.array(at) - middle).max() + places.ratio_table().reach[width] <= 14)
    expected = defined_ratio(image.astype(float), seen, width, *at, 2 ** (level / 16 - 20))
    expected -= np.log(max(image.size / max(1.0, 4 * WIDTHS_PX[width] ** 2), 1.0))
    assert width == int(ratio[0].argmax())
    assert ratio[0, width] == pytest.approx(expected, rel=1e-3, abs=2e-3)
    n_seen = seen[ss // 4 * 4 : ss // 4 * 4 + 4, fs // 4 * 4 : fs // 4 * 4 + 4].sum()
    assert found[0, 4] == pytest.approx(mean * 16 / max(n_seen, 1), rel=1e-5)


def spot(n: int, sigma_px: float, seed: int = 1) -> NDArray[np.uint16]:
    """Return a frame with n photons of a spot at (60, 70)."""
    rng = np.random.default_rng(seed)
    image = rng.poisson(0.01, (128, 128)).astype(np.uint16)
    for photon in rng.normal((60, 70), sigma_px, (n, 2)):
        image[tuple(np.rint(photon).astype(int))] += 1
    return image


def looked_at(image: NDArray[np.uint16], *, trust: bool = True) -> places.Places:
    boxes = np.stack([column(v) for v in (3.0, 3.0, 15.0, 17.0, 0.16, 4.0)])
    every = np.ones(image.shape, np.bool_)
    return look_closer(image, mask_of(every), boxes, (64.0, 64.0), trust)


@pytest.mark.parametrize("sigma_px", [1.0, 2.8, 4.2])
def test_a_spot_is_found_where_it_is_and_as_wide_as_it_is(sigma_px: float):
    found = looked_at(spot(60, sigma_px))
    assert np.hypot(found.ss[0] - 60, found.fs[0] - 70) < 1.5
    assert found.sigma_px[0] == pytest.approx(sigma_px, rel=0.6)
    assert found.features[0, 1:6].max() > 20


def test_more_photons_are_worth_more_and_none_less_than_nothing():
    worth = [looked_at(spot(n, 1.8)).features[0, 1:6].max() for n in (0, 5, 10, 20, 40)]
    assert (np.diff(worth) > 0).all()
    assert worth[0] < 0


def test_a_lone_bright_pixel_is_nothing_until_hot_pixels_are_known():
    image = spot(0, 1.0)
    image[60, 70] = 500
    assert looked_at(image).features[0, 1:6].max() > 20
    assert looked_at(image, trust=False).features[0, 1:6].max() < 0
    # Neighbours vouch for a spot's brightest pixel.
    assert looked_at(spot(60, 1.0), trust=False).features[0, 1:6].max() > 20


def test_a_spot_at_a_gap_counts_what_can_be_seen():
    image, valid = spot(40, 1.8), np.ones((128, 128), np.bool_)
    image[:, 71:83] = 65535
    valid[:, 71:83] = False
    boxes = np.stack([column(v) for v in (3.0, 3.0, 15.0, 17.0, 0.16, 4.0)])
    found = look_closer(image, mask_of(valid), boxes, (64.0, 64.0), True)
    assert found.features[0, 1:6].max() > 10
    assert abs(found.ss[0] - 60) < 2


def test_a_powder_ring_is_no_spot_and_a_spot_on_it_is_one():
    rng = np.random.default_rng(3)
    ss, fs = np.mgrid[:400, :400]
    beyond = np.hypot(ss - 30.0, fs - 20.0) - 240
    image = rng.poisson(0.01 + 0.3 * np.exp(-np.square(beyond) / 8)).astype(np.uint16)
    row, column_ = 30 + round(240 * 0.6), 20 + round(240 * 0.8)
    i, j = float(row // 4), float(column_ // 4)
    boxes = np.stack([column(v) for v in (3.0, 3.0, i, j, 0.16, 4.0)])
    seen = np.ones(image.shape, np.bool_)
    ring = look_closer(image, mask_of(seen), boxes, (20.0, 30.0), True)
    assert ring.features[0, 1:6].max() < 0
    assert ring.features[0, -1] > 0.5
    # A centre stated five pixels off tilts the ring.
    assert look_closer(image, mask_of(seen), boxes, (25.0, 27.0), True).features[0, 1:6].max() < 0
    for photon in rng.normal((row, column_), 1.5, (60, 2)):
        image[tuple(np.rint(photon).astype(int))] += 1
    assert look_closer(image, mask_of(seen), boxes, (20.0, 30.0), True).features[0, 1:6].max() > 5


def test_two_boxes_of_one_spot_are_one_place():
    image = spot(80, 2.8)
    pairs = ((3, 2), (3, 2), (15, 14), (17, 18), (0.16, 0.64), (4, 8))
    near = np.stack([column(a, b) for a, b in pairs])
    found = look_closer(image, mask_of(np.ones(image.shape, np.bool_)), near, (64.0, 64.0), True)
    assert len(found) == 1


def test_no_box_no_place_and_the_gate_takes_it():
    nothing = np.zeros((6, 0), np.float32)
    found = look_closer(
        spot(0, 1.0), mask_of(np.ones((128, 128), np.bool_)), nothing, (0.0, 0.0), True
    )
    assert len(found) == 0
    gate = HostGate(GateNet().arrays())
    assert gate.judge(found.features)[0] < -10
    assert gate.judge(looked_at(spot(60, 1.8)).features)[0] > 10


def test_boxes_that_were_looked_at_are_not_looked_at_again():
    image, every = spot(60, 1.8), np.ones((128, 128), np.bool_)
    rows = (9, 5, 3), (9, 5, 3), (15, 5, 25), (17, 20, 9), (0.16, 0.64, 0.16), (4, 8, 4)
    boxes = np.stack([column(*row) for row in rows])
    whole = look_closer(image, mask_of(every), boxes, (64.0, 64.0), True)
    for n in (1, 2, 3):
        first = look_closer(image, mask_of(every), boxes, (64.0, 64.0), True, n)
        again = look_closer(image, mask_of(every), boxes, (64.0, 64.0), True, looks=first.looks)
        np.testing.assert_array_equal(again.features, whole.features)
        fewer = look_closer(image, mask_of(every), boxes, (64.0, 64.0), True, n, whole.looks)
        np.testing.assert_array_equal(fewer.features, first.features)
