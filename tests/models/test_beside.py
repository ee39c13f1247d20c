"""What lies beside a place, along its ring and its radius: compiled against the plain rule."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.models.image import mask_of
from hitfinder.models.places import log_ratios

F = np.float32
NEAREST_PX, ON_RING_PX, ON_RAY_PX, HALF_PX = 14, 94, 54, 14
OFF_CENTRE_PX = (-10, -5, 0, 5, 10)
TILTED_WITHIN_PX = 400

Line = tuple[NDArray[np.float32], NDArray[np.float32]]


def ring_lines(centre, out, radius: np.float32, off: int) -> list[Line]:
    """Return the pixels of the lines across the ring through a place, a line a step along it."""
    lines = []
    far = min(int(radius), ON_RING_PX)
    tilt = F(off) / radius
    for step in range(-far, far + 1):
        if abs(step) < NEAREST_PX:
            continue
        angle = F(abs(step)) / radius
        c, s = np.cos(angle), np.sin(angle) if step > 0 else -np.sin(angle)
        direction = c * out[0] - s * out[1], s * out[0] + c * out[1]
        d = radius + np.arange(-HALF_PX - 1, HALF_PX + 2, dtype=F) + tilt * F(step)
        lines.append((centre[0] + d * direction[0], centre[1] + d * direction[1]))
    return lines


def ray_lines(centre, out, radius: np.float32) -> list[Line]:
    """Return the same across the radius through a place."""
    lines = []
    across = np.arange(-HALF_PX - 1, HALF_PX + 2, dtype=F)
    for step in range(-ON_RAY_PX, ON_RAY_PX + 1):
        d = radius + F(step)
        if abs(step) < NEAREST_PX or d < 0:
            continue
        start = centre[0] + d * out[0], centre[1] + d * out[1]
        lines.append((start[0] - across * out[1], start[1] + across * out[0]))
    return lines


TIE = 1e-6
"""Rounding decides where photons are as many as the limit says, to this share of it."""


def raised(image, seen, lines: list[Line], background: float, slack: float) -> float:
    """Return how many times the background is in a strip's middle, 1 if that may be chance.

    Args:
        slack: share by which the limit is passed too early.
    """
    photons, pixels = np.zeros(2 * HALF_PX + 3), np.zeros(2 * HALF_PX + 3)
    for ss, fs in lines:
        row, column = np.rint(ss).astype(int), np.rint(fs).astype(int)
        inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
        inside[inside] = seen[row[inside], column[inside]]
        photons[inside] += np.minimum(image[row[inside], column[inside]].astype(np.int64), 2**20)
        pixels += inside
    factor, middle = 1.0, HALF_PX + 1
    for half in (1, 4):
        strip = slice(middle - half, middle + half + 1)
        n, expected = photons[strip].sum(), background * pixels[strip].sum()
        if n >= (expected + 2 * np.sqrt(expected) + 1) * (1 - slack):
            factor = max(factor, (n + 4) / (expected + 4))
    return factor


@example(
    46630, "uint8", 0.05, 0.1, (33, 250), 0, 150.0, 1.3
)  # nine photons, where nine are the limit
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["uint8", "uint16", "uint32"]),
    mean=st.sampled_from([0.05, 2.0]),
    masked=st.sampled_from([0.0, 0.1]),
    shape=st.sampled_from([(96, 128), (171, 133), (33, 250)]),
    brightest=st.sampled_from([0, 253, 254, 255, 70_000, 2**31]),
    from_beam_px=st.sampled_from([20.0, 150.0, 390.0, 1000.0]),
    unlike=st.sampled_from([0.8, 1.0, 1.3, 3.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_neighbourhood_raises_the_background_as_the_plain_rule_says(
    seed: int,
    dtype: str,
    mean: float,
    masked: float,
    shape: tuple[int, int],
    brightest: int,
    from_beam_px: float,
    unlike: float,
):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    image = rng.poisson(mean * unlike, shape).astype(dtype)
    bright = rng.random(shape) < 2e-3
    image[bright] = min(brightest, top)
    seen = rng.random(shape) >= masked
    # Anywhere, the detector's edges too; the last cells are smaller than the others.
    cell = rng.integers(0, np.array(shape) // 4)
    ss, fs = (int(c) * 4 + 2 for c in cell)
    image[ss, fs], seen[ss, fs] = 120, True
    angle = rng.uniform(0, 2 * np.pi)
    centre = F(ss + from_beam_px * np.sin(angle)), F(fs + from_beam_px * np.cos(angle))
    boxes = np.array([*cell, mean * 16, 4], F)[:, None]
    _, found = log_ratios(
        image, mask_of(seen), boxes, (centre[1], centre[0]), trust_bright_pixels=True
    )

    background = found[0, 4] / found[0, 5]
    away = F(ss) - centre[0], F(fs) - centre[1]
    radius = np.hypot(*away)
    out = away[0] / radius, away[1] / radius
    offs = OFF_CENTRE_PX if radius < TILTED_WITHIN_PX else (0,)
    strips = [ring_lines(centre, out, radius, off) for off in offs]
    strips.append(ray_lines(centre, out, radius))
    counted = seen & (image != top)
    least, most = (
        max(raised(image, counted, lines, background, slack) for lines in strips)
        for slack in (-TIE, TIE)
    )
    assert found[0, 5] in (pytest.approx(least, rel=1e-5), pytest.approx(most, rel=1e-5))


def test_frames_looked_at_one_after_the_other_do_not_see_each_other():
    rng = np.random.default_rng(1)
    frames = [rng.poisson(mean, (171, 133)).astype(np.uint16) for mean in (0.05, 3.0, 0.05)]
    every = np.ones((171, 133), np.bool_)
    boxes = np.array([20.0, 15.0, 0.8, 4.0], F)[:, None]
    for frame in frames:
        frame[80:84, 60:64] += 40
    first = [log_ratios(f, mask_of(every), boxes, (0.0, 0.0), True) for f in frames]
    again = [log_ratios(f, mask_of(every), boxes, (0.0, 0.0), True) for f in frames]
    for (ratio, found), (ratio_2, found_2) in zip(first, again, strict=True):
        np.testing.assert_array_equal(ratio, ratio_2)
        np.testing.assert_array_equal(found, found_2)
    assert first[1][1][0, 5] > 10 * first[0][1][0, 5]


def test_the_order_of_places_changes_none_of_them():
    rng = np.random.default_rng(2)
    image = rng.poisson(0.3, (300, 260)).astype(np.uint16)
    every = np.ones(image.shape, np.bool_)
    places = rng.random((2, 40)) * np.array([[74], [64]])
    boxes = np.vstack((places.astype(int), np.full((1, 40), 4.8), np.full((1, 40), 4.0))).astype(F)
    ratio, found = log_ratios(image, mask_of(every), boxes, (20.0, 30.0), True)
    for order in (rng.permutation(40), np.arange(40)[::-1]):
        other = log_ratios(
            image, mask_of(every), boxes[:, order], (20.0, 30.0), trust_bright_pixels=True
        )
        np.testing.assert_array_equal(other[0], ratio[order])
        np.testing.assert_array_equal(other[1], found[order])
