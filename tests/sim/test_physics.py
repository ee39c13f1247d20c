"""The water, the detector and the nine data sets are those of the experiment."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from hitfinder.sim.physics import (
    EIGER_X_MODULES,
    Detector,
    SimulationError,
    data_sets,
    water_field,
    water_mean,
)

QUARTER = Detector(shape=(540, 516), pixel_size_m=300e-6)


def test_the_nine_data_sets_are_three_lengths_by_three_energies() -> None:
    sets = data_sets()
    assert list(sets) == [f"{n:02d}" for n in range(1, 10)]
    assert (sets["03"].clen_m, sets["03"].photon_energy_eV) == (0.15, 8000)
    assert (sets["07"].clen_m, sets["07"].photon_energy_eV) == (0.35, 6000)


def test_gaps_are_those_of_an_eiger2_4m() -> None:
    mask = Detector().gap_mask
    rows, cols = np.flatnonzero(mask.all(axis=1)), np.flatnonzero(mask.all(axis=0))
    expected = [*range(512, 550), *range(1062, 1100), *range(1612, 1650)]
    assert rows.tolist() == expected
    assert cols.tolist() == [*range(1028, 1040)]
    assert mask.sum() == len(rows) * 2068 + len(cols) * 2162 - len(rows) * len(cols)


def test_a_small_array_has_no_gaps_and_an_eiger_x_has_its_own() -> None:
    assert not Detector(shape=(512, 512)).gap_mask.any()
    rows = Detector(shape=(2167, 2070), modules=EIGER_X_MODULES).gap_mask.all(axis=1)
    assert np.flatnonzero(rows)[[0, 36, 37]].tolist() == [514, 550, 1065]


@pytest.mark.parametrize("name", list(data_sets()))
def test_water_equals_the_recorded_mean_images(shared: Path, name: str) -> None:
    setting = data_sets()[name]
    ours = water_mean(Detector(), setting.photon_energy_eV, setting.clen_m)
    with h5py.File(shared / "data/pattern_sim/water.h5") as water:
        theirs = water[f"mean_{name}"][:].astype(np.float32)
        photons = water[f"mean_{name}"].attrs["photons_per_frame"]
    # The stored images are float16, whose rounding is up to 4.9e-4.
    assert np.abs(ours / theirs - 1).max() < 1e-3
    assert abs(np.mean(ours / theirs, dtype=float) - 1) < 3e-5
    assert ours.sum(dtype=float) == pytest.approx(photons, rel=5e-5)


def test_water_scales_with_flux_and_thickness_and_follows_the_beam() -> None:
    base = water_mean(QUARTER, 7000, 0.15)
    assert np.allclose(water_mean(QUARTER, 7000, 0.15, 3e7, 200e-6), 0.2 * base, rtol=1e-5)
    center_fs, center_ss = QUARTER.center_px
    moved = water_mean(QUARTER, 7000, 0.15, beam_center_px=(center_fs + 7, center_ss - 5))
    assert np.allclose(moved[:-5, 7:], base[5:, :-7], rtol=5e-4)


def test_photon_by_photon_drawing_has_the_mean_and_variance_of_poisson() -> None:
    field = water_field(QUARTER, 8000, 0.15, n_photons=1e6)
    rng = np.random.default_rng(5)
    n_frames, n_pixels = 400, QUARTER.shape[0] * QUARTER.shape[1]
    mean = field.mean().ravel().astype(float)
    totals, counts = [], np.zeros(n_pixels)
    for _ in range(n_frames):
        photons = field.draw(rng)
        assert photons is not None
        totals.append(len(photons))
        counts += np.bincount(photons, minlength=n_pixels)
    expected = mean.sum()
    assert np.mean(totals) == pytest.approx(expected, abs=4 * np.sqrt(expected / n_frames))
    assert np.var(totals) == pytest.approx(expected, rel=4 * np.sqrt(2 / n_frames))
    chi2 = np.sum((counts - n_frames * mean) ** 2 / (n_frames * mean)) / n_pixels
    assert chi2 == pytest.approx(1, abs=5 * np.sqrt(2 / n_pixels) + 0.02)


def test_a_bright_frame_is_left_to_pixel_by_pixel_drawing() -> None:
    assert water_field(QUARTER, 8000, 0.15, n_photons=1e11).draw(np.random.default_rng(1)) is None


def test_resolution_at_the_corner_is_as_the_data_set_says() -> None:
    d_A = Detector().d_A(np.array([0.0]), np.array([0.0]), 0.15, 7000)
    assert d_A[0] == pytest.approx(2.81, abs=0.01)


def test_water_refuses_a_camera_length_of_zero() -> None:
    with pytest.raises(SimulationError, match="clen 0"):
        water_mean(QUARTER, 7000, 0.0)
