"""Frames are reproducible Poisson draws, and their truth is true."""

from dataclasses import replace

import numpy as np
import pytest

from hitfinder.sim.frames import FrameSettings, FrameSource, Nuisances
from hitfinder.sim.patterns import Pattern, find_spots
from hitfinder.sim.physics import Detector, SimulationError, water_mean
from hitfinder.sim.reflections import Crystal, read_crystal

WINDOW = Detector(shape=(700, 600))  # the middle of an EIGER2 4M, with a gap of 38 rows
COARSE = Detector(shape=(540, 516), pixel_size_m=300e-6)  # its whole angle in fewer pixels


@pytest.fixture(scope="module")
def crystals() -> tuple[Crystal, ...]:
    return (read_crystal(),)


def test_the_same_seed_gives_the_same_frame_whatever_was_drawn_before() -> None:
    settings = FrameSettings(
        datasets=("02", "07"), hit_fraction=0.5, center_jitter_px=2.0, n_hot_pixels=5
    )
    first, second = FrameSource(settings, 7, WINDOW), FrameSource(settings, 7, WINDOW)
    ahead = [second.draw(frame) for frame in (4, 2, 0)]
    for frame, again in zip((4, 2, 0), ahead, strict=True):
        exposure = first.draw(frame)
        assert np.array_equal(exposure.image, again.image)
        assert exposure.is_hit == again.is_hit
    assert not np.array_equal(first.draw(0).image, first.draw(1).image)
    assert not np.array_equal(first.draw(0).image, FrameSource(settings, 8, WINDOW).draw(0).image)


def test_iterating_counts_frames_from_zero() -> None:
    source = FrameSource(FrameSettings(hit_fraction=0.0), 1, WINDOW)
    taken = [exposure.frame for exposure, _ in zip(source, range(3), strict=False)]
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_gaps_and_only_gaps_hold_the_types_highest_value(dtype: str) -> None:
    settings = FrameSettings(datasets=("03",), hit_fraction=1.0, n_hot_pixels=30, dtype=dtype)  # type: ignore[arg-type]
    for frame in range(4):
        exposure = FrameSource(settings, 3).draw(frame)
        assert exposure.image.dtype == dtype
        assert exposure.image.shape == (2162, 2068)
        highest = np.iinfo(dtype).max
        assert np.array_equal(exposure.image == highest, Detector().gap_mask)


def test_blanks_have_the_mean_and_variance_of_poisson_water() -> None:
    source = FrameSource(FrameSettings(datasets=("01",), hit_fraction=0.0), 5, WINDOW)
    stack = np.stack([source.draw(frame).image for frame in range(60)])[:, ~WINDOW.gap_mask]
    mean = water_mean(WINDOW, 6000, 0.15)[~WINDOW.gap_mask].astype(float)
    assert stack.sum() == pytest.approx(60 * mean.sum(), rel=4 / np.sqrt(60 * mean.sum()))
    assert np.var(stack, axis=0, ddof=1).mean() == pytest.approx(mean.mean(), rel=0.01)
    totals = stack.sum(axis=1)
    assert np.var(totals) == pytest.approx(mean.sum(), rel=4 * np.sqrt(2 / 60))


@pytest.mark.parametrize("divergence_mrad", [0.0, 2.0])
def test_hits_have_the_expected_bragg_photons_on_average(divergence_mrad: float) -> None:
    settings = FrameSettings(
        datasets=("05",), hit_fraction=1.0, divergence_mrad=divergence_mrad, n_photons=3e8
    )
    source = FrameSource(settings, 11, WINDOW)
    deviations = []
    for frame in range(40):
        exposure = source.draw(frame)
        assert exposure.bragg is not None
        assert len(exposure.bragg_counts) == len(exposure.bragg_index)
        expected = exposure.bragg.total
        deviations.append((exposure.bragg_counts.sum() - expected) / np.sqrt(expected))
    assert abs(np.mean(deviations)) < 4 / np.sqrt(40)
    assert np.std(deviations) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("patterns", ["shipped", "generator"])
@pytest.mark.parametrize("n_crystals", [1, 3])
def test_photons_of_wide_spots_fall_where_the_noise_free_picture_is_bright(
    crystals: tuple[Crystal, ...], patterns: str, n_crystals: int
) -> None:
    settings = FrameSettings(
        datasets=("09",),
        hit_fraction=1.0,
        divergence_mrad=2.0,
        n_crystals=n_crystals,
        patterns=patterns,  # type: ignore[arg-type]
    )
    exposure = FrameSource(settings, 2, crystals=crystals).draw(1)
    assert exposure.bragg is not None
    mean = exposure.bragg.dense().reshape(-1)
    counts = np.zeros(mean.size)
    counts[exposure.bragg_index] = exposure.bragg_counts
    for low, high in ((0.01, 0.1), (0.1, 1), (1, np.inf)):
        chosen = (mean > low) & (mean <= high)
        expected = float(mean[chosen].sum(dtype=float))
        assert counts[chosen].sum() == pytest.approx(expected, abs=4 * np.sqrt(expected) + 5)
    assert exposure.n_crystals == n_crystals
    assert len(exposure.all_spots) > len(exposure.spots)


