"""What a series teaches: hot pixels are found, patterns that come again are left alone."""

import numpy as np
import pytest

from hitfinder.models import learned
from hitfinder.models.frontend import pool_frame
from hitfinder.models.geometry import Geometry
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.series_context import SeriesContext
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import Detector

SHAPE = (271, 258)  # neither edge is a whole number of cells
PIXEL = (600e-6, 600e-6)
GEOMETRY = Geometry(SHAPE, PIXEL, (128.5, 135.0))
VALID = np.ones(SHAPE, np.bool_)


SETTLED = learned.entries(learned.Kind.SETTLED, [-1], 0, -1)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    # Far from both, whatever the calibration: a detector this small is not what it was made on.
    return Pipeline(threshold=0.99)


def blank(seed: int, dtype: str = "uint16", photons_per_px: float = 0.05):
    return np.random.default_rng(seed).poisson(photons_per_px, SHAPE).astype(dtype)


def places(n: int, seed: int = 0):
    """Return flat indices of pixels that are not neighbours."""
    grid = np.random.default_rng(seed).choice(30 * 30, n, replace=False)
    return (grid // 30 * 8 + 5) * SHAPE[1] + grid % 30 * 8 + 5


def judge_all(pipeline: Pipeline, context: SeriesContext, images):
    return [pipeline.judge([image], context)[0] for image in images]


def known(context: SeriesContext, kind: str):
    entries = context.series.entries
    return learned.pixels_of(entries[entries["kind"] == kind.encode()], SHAPE)


def with_hot(seed: int, hot, mean: float = 30, dtype: str = "uint16"):
    image = blank(seed, dtype)
    counts = np.random.default_rng([seed, 1]).poisson(mean, len(hot))
    image.reshape(-1)[hot] += counts.astype(dtype)
    return image


@pytest.mark.parametrize(("n_hot", "dtype"), [(5, "uint16"), (40, "uint8")])
def test_steady_hot_pixels_are_found_and_nothing_else(pipeline: Pipeline, n_hot, dtype):
    hot = np.sort(places(n_hot))
    context = pipeline.begin(GEOMETRY, VALID)
    assert not context.series.knows_hot_pixels
    judge_all(pipeline, context, [with_hot(k, hot, dtype=dtype) for k in range(16)])
    assert np.array_equal(known(context, "hot"), hot)
    assert context.series.knows_hot_pixels
    assert not context.valid.reshape(-1)[hot].any()
    assert VALID.all()
    (clean,) = pipeline.judge([with_hot(99, hot, mean=200, dtype=dtype)], context)
    assert not clean.is_hit
    assert clean.n_photons == int(np.delete(blank(99), hot).sum())


def test_tables_are_those_of_the_mask_that_was_learned(pipeline: Pipeline):
    hot = places(20)
    learning = pipeline.begin(GEOMETRY, VALID)
    judge_all(pipeline, learning, [with_hot(k, hot) for k in range(12)])
    stated = pipeline.begin(GEOMETRY, learning.valid)
    assert learning.cells.n_valid == stated.cells.n_valid
    for name in ("exposure_HW", "exposure_N"):
        np.testing.assert_array_equal(getattr(learning.cells, name), getattr(stated.cells, name))
    np.testing.assert_array_equal(
        learning.cells.narrow.exposure_HW, stated.cells.narrow.exposure_HW
    )


def test_flickering_pixels_are_found_after_a_while(pipeline: Pipeline):
    hot, context = places(6, seed=4), pipeline.begin(GEOMETRY, VALID)
    for k in range(120):
        lit = hot[np.random.default_rng([k, 2]).random(6) < 0.3]
        pipeline.judge([with_hot(k, lit)], context)
    assert np.array_equal(known(context, "hot"), np.sort(hot))


@pytest.mark.parametrize("hit_fraction", [0.2, 0.5, 1.0])
def test_patterns_that_come_again_are_not_taken_for_hot_pixels(pipeline: Pipeline, hit_fraction):
    patterns = [places(12, seed=k) for k in range(8)]
    rng = np.random.default_rng(7)
    images, truth = [], []
    for k in range(150):
        is_hit = rng.random() < hit_fraction
        images.append(with_hot(k, patterns[rng.integers(8)] if is_hit else []))
        truth.append(is_hit)
    # Before hot pixels are known, spots of a single pixel each are no evidence at all.
    context = pipeline.begin(GEOMETRY, VALID, SETTLED)
    assert [j.is_hit for j in judge_all(pipeline, context, images)] == truth
    assert context.valid.all()


def test_no_spot_of_the_shipped_patterns_is_masked(pipeline: Pipeline):
    detector = Detector(shape=(514, 514))
    center = (detector.center_px[0] - 0.5, detector.center_px[1] - 0.5)
    geometry = Geometry(detector.shape, (75e-6, 75e-6), center)
    source = FrameSource(FrameSettings(("09",), hit_fraction=0.5), 1, detector)
    context = pipeline.begin(geometry, ~detector.gap_mask.reshape(detector.shape), SETTLED)
    untaught = pipeline.begin(geometry, context.valid, SETTLED)
    for k in range(100):
        image = source.draw(k).image
        (judged,) = pipeline.judge([image], context)
        if k % 10 == 0:
            assert judged.is_hit == pipeline.judge([image], untaught)[0].is_hit
    assert not len(context.series.entries) or set(context.series.entries["kind"]) == {b"settled"}


def test_a_hot_pixel_inside_a_spot_is_found_alone(pipeline: Pipeline):
    hot = places(1)
    row, column = divmod(int(hot[0]), SHAPE[1])
    context = pipeline.begin(GEOMETRY, VALID)
    for k in range(16):
        image = with_hot(k, hot)
        if k % 3 == 0:
            rng = np.random.default_rng([k, 3])
            at = np.rint(rng.normal((row, column), 1.5, (60, 2))).astype(int)
            np.add.at(image, tuple(at.T), 1)
        pipeline.judge([image], context)
    assert known(context, "hot").tolist() == hot.tolist()


def test_wide_spots_in_every_frame_teach_nothing(pipeline: Pipeline):
    context = pipeline.begin(GEOMETRY, VALID)
    centres = np.stack(np.divmod(places(10), SHAPE[1]), axis=1)
    for k in range(24):
        image, rng = blank(k), np.random.default_rng([k, 3])
        at = np.rint(np.repeat(centres, 80, 0) + rng.normal(0, 1.5, (800, 2))).astype(int)
        np.add.at(image, tuple(at.T), 1)
        assert pipeline.judge([image], context)[0].is_hit
    assert not len(known(context, "hot"))


def test_the_same_pixels_teach_once(pipeline: Pipeline):
    image = with_hot(1, places(20))
    context = pipeline.begin(GEOMETRY, VALID)
    verdicts = judge_all(pipeline, context, [image] * 20)
    assert context.series.version == 0
    assert len({j.p_any for j in verdicts}) == 1


def test_a_verdict_can_be_reached_again_from_its_version(pipeline: Pipeline):
    hot = places(10)
    images = [with_hot(k, hot, mean=8) for k in range(30)]
    context = pipeline.begin(GEOMETRY, VALID)
    judged = judge_all(pipeline, context, images)
    assert len({j.n_learned for j in judged}) > 2
    again = pipeline.begin(GEOMETRY, VALID)
    assert judge_all(pipeline, again, images)[-1].p_any == judged[-1].p_any
    for k in (0, 9, 13, 29):
        of_version = pipeline.begin(GEOMETRY, VALID, context.series.entries[: judged[k].n_learned])
        (same,) = pipeline.judge([images[k]], of_version)
        assert (same.p_any, same.p_spots3) == (judged[k].p_any, judged[k].p_spots3)
        assert (same.n_photons, same.n_learned) == (judged[k].n_photons, judged[k].n_learned)


def test_a_batch_teaches_as_one_by_one(pipeline: Pipeline):
    hot = places(10)
    images = [with_hot(k, hot) for k in range(14)]
    one, batch, pooled = (pipeline.begin(GEOMETRY, VALID) for _ in range(3))
    expected = judge_all(pipeline, one, images)
    maps = [pool_frame(image, VALID) for image in images]
    for got in (pipeline.judge(images, batch), pipeline.judge(images, pooled, maps)):
        assert [(j.p_any, j.n_learned) for j in got] == [(j.p_any, j.n_learned) for j in expected]
        assert [j.n_photons for j in got] == [j.n_photons for j in expected]
    assert expected[-1].n_learned >= len(hot)


def test_the_next_series_starts_from_the_hot_pixels(pipeline: Pipeline):
    hot = places(10)
    first = pipeline.begin(GEOMETRY, VALID)
    judge_all(pipeline, first, [with_hot(k, hot) for k in range(16)])
    second = pipeline.begin(GEOMETRY, VALID, learned.hot_before(first.series.entries))
    assert second.series.knows_hot_pixels
    assert np.array_equal(known(second, "hot"), np.sort(hot))
    assert not pipeline.judge([with_hot(50, hot)], second)[0].is_hit


def test_dead_and_shadowed_regions_are_masked_in_squares(pipeline: Pipeline):
    dead, shadow = np.s_[8:40, 8:72], np.s_[160:224, 64:96]
    context = pipeline.begin(GEOMETRY, VALID)
    for k in range(70):
        image = blank(k, photons_per_px=1.0)
        image[dead] = 0
        image[shadow] = np.random.default_rng([k, 1]).poisson(0.25, (64, 32))
        pipeline.judge([image], context)
    for kind, region in (("dead", dead), ("shadow", shadow)):
        found = np.zeros(SHAPE, np.bool_)
        found.reshape(-1)[known(context, kind)] = True
        assert found[region].mean() > 0.9
        found[region] = False
        assert not found.any()


def test_the_flux_scale_is_relative_to_the_series(pipeline: Pipeline):
    context = pipeline.begin(GEOMETRY, VALID)
    judge_all(pipeline, context, [blank(k) for k in range(20)])
    (bright,) = pipeline.judge([blank(30, photons_per_px=0.1)], context)
    assert bright.flux_scale == pytest.approx(2, rel=0.1)


def test_dark_and_saturated_frames_teach_nothing(pipeline: Pipeline):
    context = pipeline.begin(GEOMETRY, VALID)
    for image in (np.zeros(SHAPE, np.uint16), np.full(SHAPE, 65535, np.uint16)) * 12:
        pipeline.judge([image], context)
    assert context.series.version == 0
