"""What is compiled for a CPU core against its definition in torch, and what it refuses."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hitfinder.models import (
    _cells,
    device_background,
    device_evidence,
    device_scan,
    places,
    scan,
)
from hitfinder.models.device_tables import stack_maps, tables_on
from hitfinder.models.evidence import MIN_EVIDENCE, gather_evidence, outside_boxes
from hitfinder.models.frontend import CELL_PX, CellTables, cell_tables, pool_frame
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
    (sums, maxima), tables = maps_of(shape, photons_per_px)
    defined = device_background.estimate(sums, tables_on(tables))
    for frame, counts in enumerate(sums.numpy()):
        mean_HW = np.empty(counts.shape, np.float32)
        compiled = gather_evidence(counts, maxima[frame].numpy(), tables, mean_HW, n_candidates=0)
        for one, all_frames in (
            (mean_HW, defined.mean_BHW),
            (compiled.total_N, defined.total_BN),
            (compiled.counts_N, defined.counts_BN),
            (compiled.exposure_N, defined.exposure_BN),
            (compiled.photons_per_px, defined.photons_per_px_B),
        ):
            np.testing.assert_allclose(one, all_frames[frame].numpy(), rtol=2e-5, atol=1e-6)


def by_place(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a scale's candidates, (5, n), in the order of their places."""
    there = columns[:, columns[0] > scan.FLOOR]
    return there[:, np.lexsort(there[2:4])]


