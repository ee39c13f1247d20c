"""Batches arrive whole, in order, and one ahead of the judge; tables are those of each frame."""

import numpy as np
import torch

from hitfinder.models.device_evidence import DeviceEvidence, Uploader
from hitfinder.models.device_tables import stack_maps
from hitfinder.models.evidence import gather_evidence
from hitfinder.models.frontend import Pooled, cell_tables, pool_again, pool_frame
from hitfinder.models.geometry import Geometry


def maps(number: int) -> Pooled:
    return Pooled(
        np.full((3, 4), number, np.uint32), np.full((3, 4), 100 + number, np.uint32), 0, 0
    )


def test_each_batch_arrives_as_it_was_and_the_next_is_on_its_way() -> None:
    asked: list[int] = []

    def batches():
        for number in range(0, 6, 2):
            asked.append(number)
            yield [maps(number), maps(number + 1)]

    for k, (sums_BHW, maxima_BHW) in enumerate(Uploader("cpu").ahead(batches())):
        assert sums_BHW.shape == (2, 3, 4)
        assert sums_BHW[:, 0, 0].tolist() == [2 * k, 2 * k + 1]
        assert maxima_BHW[:, 0, 0].tolist() == [100 + 2 * k, 101 + 2 * k]
        assert asked == [0, 2, 4][: k + 2]


def test_no_batch_gives_nothing() -> None:
    assert list(Uploader("cpu").ahead([])) == []


def test_a_frame_is_looked_at_with_the_tables_of_its_moment() -> None:
    """More frames than a batch, and a pixel of the second tables is learned to be hot."""
    rng, shape = np.random.default_rng(3), (64, 72)
    valid = np.ones(shape, np.bool_)
    before = cell_tables(Geometry.centred(shape), valid)
    valid[20, 30] = False
    after = cell_tables(Geometry.centred(shape), valid)
    cells = [before] * 5 + [after] * 2
    pooled = []
    for tables in cells:
        image = rng.poisson(0.3, shape).astype(np.uint16)
        image[20, 30], image[5:8, 9:11] = 900, 30
        pooled.append(pool_frame(image, valid if tables is after else np.ones_like(valid)))
    found = list(DeviceEvidence("cpu").of(pooled, cells))
    assert len(found) == len(cells)
    for one, p, tables in zip(found, pooled, cells, strict=True):
        other = gather_evidence(p.sums, p.maxima, tables)
        np.testing.assert_array_equal(one.total_N, other.total_N)
        np.testing.assert_allclose(one.exposure_N, other.exposure_N, rtol=2e-5)
        np.testing.assert_array_equal(one.boxes()[2:4, 0], other.boxes()[2:4, 0])


def test_maps_made_on_a_device_are_put_together_there_until_a_pixel_leaves_them() -> None:
    image, valid = np.full((12, 16), 2, np.uint16), np.ones((12, 16), np.bool_)
    made = torch.full((3, 4), 7.0, device="meta"), torch.full((3, 4), 8.0, device="meta")
    on_device = Pooled(*(np.full((3, 4), n, np.uint32) for n in (32, 2)), 384, 0, made)
    sums_BHW, maxima_BHW = stack_maps([on_device, on_device], "meta")
    assert sums_BHW.shape == maxima_BHW.shape == (2, 3, 4)
    assert sums_BHW.is_meta
    valid[0, 0] = False
    again = pool_again(on_device, image, valid, np.array([0]))
    assert again.on_device is None
    assert again.sums[0, 0] == 30
