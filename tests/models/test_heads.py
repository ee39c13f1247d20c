"""Energy and camera length from drawn water: unbiased within an honest sigma."""

import numpy as np
import pytest

from hitfinder.models import heads, weights
from hitfinder.models.frontend import N_SECTORS, cell_tables
from hitfinder.models.geometry import Geometry
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
    return np.bincount(cells.bin_HW.numpy().ravel(), per_cell.ravel(), n_bins)


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
    exposure = cells.exposure_N.numpy()
    drawn = [heads.estimate(rng.poisson(mean), exposure, tables) for _ in range(40)]
    z = pulls(drawn, [(energy_eV, clen_m)] * len(drawn))
    assert (np.abs(z.mean(axis=0)) < 0.5).all()
    assert (np.abs(np.sqrt((z**2).mean(axis=0)) - 1) < 0.3).all()


def test_sigma_covers_the_truth_over_the_whole_range(cells, tables):
    rng = np.random.default_rng(2)
    exposure = cells.exposure_N.numpy()
    truth = [(rng.uniform(5000, 10000), rng.uniform(0.1, 0.5)) for _ in range(60)]
    drawn = [
        heads.estimate(rng.poisson(mean_counts(cells, *at, 3e4)), exposure, tables) for at in truth
    ]
    z = pulls(drawn, truth)
    assert 0.55 < (np.abs(z) < 1).mean() < 0.85
    assert (np.abs(z) < 2).mean() > 0.9
    assert np.abs(z).max() < 5


def test_sigma_is_near_the_cramer_rao_bound_where_the_ring_is_seen(cells, tables):
    mean = mean_counts(cells, 6000, 0.15, 87e3)
    e = heads.estimate(mean, cells.exposure_N.numpy(), tables)
    assert e.photon_energy_eV == pytest.approx(6000, abs=15)
    assert e.photon_energy_sigma_eV == pytest.approx(47, rel=0.15)
    assert e.clen_sigma_m == pytest.approx(1.8e-3, rel=0.15)
    assert e.matrix[0, 0] > 0.999


def test_a_series_sharpens_what_one_frame_cannot_tell(cells, tables):
    rng = np.random.default_rng(3)
    mean = mean_counts(cells, 7000, 0.25, 22e3)
    exposure = cells.exposure_N.numpy()
    one, two = (heads.SeriesPosterior(len(mean)) for _ in range(2))
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
    e = heads.estimate(np.zeros(cells.exposure_N.numel()), cells.exposure_N.numpy(), tables)
    assert e.photon_energy_sigma_eV > 1400
    assert e.clen_sigma_m > 0.11
    np.testing.assert_allclose(e.matrix, 1 / 9, rtol=1e-5)


def test_a_background_that_is_not_water_widens_sigma(cells, tables):
    rng = np.random.default_rng(5)
    mean = mean_counts(cells, 6000, 0.15, 87e3)
    exposure = cells.exposure_N.numpy()
    smooth = heads.estimate(rng.poisson(mean), exposure, tables)
    rough = mean * (1 + 0.5 * np.sin(np.arange(len(mean)) // 16))
    odd = heads.estimate(rng.poisson(rough), exposure, tables)
    assert smooth.dispersion < 1.2
    assert odd.dispersion > 3
    assert odd.photon_energy_sigma_eV > 1.5 * smooth.photon_energy_sigma_eV