def test_the_hit_fraction_holds() -> None:
    source = FrameSource(FrameSettings(hit_fraction=0.3), 2, Detector(shape=(64, 64)))
    hits = sum(source.draw(frame).is_hit for frame in range(600))
    assert hits == pytest.approx(180, abs=4 * np.sqrt(600 * 0.3 * 0.7))


def test_a_blank_has_no_bragg_photons_and_no_spots() -> None:
    exposure = FrameSource(FrameSettings(hit_fraction=0.0), 2, WINDOW).draw(0)
    assert not exposure.is_hit
    assert exposure.bragg is None
    assert len(exposure.spots) == len(exposure.bragg_counts) == 0


@pytest.mark.parametrize("patterns", ["shipped", "generator"])
@pytest.mark.parametrize("vary", [False, True])
def test_true_spots_lie_on_expected_photons_and_off_the_gaps(
    crystals: tuple[Crystal, ...], patterns: str, vary: bool
) -> None:
    settings = FrameSettings(
        datasets=("02",),
        hit_fraction=1.0,
        center_jitter_px=3.0,
        vary=vary,
        patterns=patterns,  # type: ignore[arg-type]
    )
    source = FrameSource(settings, 4, crystals=crystals)
    for frame in range(3):
        exposure = source.draw(frame)
        assert exposure.bragg is not None
        expected = exposure.bragg.dense()
        assert len(exposure.spots) > 15
        for fs, ss, photons in zip(
            exposure.spots.fs, exposure.spots.ss, exposure.spots.photons, strict=True
        ):
            assert photons >= 3
            row, col = round(float(ss)), round(float(fs))
            assert not Detector().gap_mask[row, col]
            # Three pixels reach the middle of the longest streaks of a shipped pattern.
            around = expected[max(row - 3, 0) : row + 4, max(col - 3, 0) : col + 4]
            assert around.sum() > 0.5 * min(photons, 50)


def test_less_flux_scales_water_and_spots_and_strength_spots_alone() -> None:
    settings = FrameSettings(hit_fraction=1.0)
    full = FrameSource(settings, 6).draw(0)
    faint = FrameSource(replace(settings, n_photons=3e7), 6).draw(0)
    weak = FrameSource(replace(settings, strength=0.1), 6).draw(0)
    assert full.bragg is not None
    assert faint.bragg is not None
    assert weak.bragg is not None
    assert faint.bragg.total == pytest.approx(0.1 * full.bragg.total, rel=1e-5)
    assert weak.bragg.total == pytest.approx(0.1 * full.bragg.total, rel=1e-5)
    active = ~Detector().gap_mask
    water = [e.image[active].sum() - e.bragg_counts.sum() for e in (full, faint, weak)]
    assert water[1] == pytest.approx(0.1 * water[0], rel=0.15)
    assert water[2] == pytest.approx(water[0], rel=0.1)


def test_a_hits_blank_twin_is_the_same_water_without_its_crystal() -> None:
    settings = FrameSettings(datasets=("02",), n_hot_pixels=5, center_jitter_px=1.0)
    hit = FrameSource(replace(settings, hit_fraction=1.0), 6).draw(3)
    blank = FrameSource(replace(settings, hit_fraction=0.0), 6).draw(3)
    without = hit.image.astype(int).ravel()
    without[hit.bragg_index] -= hit.bragg_counts
    active = ~Detector().gap_mask.ravel()
    assert np.array_equal(without[active], blank.image.ravel()[active])


def test_hot_pixels_stay_where_they_are() -> None:
    settings = FrameSettings(hit_fraction=0.0, n_hot_pixels=12, hot_photons=(200.0, 500.0))
    source = FrameSource(settings, 9, WINDOW)
    assert len(source.hot_index) == 12
    for frame in range(3):
        image = source.draw(frame).image.copy()
        image[WINDOW.gap_mask] = 0
        assert np.array_equal(np.flatnonzero(image > 100), np.sort(source.hot_index))


