"""Energy and camera length from drawn water: unbiased within an honest sigma."""

import numpy as np
import pytest

from hitfinder.models import heads, weights
from hitfinder.models.frontend import N_SECTORS, cell_tables
from hitfinder.models.geometry import Geometry
from hitfinder.models.series_posterior import (
    SeriesPosterior,
    chance_of,
    look,
    with_hits_if_needed,
)
from hitfinder.models.water import water_shape

# The angles of the 4M in a quarter of its pixels.
SHAPE = (1080, 1032)
PIXEL_M = 150e-6
GEOMETRY = Geometry(SHAPE, (PIXEL_M, PIXEL_M), (515.5, 539.5))


@pytest.fixture(scope="module")
def cells():
    return cell_tables(GEOMETRY, np.ones(SHAPE, np.bool_))


@pytest.fixture(scope="module")
def tables(cells):
    return heads.head_tables(weights.load_water(), cells, PIXEL_M)


def mean_counts(cells, energy_eV, clen_m, n_photons):
    """Return expected counts per (ring, sector), from every pixel's own mean."""
    x = (np.arange(SHAPE[1]) - 515.5) * PIXEL_M
    y = ((np.arange(SHAPE[0]) - 539.5) * PIXEL_M)[:, None]
    r2 = x**2 + y**2
    mean = water_shape(
        weights.load_water(), np.sqrt(r2), x**2 / np.maximum(r2, 1e-12), energy_eV, clen_m
    )
    mean *= n_photons / mean.sum()
    per_cell = mean.reshape(SHAPE[0] // 4, 4, SHAPE[1] // 4, 4).sum((1, 3))
    n_bins = cells.n_rings * N_SECTORS
    return np.bincount(cells.bin_HW.ravel(), per_cell.ravel(), n_bins)


def pulls(estimates, truth):
    """Return errors of energy and clen over their sigmas, (n, 2)."""
    return np.array(
        [
            (
                (e.photon_energy_eV - energy_eV) / e.photon_energy_sigma_eV,
                (e.clen_m - clen_m) / e.clen_sigma_m,
            )
            for e, (energy_eV, clen_m) in zip(estimates, truth, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("energy_eV", "clen_m", "n_photons"), [(6000, 0.15, 87e3), (6500, 0.18, 70e3)]
)
def test_errors_are_as_large_as_sigma_says_where_the_ring_is_seen(
    cells, tables, energy_eV, clen_m, n_photons
):
    rng = np.random.default_rng(1)
    mean = mean_counts(cells, energy_eV, clen_m, n_photons)
    exposure = cells.exposure_N
    drawn = [heads.estimate(rng.poisson(mean), exposure, tables) for _ in range(40)]
    z = pulls(drawn, [(energy_eV, clen_m)] * len(drawn))
    assert (np.abs(z.mean(axis=0)) < 0.5).all()
    assert (np.abs(np.sqrt((z**2).mean(axis=0)) - 1) < 0.3).all()


def test_sigma_covers_the_truth_over_the_whole_range(cells, tables):
    rng = np.random.default_rng(2)
    exposure = heads.fold(cells.exposure_N)
    truth = np.stack((rng.uniform(5000, 10000, 300), rng.uniform(0.1, 0.5, 300)), axis=1)
    means = tables.shape_at(truth[:, 0], np.log(truth[:, 0] / truth[:, 1])) * exposure
    means *= 3e4 / means.sum(axis=1, keepdims=True)
    drawn = [heads.estimate_folded(rng.poisson(m), exposure, tables) for m in means]
    z = np.abs(pulls(drawn, truth))
    assert (np.abs((z < 1).mean(axis=0) - 0.683) < 0.08).all()
    assert ((z < 2).mean(axis=0) > 0.92).all()
    assert z.max() < 5


def test_sigma_is_near_the_cramer_rao_bound_where_the_ring_is_seen(cells, tables):
    mean = mean_counts(cells, 6000, 0.15, 87e3)
    e = heads.estimate(mean, cells.exposure_N, tables)
    assert e.photon_energy_eV == pytest.approx(6000, abs=15)
    assert e.photon_energy_sigma_eV == pytest.approx(47, rel=0.15)
    assert e.clen_sigma_m == pytest.approx(1.8e-3, rel=0.15)
    assert e.matrix[0, 0] > 0.999


def test_a_series_sharpens_what_one_frame_cannot_tell(cells, tables):
    rng = np.random.default_rng(3)
    mean = mean_counts(cells, 7000, 0.25, 22e3)
    exposure = cells.exposure_N
    one, two = (SeriesPosterior.empty(tables) for _ in range(2))
    for k in range(600):
        (one if k % 2 else two).add(rng.poisson(mean), exposure)
    alone = heads.estimate(rng.poisson(mean), exposure, tables)
    one.merge(two)
    series = one.estimate(tables)
    assert one.n_frames == 600
    assert alone.photon_energy_sigma_eV > 400
    assert series.photon_energy_sigma_eV < 60
    assert abs(series.photon_energy_eV - 7000) < 3 * series.photon_energy_sigma_eV
    assert abs(series.clen_m - 0.25) < 3 * series.clen_sigma_m


def test_without_photons_the_answer_is_the_range(cells, tables):
    e = heads.estimate(np.zeros(cells.exposure_N.size), cells.exposure_N, tables)
    assert e.photon_energy_sigma_eV == pytest.approx(0.683 * 2500, rel=0.01)
    assert e.clen_sigma_m == pytest.approx(0.683 * 0.2, rel=0.01)
    assert not e.tells_parameters
    np.testing.assert_allclose(e.matrix, 1 / 9, rtol=1e-5)


def test_a_background_that_is_not_water_widens_sigma(cells, tables):
    rng = np.random.default_rng(5)
    mean = mean_counts(cells, 6000, 0.15, 87e3)
    exposure = cells.exposure_N
    smooth = heads.estimate(rng.poisson(mean), exposure, tables)
    rough = mean * (1 + 0.5 * np.sin(np.arange(len(mean)) // 16))
    odd = heads.estimate(rng.poisson(rough), exposure, tables)
    assert smooth.dispersion < 1.2
    assert odd.dispersion > 3
    assert odd.photon_energy_sigma_eV > 1.5 * smooth.photon_energy_sigma_eV


@pytest.fixture(scope="module")
def narrow(cells, tables):
    """Return a series of 40 frames at 7 keV and 0.15 m, and its photons."""
    rng = np.random.default_rng(6)
    series = SeriesPosterior.empty(tables)
    mean, exposure = mean_counts(cells, 7000, 0.15, 128e3), cells.exposure_N
    for _ in range(40):
        series.add(rng.poisson(mean), exposure)
    return series.estimate(tables), series.n_photons


def test_a_wrong_header_is_told_and_a_right_one_is_not(narrow):
    series, n_photons = narrow
    wrong = look(series, n_photons, -1, 8000.0, 0.25)
    right = look(series, n_photons, -1, 7000.0, 0.15)
    assert wrong is not None
    assert wrong.is_mismatch
    assert right is not None
    assert not right.is_mismatch
    assert look(series, n_photons, right.number, 8000.0, 0.25) is None


@pytest.mark.parametrize("stated", [(8000.0, None), (None, 0.25)])
def test_half_a_header_is_compared_too(narrow, stated):
    series, n_photons = narrow
    seen = look(series, n_photons, -1, *stated)
    assert seen is not None
    assert seen.is_mismatch
    assert chance_of(series, None, None) is None


def test_a_header_within_the_floor_is_never_called_wrong(narrow):
    series, _ = narrow
    off = series.photon_energy_eV + 49, series.clen_m - 0.0029
    assert chance_of(series, *off) == 1.0


def test_a_beam_beside_the_detector_with_its_centre_unknown(tables):
    """A one-sided ring feels the centre: the error given grows by what that costs."""
    geometry = Geometry(SHAPE, (PIXEL_M, PIXEL_M), (-20.0, 539.5))
    cells = cell_tables(geometry, np.ones(SHAPE, np.bool_))
    one_sided = heads.head_tables(weights.load_water(), cells, PIXEL_M)
    x = (np.arange(SHAPE[1]) + 20.0 + 3.0) * PIXEL_M  # the true centre lies 3 pixels farther off
    y = ((np.arange(SHAPE[0]) - 539.5) * PIXEL_M)[:, None]
    r2 = x**2 + y**2
    mean = water_shape(weights.load_water(), np.sqrt(r2), x**2 / r2, 7000.0, 0.15)
    mean *= 3e7 / mean.sum()
    per_cell = mean.reshape(SHAPE[0] // 4, 4, SHAPE[1] // 4, 4).sum((1, 3))
    counts = np.bincount(cells.bin_HW.ravel(), per_cell.ravel(), len(cells.exposure_N))
    e = heads.estimate(counts, cells.exposure_N, one_sided)
    assert abs(e.photon_energy_eV - 7000) < 2 * e.photon_energy_sigma_eV
    assert abs(e.clen_m - 0.15) < 2 * e.clen_sigma_m
    assert e.is_narrow


@pytest.mark.parametrize(("n_misses", "n_used"), [(5, 5), (1, 11)])
def test_hits_are_used_only_where_misses_are_few(cells, tables, n_misses, n_used):
    mean, exposure = mean_counts(cells, 7000, 0.15, 1e4), cells.exposure_N
    misses, hits = (SeriesPosterior.empty(tables) for _ in range(2))
    for series, n in ((misses, n_misses), (hits, 10)):
        for _ in range(n):
            series.add(mean, exposure)
    assert with_hits_if_needed(misses, hits).n_frames == n_used
