"""The whole judgement, with the shipped weights, on small detectors."""

import dataclasses

import numpy as np
import pytest

from hitfinder.models.errors import ModelError
from hitfinder.models.frontend import pool_frame
from hitfinder.models.geometry import Geometry
from hitfinder.models.judgement import Judgement
from hitfinder.models.pipeline import Pipeline

SHAPE = (540, 516)
GEOMETRY = Geometry(SHAPE, (300e-6, 300e-6), (257.5, 269.5))
VALID = np.ones(SHAPE, np.bool_)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline()


def blank(seed: int, photons_per_px: float = 0.05):
    return np.random.default_rng(seed).poisson(photons_per_px, SHAPE).astype(np.uint16)


def with_spots(seed: int, photons: float = 60, sigma_px: float = 1.5, n: int = 8):
    """Return a frame and the true (ss, fs) of its spots, far from each other."""
    rng = np.random.default_rng(seed)
    image = blank(seed)
    grid = [(60 + 110 * (k // 4), 60 + 110 * (k % 4)) for k in range(n)]
    spots = np.array(grid) + rng.uniform(-10, 10, (n, 2))
    for spot in spots:
        at = np.rint(spot + rng.normal(0, sigma_px, (rng.poisson(photons), 2))).astype(int)
        np.add.at(image, tuple(at.T), 1)
    return image, spots


def assert_same(a: Judgement, b: Judgement):
    for field in dataclasses.fields(Judgement):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if field.name == "peaks":
            for column in dataclasses.fields(one):
                np.testing.assert_array_equal(
                    getattr(one, column.name), getattr(other, column.name)
                )
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, field.name


def test_a_batch_is_judged_as_one_by_one(pipeline: Pipeline):
    batch, single, mapped = (pipeline.begin(GEOMETRY, VALID) for _ in range(3))
    images = [blank(1), with_spots(2)[0], blank(3, 2.0), with_spots(4)[0]]
    together = pipeline.judge(images, batch)
    assert [j.is_hit for j in together] == [False, True, False, True]
    for image, judgement in zip(images, together, strict=True):
        assert_same(judgement, pipeline.judge([image], single)[0])
    pooled = [pool_frame(image, VALID) for image in images]
    for a, b in zip(pipeline.judge(images, mapped, pooled), together, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("sigma_px", [0.0, 1.5, 3.0])
def test_planted_spots_are_found_within_a_pixel(pipeline: Pipeline, sigma_px: float):
    image, spots = with_spots(11, photons=80, sigma_px=sigma_px)
    peaks = pipeline.run(image, GEOMETRY).peaks
    found = np.stack((peaks.ss, peaks.fs), axis=1)[peaks.p > 0.5]
    apart = np.hypot(*(spots[:, None] - found[None]).transpose(2, 0, 1))
    assert (apart.min(axis=1) < 1).all()
    assert len(found) == len(spots)
    nearest = apart.argmin(axis=1)
    assert np.median(peaks.intensity[peaks.p > 0.5][nearest]) == pytest.approx(80, rel=0.2)
    assert (peaks.snr[peaks.p > 0.5] > 4).all()


def test_of_a_crowd_nearly_every_spot_is_named(pipeline: Pipeline):
    rng = np.random.default_rng(6)
    shape = (1080, 1032)
    image = rng.poisson(0.05, shape).astype(np.uint16)
    rows, columns = np.mgrid[30:1060:36, 30:1010:36]
    spots = np.stack((rows.ravel(), columns.ravel()), axis=1) + rng.uniform(-8, 8, (rows.size, 2))
    for spot in spots:
        at = np.rint(spot + rng.normal(0, 1.0, (rng.poisson(80), 2))).astype(int)
        np.add.at(image, tuple(at.T), 1)
    peaks = pipeline.run(image, Geometry(shape, (150e-6, 150e-6), (515.5, 539.5))).peaks
    found = np.stack((peaks.ss, peaks.fs), axis=1)
    apart = np.hypot(*(spots[:, None] - found[None]).transpose(2, 0, 1))
    assert len(spots) > 800
    assert (apart.min(axis=1) < 2).mean() > 0.95
    assert (apart.min(axis=0) < 2).mean() > 0.98


def test_energy_and_clen_are_given_on_hits_only(pipeline: Pipeline):
    miss, hit = (pipeline.run(image, GEOMETRY) for image in (blank(1), with_spots(2)[0]))
    for name in ("photon_energy_eV", "photon_energy_sigma_eV", "clen_m", "clen_sigma_m"):
        assert getattr(miss, name) is None
        assert getattr(hit, name) > 0
    assert miss.matrix is None
    assert hit.matrix is not None
    assert hit.matrix.sum() == pytest.approx(1)
    assert not len(miss.peaks)


def test_the_headers_energy_and_clen_change_nothing(pipeline: Pipeline):
    image, _ = with_spots(2)
    stated = dataclasses.replace(GEOMETRY, clen_m=0.35, photon_energy_eV=8000.0)
    assert_same(pipeline.run(image, GEOMETRY), pipeline.run(image, stated))


def test_a_gap_that_no_mask_names_is_judged_as_if_masked(pipeline: Pipeline):
    image, _ = with_spots(5)
    miss = blank(6)
    masked = VALID.copy()
    masked[200:238], masked[:, 250:262] = False, False
    for frame in (image, miss):
        frame[~masked] = 65535
    unnamed = pipeline.begin(GEOMETRY, VALID)
    named = pipeline.begin(GEOMETRY, masked)
    for frame in (image, miss, image):
        a = pipeline.judge([frame], unnamed)[0]
        b = pipeline.judge([frame], named)[0]
        assert a.is_hit == b.is_hit
        assert a.p_any == pytest.approx(b.p_any)
        assert a.background_photons_per_px == pytest.approx(b.background_photons_per_px)
        assert a.n_saturated == int((~masked).sum())
        assert b.n_saturated == 0


# Five on this detector are as dense as 80 on a 4M.
@pytest.mark.parametrize("n_hot", [1, 5])
def test_three_spots_are_not_seen_in_isolated_hot_pixels(n_hot: int):
    robust = Pipeline(mode="spots3")
    context = robust.begin(GEOMETRY, VALID)
    rng = np.random.default_rng(n_hot)
    images = []
    for seed in range(20):
        image = blank(100 + seed)
        places = rng.choice(256, n_hot, replace=False)  # of a grid 32 px wide, so isolated
        at = np.stack(np.divmod(places, 16), axis=1) * 32 + rng.integers(2, 14, (n_hot, 2))
        image[tuple(at.T)] += rng.integers(5, 2000, n_hot).astype(np.uint16)
        images.append(image)
    # Hot pixels stay where they are; at new places each is the first frame of its series.
    first = [robust.judge([i], robust.begin(GEOMETRY, VALID))[0] for i in images]
    assert sum(j.is_hit for j in first) == 0
    assert robust.judge([with_spots(3)[0]], context)[0].is_hit


def test_bright_frames_are_judged_too(pipeline: Pipeline):
    context = pipeline.begin(GEOMETRY, VALID)
    assert not any(j.is_hit for j in pipeline.judge([blank(s, 2.0) for s in range(10)], context))
    image = blank(50, 2.0)
    rng = np.random.default_rng(50)
    for i, j in rng.integers(40, 480, (6, 2)):
        at = np.rint(rng.normal((i, j), 1.5, (150, 2))).astype(int)
        np.add.at(image, tuple(at.T), 1)
    judged = pipeline.judge([image], context)[0]
    assert judged.is_hit
    assert judged.background_photons_per_px == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_pixel_types_mean_the_same(pipeline: Pipeline, dtype: str):
    image, _ = with_spots(2)
    assert_same(pipeline.run(image.astype(dtype), GEOMETRY), pipeline.run(image, GEOMETRY))


def test_dead_and_dark_frames_are_misses(pipeline: Pipeline):
    full = np.full(SHAPE, 65535, np.uint16)
    for image in (np.zeros(SHAPE, np.uint16), full):
        judged = pipeline.run(image, GEOMETRY)
        assert not judged.is_hit
        assert judged.n_photons == 0


def test_a_frame_of_another_shape_is_refused(pipeline: Pipeline):
    context = pipeline.begin(GEOMETRY, VALID)
    with pytest.raises(ModelError, match="begin a new series"):
        pipeline.judge([np.zeros((8, 8), np.uint16)], context)


def test_a_stated_threshold_decides():
    image = blank(1)
    assert Pipeline(threshold=0.0).run(image, GEOMETRY).is_hit
    assert not Pipeline(threshold=1.0).run(with_spots(2)[0], GEOMETRY).is_hit


def test_rates_the_calibration_cannot_tell_and_unknown_words_are_refused():
    with pytest.raises(ModelError, match="ask for at least"):
        Pipeline(max_false_positive_rate=1e-9)
    with pytest.raises(ModelError, match="above 0"):
        Pipeline(max_false_positive_rate=0)
    with pytest.raises(ModelError, match="any, spots3"):
        Pipeline(mode="maybe")
    lax, strict = (Pipeline(max_false_positive_rate=r).threshold for r in (0.1, 1e-3))
    assert lax < strict


def test_an_image_in_read_only_memory_is_judged(pipeline: Pipeline):
    image, _ = with_spots(2)
    image.flags.writeable = False
    assert pipeline.run(image, GEOMETRY).is_hit