def test_nuisances_light_a_blank_but_do_not_make_it_a_hit() -> None:
    plain = FrameSettings(datasets=("05",), hit_fraction=0.0)
    dirty = Nuisances(streak_photons=2000.0, rings=3.0, stray_spots=20.0)
    clean = FrameSource(plain, 3).draw(1)
    lit = FrameSource(replace(plain, nuisances=dirty), 3).draw(1)
    active = ~Detector().gap_mask
    added = lit.image[active].astype(int) - clean.image[active]
    assert added.min() >= 0
    assert added.sum() > 1000
    assert not lit.is_hit
    assert len(lit.spots) == 0


def test_a_streak_is_where_and_as_bright_as_asked_for() -> None:
    streak = Nuisances(
        streak_photons=20000.0, streak_angle_deg=90.0, streak_length_px=40.0, streak_width_px=2.0
    )
    small = Detector(shape=(512, 512))
    settings = FrameSettings(datasets=("07",), hit_fraction=0.0)
    clean = FrameSource(settings, 3, small).draw(0).image.astype(int)
    added = FrameSource(replace(settings, nuisances=streak), 3, small).draw(0).image - clean
    assert added.sum() == pytest.approx(20000, rel=0.04)
    offset_px = np.arange(512) + 0.5 - 256
    assert np.average(offset_px**2, weights=added.sum(axis=0)) == pytest.approx(4, rel=0.1)
    assert np.average(abs(offset_px), weights=added.sum(axis=1)) == pytest.approx(40, rel=0.1)


def test_energy_and_length_can_be_drawn_from_ranges(crystals: tuple[Crystal, ...]) -> None:
    settings = FrameSettings(
        photon_energy_eV=(5000.0, 10000.0),
        clen_m=(0.1, 0.5),
        hit_fraction=1.0,
        patterns="generator",
        divergence_mrad=(0.0, 2.0),
        bandwidth=(0.001, 0.05),
        crystal_um=(2.0, 20.0),
        n_photons=(1e7, 3e8),
    )
    drawn = [FrameSource(settings, 12, COARSE, crystals).draw(frame) for frame in range(12)]
    assert all(e.dataset is None for e in drawn)
    assert all(5000 <= e.photon_energy_eV <= 10000 and 0.1 <= e.clen_m <= 0.5 for e in drawn)
    assert len({e.photon_energy_eV for e in drawn}) == len({e.n_photons for e in drawn}) == 12


def test_a_bright_frame_is_drawn_too() -> None:
    settings = FrameSettings(datasets=("03",), hit_fraction=0.0, n_photons=3e10, dtype="uint8")
    image = FrameSource(settings, 1, WINDOW).draw(0).image
    expected = water_mean(WINDOW, 8000, 0.15, 3e10)[~WINDOW.gap_mask]
    assert image[~WINDOW.gap_mask].mean() == pytest.approx(expected.mean(), rel=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (FrameSettings(datasets=("10",)), "10"),
        (FrameSettings(datasets=()), "data sets"),
        (FrameSettings(hit_fraction=1.5), "hit fraction"),
        (FrameSettings(crystal_um=5.0), "generator"),
        (FrameSettings(clen_m=0.2), "generator"),
        (FrameSettings(crystals="random"), "generator"),
        (FrameSettings(mosaicity_deg=0.1), "generator"),
    ],
)
def test_settings_that_no_frame_can_have_are_refused(settings: FrameSettings, words: str) -> None:
    with pytest.raises(SimulationError, match=words):
        FrameSource(settings)


def test_shipped_patterns_are_refused_for_other_pixels() -> None:
    with pytest.raises(SimulationError, match="75 um"):
        FrameSource(FrameSettings(), detector=COARSE)


def one_spot(row: int, col: int, photons: float) -> Pattern:
    shape = Detector().shape
    index, expected = np.array([row * shape[1] + col], np.int32), np.array([photons], np.float32)
    return Pattern(shape, index, expected, find_spots(shape, index, expected))


def test_patterns_of_ones_own_are_shown_instead_of_the_shipped_ones() -> None:
    settings = FrameSettings(datasets=("02", "08"), hit_fraction=1.0, strength=0.5)
    sets = {"02": (one_spot(100, 200, 6e4),), "08": (one_spot(300, 700, 6e4),)}
    source = FrameSource(settings, 1, pattern_sets=sets)
    for frame in range(4):
        exposure = source.draw(frame)
        row, col = (100, 200) if exposure.dataset == "02" else (300, 700)
        assert exposure.image[row, col] == pytest.approx(3e4, rel=0.03)
        assert (exposure.spots.ss.tolist(), exposure.spots.fs.tolist()) == ([row], [col])
    with pytest.raises(SimulationError, match="data set 03"):
        FrameSource(replace(settings, datasets=("03",)), pattern_sets=sets)
    with pytest.raises(SimulationError, match="makes its own"):
        FrameSource(replace(settings, patterns="generator"), pattern_sets=sets)
