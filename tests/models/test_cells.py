"""What is compiled for a CPU core against its definition in torch, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch

from hitfinder.models import background, scan
from hitfinder.models.frontend import CellTables, cell_tables, pool_frame, stack_maps
from hitfinder.models.geometry import Geometry

Maps = tuple[torch.Tensor, torch.Tensor]


def maps_of(shape: tuple[int, int], photons_per_px: float) -> tuple[Maps, CellTables]:
    """Return the maps of two frames with gaps, spots and hot pixels, and their tables."""
    rng = np.random.default_rng(round(1000 * photons_per_px) + shape[0])
    valid = rng.random(shape) > 0.02
    valid[shape[0] // 2 : shape[0] // 2 + 9] = False
    centre = (0.3 * shape[1], 0.6 * shape[0])
    frames = []
    for _ in range(2):
        image = rng.poisson(photons_per_px, shape).astype(np.uint32)
        i, j = rng.integers(0, shape[0], 40), rng.integers(0, shape[1], 40)
        image[i, j] += rng.integers(1, 3000, 40).astype(np.uint32)
        image[shape[0] // 3 : shape[0] // 3 + 11, : shape[1] // 2] += 2
        frames.append(pool_frame(image, valid))
    return stack_maps(frames, "cpu"), cell_tables(Geometry(shape, (75e-6, 75e-6), centre), valid)


SHAPES = [(530, 514), (67, 300), (3, 9), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("photons_per_px", [0.0, 0.01, 2.0, 900.0])
def test_the_compiled_background_is_that_of_torch(shape, photons_per_px):
    (sums, _), tables = maps_of(shape, photons_per_px)
    compiled = background.estimate_compiled(sums, tables)
    defined = background.estimate_torch(sums, tables)
    for field in dataclasses.fields(background.Background):
        torch.testing.assert_close(
            getattr(compiled, field.name), getattr(defined, field.name), rtol=2e-5, atol=1e-6
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("photons_per_px", [0.0, 0.01, 2.0, 900.0])
def test_the_compiled_boxes_are_those_of_torch_to_the_bit(shape, photons_per_px):
    maps, tables = maps_of(shape, photons_per_px)
    mean = background.estimate_torch(maps[0], tables).mean_BHW
    compiled = scan.above_compiled(*maps, mean, tables)
    defined = scan.above_torch(*maps, mean, tables)
    for one, other in zip(compiled, defined, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_compiled_tails_are_those_of_torch():
    rng = np.random.default_rng(1)
    mean = torch.from_numpy(10 ** rng.uniform(-13, 5, 4099))
    above = torch.from_numpy(10 ** rng.uniform(-2, 4, 4099))
    n = torch.floor(mean + above) + torch.arange(4099) % 2 * 0.37
    for some in (4099, 8, 3, 0):
        torch.testing.assert_close(
            scan.neg_log10_tail(n[:some], mean[:some]),
            scan.neg_log10_tail_torch(n[:some], mean[:some]),
            rtol=1e-6,
            atol=1e-6,
        )


@pytest.mark.parametrize("filling", [0.02, 0.5, 1.0])
def test_compiled_local_maxima_are_those_of_torch(filling: float):
    rng = np.random.default_rng(2)
    here = rng.random((3, 22, 31)) < filling
    here[:, [0, -1]] = here[:, :, [0, -1]] = False
    place = torch.from_numpy(np.flatnonzero(here))
    evidence = torch.from_numpy(rng.integers(0, 6, len(place)).astype(np.float32))
    kept = scan.local_maxima(evidence, place, 31, here.size)
    assert kept.equal(scan.local_maxima_torch(evidence, place, 31, here.size))


def test_compiled_suppression_is_that_of_torch():
    generator = torch.Generator().manual_seed(3)
    ss, fs = torch.rand((2, 2, 128), generator=generator).mul_(80).round_().div_(2)
    size = 2.0 ** torch.randint(0, 3, (2, 128), generator=generator)
    evidence = torch.linspace(30, scan.FLOOR, 128).repeat(2, 1)
    kept = scan.suppress(evidence, ss, fs, size)
    assert 0 < kept.sum() < kept.numel()
    assert kept.equal(scan.suppress_torch(evidence, ss, fs, size))


def test_tables_that_do_not_fit_are_refused():
    (sums, maxima), tables = maps_of((67, 300), 0.1)
    mean = torch.zeros_like(sums)
    beyond = dataclasses.replace(tables, ring_HW=tables.ring_HW + 1)
    negative = dataclasses.replace(tables, bin_HW=tables.bin_HW - 1)
    for wrong in (beyond, negative):
        with pytest.raises(ValueError, match="ring or bin"):
            background.estimate_compiled(sums, wrong)
    smaller = dataclasses.replace(tables, exposure_HW=tables.exposure_HW[1:])
    with pytest.raises(ValueError, match="exposure"):
        background.estimate_compiled(sums, smaller)
    with pytest.raises(ValueError, match="exposure"):
        scan.above_compiled(sums, maxima, mean, smaller)
