"""The scan against plain numpy and scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from hitfinder.models.device_scan import neg_log10_tail, scan
from hitfinder.models.device_tables import tables_on
from hitfinder.models.frontend import cell_tables
from hitfinder.models.geometry import Geometry
from hitfinder.models.scan import FLOOR, SCALES_PX

SHAPE = (96, 88)


@pytest.mark.parametrize("mean", [1e-4, 0.03, 0.5, 3.0, 50.0, 500.0, 1e4])
def test_the_tail_is_poissons_over_eight_decades(mean: float):
    n = np.unique(np.ceil(mean + np.array([2, 3, 5, 10, 30]) * np.sqrt(mean) + 1))
    got = neg_log10_tail(torch.from_numpy(n), torch.full((len(n),), mean, dtype=torch.float64))
    truth = -stats.poisson.logsf(n - 1, mean) / np.log(10)
    np.testing.assert_allclose(got.numpy(), truth, rtol=2e-3)


def test_counts_at_or_below_the_mean_are_no_evidence():
    got = neg_log10_tail(torch.tensor([0.0, 3.0, 0.0]), torch.tensor([0.0, 3.0, 7.0]))
    assert got.tolist() == [0, 0, 0]


def brute_force(sums, maxima, mean, exposure, n_valid):
    """Return the strongest box of each scale by looking at every one."""
    best = []
    for scale_px in SCALES_PX:
        edge = max(scale_px // 4, 1)
        found = (FLOOR, 0.0, 0.0)
        for i in range(sums.shape[0] - edge + 1):
            for j in range(sums.shape[1] - edge + 1):
                box = slice(i, i + edge), slice(j, j + edge)
                n, m = sums[box].sum(), mean[box].sum()
                if scale_px == 1:
                    n, m = maxima[i, j], mean[i, j] / max(exposure[i, j], 1)
                if m <= 0 or n <= m:
                    continue
                n_places = n_valid / (1 if scale_px == 1 else 16)
                evidence = -stats.poisson.logsf(n - 1, m) / np.log(10) - np.log10(n_places)
                middle = (edge - 1) / 2
                found = max(found, (evidence, i + middle, j + middle))
        best.append(found)
    return best


@pytest.mark.parametrize("photons_per_px", [0.01, 0.3, 5.0])
def test_the_strongest_place_of_each_scale_is_that_of_brute_force(photons_per_px: float):
    rng = np.random.default_rng(7)
    valid = rng.random(SHAPE) > 0.05
    tables = tables_on(cell_tables(Geometry.centred(SHAPE), valid))
    exposure = tables.exposure_HW.numpy()
    mean = (exposure * photons_per_px).astype(np.float32)
    image = rng.poisson(photons_per_px, SHAPE) * valid
    image[40:46, 50:57] += rng.poisson(photons_per_px + 0.6, (6, 7)) * valid[40:46, 50:57]
    cells = image.reshape(24, 4, 22, 4)
    sums, maxima = cells.sum((1, 3)), cells.max((1, 3))
    maps = (torch.from_numpy(a.astype(np.float32))[None] for a in (sums, maxima, mean))
    found = scan(*maps, tables)
    for scale, (evidence, ss, fs) in enumerate(
        brute_force(sums, maxima, mean, exposure, int(valid.sum()))
    ):
        assert float(found.evidence[0, scale, 0]) == pytest.approx(evidence, abs=0.01)
        at = found.evidence[0, scale] > evidence - 0.01
        places = torch.stack((found.ss[0, scale], found.fs[0, scale]), 1)[at].tolist()
        assert [ss, fs] in places


def test_a_lone_bright_pixel_leaves_nothing_without_it():
    tables = tables_on(cell_tables(Geometry.centred(SHAPE), np.ones(SHAPE, np.bool_)))
    mean = tables.exposure_HW[None] * 0.01
    sums = torch.zeros_like(mean)
    maxima = torch.zeros_like(mean)
    sums[0, 10, 10] = maxima[0, 10, 10] = 400
    found = scan(sums, maxima, mean, tables)
    assert (found.evidence[0, :, 0] > 100).all()
    assert (found.rest <= 0).all()


def test_a_few_strong_wide_spots_do_not_crowd_out_faint_ones():
    rng = np.random.default_rng(8)
    shape = (512, 512)
    tables = tables_on(cell_tables(Geometry.centred(shape), np.ones(shape, np.bool_)))
    image = rng.poisson(0.02, shape)
    for spot in ((60, 60), (60, 400), (400, 60)):
        at = np.rint(rng.normal(spot, 5, (20000, 2))).astype(int)
        np.add.at(image, tuple(at.T), 1)
    faint = np.array([(300, 300), (200, 250), (450, 450), (250, 380)])
    for i, j in faint:
        image[i - 2 : i + 2, j - 2 : j + 2] += rng.poisson(2, (4, 4))
    cells = image.reshape(128, 4, 128, 4)
    maps = (
        torch.from_numpy(a.astype(np.float32))[None]
        for a in (cells.sum((1, 3)), cells.max((1, 3)))
    )
    found = scan(*maps, tables.exposure_HW[None] * 0.02, tables)
    strong = found.evidence[0] > 2
    at = torch.stack((found.ss[0][strong], found.fs[0][strong]), 1).numpy() * 4 + 1.5
    assert (np.abs(faint[:, None] - at[None]).max(2).min(1) < 8).all()
    assert strong.sum() < 300
