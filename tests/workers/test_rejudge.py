"""Kept frames judged again say what was stamped on them, and a changed stamp is named."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hitfinder.models.pipeline import Pipeline
from hitfinder.sim.encoding import Encoder
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.learned import LearnedList
from hitfinder.stream.messages import Blob, Codec, SeriesStart
from hitfinder.stream.results import Outcome, Record
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.workers.config import Config, GateConfig
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.rejudge import rejudge_run

SHAPE, N_FRAMES, N_HOT = (128, 128), 14, 6
CONFIG = Config(gate=GateConfig(threshold=0.99))


def frames() -> list[np.ndarray]:
    """Return dim frames with hot pixels, which are learned on the way."""
    rng = np.random.default_rng(5)
    images = [rng.poisson(0.05, SHAPE).astype(np.uint16) for _ in range(N_FRAMES)]
    hot = rng.choice(SHAPE[0] * SHAPE[1], N_HOT, replace=False)
    for image in images:
        image.ravel()[hot] += rng.poisson(30, N_HOT).astype(np.uint16)
    return images


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a series as a worker judges it and the sink stores it, every frame kept."""
    start = SeriesStart(1, n_frames=N_FRAMES, shape=SHAPE, dtype="uint16", clen_m=0.15)
    stated = OperatorGeometry(CONFIG.geometry)
    pipeline = Pipeline(threshold=CONFIG.gate.threshold)
    images = frames()
    of_series = stated.of_series(start, images[0])
    context = pipeline.begin(of_series.geometry, of_series.valid)
    stored = []
    for k, judged in enumerate(pipeline.judge(images, context)):
        record = Record(
            series=1,
            frame=k,
            outcome=Outcome.HIT if judged.is_hit else Outcome.MISS,
            p_hit=judged.p_hit,
            threshold=judged.threshold,
            p_any=judged.p_any,
            p_spots3=judged.p_spots3,
            n_peaks=len(judged.peaks),
            model=pipeline.gate.model_id,
            learned_by=0,
            n_learned=judged.n_learned,
        )
        payload = memoryview(Encoder("v2", "bslz4", "uint16")(images[k]).payload)
        blob = Blob("threshold_1", SHAPE, "uint16", Codec.BSLZ4, 2, payload)
        stored.append(JudgedFrame(record, (blob,)))
    series = SeriesFolder(
        tmp_path,
        start,
        {"config": CONFIG.as_json()},
        geometry=stated.stated(start),
        miss_sample_fraction=1,
    )
    series.write(stored)
    learned = LearnedList(0, SHAPE, context.series.entries)
    assert len(learned.entries) > N_HOT
    series.close({}, [], "ended", learned=[learned])
    return series.folder


def test_frames_judged_again_are_as_stamped_whatever_had_been_learned(run):
    again = rejudge_run(run)
    assert again.ok, str(again)
    assert str(again) == f"{N_FRAMES} kept frames judged again: all as stamped"


def test_a_changed_probability_outcome_or_model_is_named(run):
    path = next(run.glob("misses_*.h5"))
    with h5py.File(path, "r+") as file:
        columns = file["entry/hitfinder"]
        n_rows, numbers = len(columns["frame"]), columns["frame"][:3].tolist()
        columns["p_any"][0] = 0.5
        columns["outcome"][1] = b"hit"
        columns["model"][2] = b"another"
    again = rejudge_run(run.parent)
    assert n_rows >= 3
    assert again.n_frames == N_FRAMES
    first, second, third = again.problems
    assert f"frame {numbers[0]}: p_any was 0.500000, now" in first
    assert f"frame {numbers[1]}: was a hit, now a miss" in second
    assert f"frame {numbers[2]}: judged by model another" in third
