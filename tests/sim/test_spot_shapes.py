"""Photons land where the mean says they do, whatever the spot's shape."""

from collections.abc import Sequence

import numpy as np
import pytest

from hitfinder.sim.crystal import Beam, Block, bragg_spots
from hitfinder.sim.patterns import Spots
from hitfinder.sim.physics import Detector
from hitfinder.sim.reflections import random_quaternion, read_crystal
from hitfinder.sim.spot_shapes import BraggSpots, draw_spots, render

SHAPE = (64, 80)


def spots(
    places: Sequence[tuple[float, float, float]], covariance_px2: tuple[float, float, float]
) -> BraggSpots:
    """Spots at (ss, fs, photons), all of one shape."""
    ss, fs, photons = np.array(places, np.float32).T
    none = np.zeros((len(ss), 3), np.int16)
    shapes = np.repeat([covariance_px2], len(ss), axis=0)
    return BraggSpots(Spots(fs, ss, photons, none, ss * 0), shapes)


@pytest.mark.parametrize(
    "covariance_px2", [(0.0, 0.0, 0.0), (4.0, 0.0, 1.0), (6.0, 4.0, 4.0), (3.0, -2.0, 2.0)]
)
def test_drawn_photons_follow_the_rendered_mean(
    covariance_px2: tuple[float, float, float],
) -> None:
    bragg = spots([(20.2, 30.4, 3e5), (40.0, 60.0, 1e5)], covariance_px2)
    mean = render(SHAPE, bragg).dense()
    drawn = draw_spots(SHAPE, bragg, np.random.default_rng(1))
    counts = np.bincount(drawn, minlength=mean.size).reshape(SHAPE)
    assert mean.sum() == pytest.approx(4e5, rel=2e-3)
    # The rendered mean of an oblique spot is approximate by a few per cent of its peak.
    assert np.abs(counts - mean).max() < 0.05 * mean.max() + 5 * np.sqrt(mean.max())
    ss, fs = np.mgrid[: SHAPE[0], : SHAPE[1]]
    near = (np.abs(ss - 20) < 15) & (np.abs(fs - 30) < 15)
    for picture in (mean, counts):
        weight = picture[near]
        off_ss, off_fs = ss[near] - 20.2, fs[near] - 30.4
        cross = np.average(off_ss * off_fs, weights=weight)
        assert cross == pytest.approx(covariance_px2[1], abs=0.15)
        var = [np.average(off**2, weights=weight) for off in (off_ss, off_fs)]
        if covariance_px2[0]:
            expected = [covariance_px2[0] + 1 / 12, covariance_px2[2] + 1 / 12]
            assert var == pytest.approx(expected, rel=0.08)


def test_no_spots_are_no_photons() -> None:
    bragg = spots([(0, 0, 1)], (1.0, 0.0, 1.0))
    none = BraggSpots(bragg.spots[:0], bragg.covariance_px2[:0])
    assert render(SHAPE, none).total == 0
    assert len(draw_spots(SHAPE, none, np.random.default_rng(1))) == 0


def test_mosaicity_smears_spots_across_the_radius_and_excites_more() -> None:
    crystal, turn = read_crystal(), random_quaternion(np.random.default_rng(5))
    beam, detector = Beam(7000, 0.25, bandwidth=0.001), Detector()
    perfect = bragg_spots(crystal, detector, beam, turn)
    mosaic = bragg_spots(crystal, detector, beam, turn, Block(10.0, 0.5))
    assert (mosaic.spots.photons > 1).sum() > 2 * (perfect.spots.photons > 1).sum()
    bright = mosaic.spots.photons > 1
    ss, fs = mosaic.spots.ss[bright] - 1080.5, mosaic.spots.fs[bright] - 1033.5
    radius = np.hypot(ss, fs)
    r_ss, r_fs = ss / radius, fs / radius
    c = mosaic.covariance_px2[bright].T
    across = np.sqrt(c[0] * r_fs**2 - 2 * c[1] * r_ss * r_fs + c[2] * r_ss**2)
    along = np.sqrt(c[0] * r_ss**2 + 2 * c[1] * r_ss * r_fs + c[2] * r_fs**2)
    expected = radius * np.radians(0.5) / np.sqrt(8 * np.log(2))
    assert np.median(across / expected) == pytest.approx(1, abs=0.1)
    assert np.median(along / across) < 0.5


def test_a_stretched_spot_is_longer_along_the_radius_alone() -> None:
    crystal, turn = read_crystal(), random_quaternion(np.random.default_rng(6))
    beam = Beam(7000, 0.15, divergence_mrad=2.0)
    plain = bragg_spots(crystal, Detector(), beam, turn)
    longer = bragg_spots(crystal, Detector(), beam, turn, radial_stretch=2.0)
    assert np.allclose(longer.sigma_px, plain.sigma_px * np.sqrt(2), rtol=1e-3)
    flat = bragg_spots(
        crystal, Detector(), Beam(7000, 0.15, divergence_mrad=2.0, divergence_ratio=4.0), turn
    )
    assert np.median(flat.covariance_px2[:, 0] / flat.covariance_px2[:, 2]) > 8
