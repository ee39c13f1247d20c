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