def assert_same_candidates(maps: Maps, tables: CellTables) -> NDArray[np.float32]:
    """Scan compiled and, with the background that it found, as defined; compare.

    Returns:
        the candidates, (frames, 5, scales, K).
    """
    means = np.empty(maps[0].shape, np.float32)
    frames = zip(*(m.numpy() for m in maps), means, strict=True)
    compiled = np.stack(
        [
            gather_evidence(sums, maxima, tables, mean).candidates_5SK
            for sums, maxima, mean in frames
        ]
    )
    scanned = device_scan.scan(*maps, torch.from_numpy(means), tables_on(tables))
    defined = torch.stack(scanned.columns(), 1).numpy()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=2e-6)
    close(compiled[:, 0], defined[:, 0])
    for found, other in zip(compiled, defined, strict=True):
        for scale in range(len(scan.SCALES_PX)):
            one, two = by_place(found[:, scale]), by_place(other[:, scale])
            close(one[:2], two[:2])
            np.testing.assert_array_equal(one[2:], two[2:])
    return compiled


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("photons_per_px", [0.0, 0.01, 2.0, 900.0])
def test_the_compiled_candidates_are_those_of_torch(shape, photons_per_px):
    assert_same_candidates(*maps_of(shape, photons_per_px))


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mean=st.floats(1e-4, 30),
    crowd=st.sampled_from([0.0, 0.02, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_candidates_of_any_maps_are_those_of_torch(shape, mean, crowd, seed):
    """Also of cells that no pixel of which counts, and of whole crowds of bright ones."""
    rng = np.random.default_rng(seed)
    valid = rng.random((4 * shape[0], 4 * shape[1])) > rng.choice([0, 0.1, 0.97])
    tables = cell_tables(Geometry.centred(valid.shape), valid)
    expected = rng.uniform(0.5, 1.5, shape) * mean * tables.exposure_HW
    sums = rng.poisson(expected + (rng.random(shape) < crowd) * rng.exponential(500, shape))
    maxima = np.minimum(sums, rng.poisson(sums * rng.random(shape)) + 1)
    maps = tuple(torch.from_numpy(a.astype(np.uint32)[None]) for a in (sums, maxima))
    assert_same_candidates(maps, tables)


def test_candidates_of_saturated_cells_are_those_of_torch():
    rng = np.random.default_rng(5)
    sums = rng.integers(2**31, 2**32, (2, 9, 30), dtype=np.uint32)
    sums[0, 3:6, 4] = 2**32 - 1
    maps = torch.from_numpy(sums), torch.from_numpy(sums >> 3)
    tables = cell_tables(Geometry.centred((36, 120)), np.ones((36, 120), np.bool_))
    assert (assert_same_candidates(maps, tables)[:, 0] > scan.FLOOR).any()


def test_compiled_tails_are_those_of_torch():
    rng = np.random.default_rng(1)
    mean = torch.from_numpy(10 ** rng.uniform(-13, 5, 4099))
    above = torch.from_numpy(10 ** rng.uniform(-2, 4, 4099))
    n = torch.floor(mean + above) + torch.arange(4099) % 2 * 0.37
    for some in (4099, 8, 3, 0):
        compiled = np.empty(some, np.float32)
        _cells.neg_log10_tails(n[:some].numpy(), mean[:some].numpy(), compiled)
        defined = device_scan.neg_log10_tail(n[:some], mean[:some])
        np.testing.assert_allclose(compiled, defined.numpy(), rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    n_each=st.integers(1, 40),
    n_keep=st.integers(1, 200),
    span=st.sampled_from([5, 80]),
    n_levels=st.sampled_from([3, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_box_is_hidden_where_a_stronger_one_reaches_it(n_each, n_keep, span, n_levels, seed):
    """To the bit, ties and empty places included; those that are hidden hide others."""
    rng = np.random.default_rng(seed)
    shape = (len(scan.SCALES_PX), n_each)
    evidence = -np.sort(-rng.integers(-n_levels // 3, n_levels, shape) * 30 / n_levels, axis=1)
    columns = [np.maximum(evidence, scan.FLOOR), rng.normal(size=shape)]
    columns += [rng.integers(0, 2 * span, shape) / 2 for _ in range(2)] + [rng.random(shape)]
    candidates = np.stack(columns).astype(np.float32)
    edge_px = np.repeat(np.float32(scan.SCALES_PX), n_each)
    joined = np.concatenate((candidates.reshape(5, -1), edge_px[None]))
    joined = joined[:, np.argsort(-joined[0], kind="stable")][:, :n_keep]
    evidence, _, ss, fs, _, edge_px = joined
    size = np.maximum(edge_px / CELL_PX, 1)
    apart = np.maximum(np.abs(ss[:, None] - ss), np.abs(fs[:, None] - fs))
    is_hidden = np.tril(apart <= (size[:, None] + size) / 2, -1).any(1)
    expected = joined[:, ~is_hidden & (evidence > scan.FLOOR)]
    np.testing.assert_array_equal(places.merge(candidates, n_keep), expected)


@pytest.mark.parametrize("photons_per_px", [0.01, 2.0])
def test_evidence_is_the_same_wherever_it_is_gathered(photons_per_px):
    maps, tables = maps_of((530, 514), photons_per_px)
    on_device = device_evidence.gather(*maps, tables_on(tables))
    for sums, maxima, other in zip(*(m.numpy() for m in maps), on_device, strict=True):
        one = gather_evidence(sums, maxima, tables)
        np.testing.assert_array_equal(one.total_N, other.total_N)
        for name in ("counts_N", "exposure_N", "photons_per_px"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=2e-5)
        best, same = one.boxes(), other.boxes()
        certain = best[0] > 3
        assert certain.sum() > 20
        np.testing.assert_array_equal(best[2:4, certain], same[2:4, : certain.sum()])


def test_tables_that_do_not_fit_are_refused():
    (sums, maxima), tables = maps_of((67, 300), 0.1)
    maps = sums[0].numpy(), maxima[0].numpy()

    def with_narrow(**changed):
        return dataclasses.replace(tables, narrow=dataclasses.replace(tables.narrow, **changed))

    for name, n in (("bin_HW", tables.exposure_N.size), ("lowest", tables.n_rings)):
        beyond = getattr(tables.narrow, name).copy()
        beyond[-1, -1] = n
        with pytest.raises(ValueError, match="ring or bin"):
            gather_evidence(*maps, with_narrow(**{name: beyond}))
    mean = np.zeros(sums.shape[1:], np.float32)
    smaller = with_narrow(exposure_HW=tables.narrow.exposure_HW[1:])
    with pytest.raises(ValueError, match="exposure"):
        gather_evidence(*maps, smaller)
    with pytest.raises(ValueError, match="maxima"):
        gather_evidence(maps[0], maps[1][1:], tables)
    with pytest.raises(ValueError, match="mean"):
        gather_evidence(*maps, tables, mean[1:])


def test_cells_around_boxes_leave_their_bins_once():
    (sums, maxima), tables = maps_of((530, 514), 2.0)
    counts_HW = sums[0].numpy()
    total_N = gather_evidence(counts_HW, maxima[0].numpy(), tables).total_N
    rng = np.random.default_rng(4)
    edges = rng.choice(scan.SCALES_PX, 60).astype(np.float32)
    # Where a box of that edge can lie: the centre of its cells.
    ss, fs = (
        (rng.integers(0, n - 3, 60) + (np.maximum(edges / 4, 1) - 1) / 2).astype(np.float32)
        for n in counts_HW.shape
    )
    evidence = rng.uniform(0, 2, 60).astype(np.float32)
    near = np.zeros(counts_HW.shape, np.bool_)
    row, column = np.indices(counts_HW.shape)
    for i, j, edge, worth in zip(ss, fs, edges, evidence, strict=True):
        reach = max(edge / 4, 1) / 2 + 1
        is_near = (row >= np.trunc(i - reach)) & (row <= np.trunc(i + reach) + 1)
        is_near &= (column >= np.trunc(j - reach)) & (column <= np.trunc(j + reach) + 1)
        near |= is_near & (worth > MIN_EVIDENCE)
    boxes = np.stack((evidence, evidence, ss, fs, evidence, edges))
    counts_N, exposed_N = outside_boxes(counts_HW, total_N, tables, boxes)
    bins = tables.narrow.bin_HW[~near]
    for found, of in ((counts_N, counts_HW), (exposed_N, tables.narrow.exposure_HW)):
        np.testing.assert_array_equal(found, np.bincount(bins, of[~near], len(total_N)))
