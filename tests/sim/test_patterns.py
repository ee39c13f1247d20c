"""Patterns keep their photons whatever is done to them, and spots stay with their pixels."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from hitfinder.sim.patterns import (
    Pattern,
    find_spots,
    no_spots,
    place,
    shipped_patterns,
    spot_sigma_px,
    widen,
)
from hitfinder.sim.physics import SimulationError, data_sets

SHAPE = (60, 50)


def small(pixels: dict[tuple[int, int], float]) -> Pattern:
    index = np.array([ss * SHAPE[1] + fs for ss, fs in sorted(pixels)], np.int32)
    photons = np.array([pixels[place] for place in sorted(pixels)], np.float32)
    return Pattern(SHAPE, index, photons, find_spots(SHAPE, index, photons))


def test_touching_pixels_are_one_spot_at_their_centroid() -> None:
    pattern = small({(10, 10): 6.0, (11, 11): 2.0, (30, 20): 4.0, (30, 22): 4.0})
    assert sorted(pattern.spots.photons.tolist()) == [4.0, 4.0, 8.0]
    brightest = int(np.argmax(pattern.spots.photons))
    assert pattern.spots.fs[brightest] == pytest.approx(10.25)
    assert pattern.spots.ss[brightest] == pytest.approx(10.25)


def test_pixels_at_opposite_edges_of_neighbouring_rows_do_not_touch() -> None:
    assert len(small({(10, 49): 5.0, (11, 0): 5.0}).spots) == 2
    assert len(small({(10, 0): 5.0, (10, 49): 5.0}).spots) == 2


def test_an_empty_pattern_has_no_spots() -> None:
    assert len(small({}).spots) == 0
    assert len(no_spots()) == 0
    assert widen(small({}), 2.0).total == 0


@pytest.mark.parametrize("sigma_px", [0.0, 0.3, 1.7, 4.0])
def test_widening_keeps_the_total_and_the_centre(sigma_px: float) -> None:
    wide = widen(small({(30, 25): 100.0}), sigma_px)
    assert wide.total == pytest.approx(100, rel=1e-5)
    ss, fs = np.divmod(wide.index, SHAPE[1])
    assert np.average(ss, weights=wide.photons) == pytest.approx(30)
    variance = np.average((fs - 25.0) ** 2, weights=wide.photons)
    pixel_variance = 1 / 12 if sigma_px > 1 else 0.0
    assert variance == pytest.approx(sigma_px**2 + pixel_variance, rel=0.03, abs=0.05)
    assert wide.spots.photons.tolist() == [100.0]
    assert np.all(np.diff(wide.index) > 0)


def test_two_milliradian_is_the_width_that_the_source_has() -> None:
    widths = [spot_sigma_px(2.0, clen_m) for clen_m in (0.15, 0.25, 0.35)]
    assert widths == pytest.approx([1.7, 2.8, 4.0], abs=0.05)


def test_turning_and_moving_carries_pixels_and_spots_alike() -> None:
    pattern = small({(10, 5): 8.0, (58, 40): 3.0})
    moved = place(pattern, SHAPE, (3, -2), (True, False))
    assert moved.dense()[59 - 10 + 3, 3] == 8.0
    first = int(np.argmax(moved.spots.photons))
    assert (moved.spots.ss[first], moved.spots.fs[first]) == (52, 3)
    assert len(moved.spots) == 2


def test_what_leaves_the_array_is_gone_from_pixels_and_spots() -> None:
    moved = place(small({(10, 5): 8.0, (58, 40): 3.0}), SHAPE, (5, 0))
    assert moved.total == 8.0
    assert moved.spots.photons.tolist() == [8.0]


@pytest.mark.parametrize("name", list(data_sets()))
def test_shipped_patterns_are_the_recorded_ones_but_for_the_faintest_pixels(
    shared: Path, name: str
) -> None:
    with h5py.File(shared / f"data/pattern_sim/peaks_{name}.h5") as file:
        frames = file["size_10000nm"]
        starts, photons = frames["indptr"][:], frames["photons"][:].astype(float)
    recorded = np.add.reduceat(photons, starts[:-1])
    shipped = shipped_patterns(name)
    assert len(shipped) == 8
    assert [p.total for p in shipped] == pytest.approx(recorded, rel=2e-2)
    assert sum(p.total for p in shipped) == pytest.approx(recorded.sum(), rel=4e-4)


def test_shipped_spots_hold_nearly_all_photons_of_their_pattern() -> None:
    for pattern in shipped_patterns("02"):
        bright = pattern.spots[pattern.spots.photons >= 3]
        assert 20 < len(bright) < 150
        assert bright.photons.sum() > 0.9 * pattern.total


def test_a_data_set_that_is_not_shipped_is_refused_by_name() -> None:
    with pytest.raises(SimulationError, match="'10'"):
        shipped_patterns("10")
