"""Frames for eyes: copied before the slot is free, decoded apart, bounded in number."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.workers.page_parts import blob_of, judged

from hitfinder.models.learned import Kind, entries
from hitfinder.stream.intake import header_path
from hitfinder.stream.learned import LearnedList, save_learned
from hitfinder.stream.messages import Blob, SeriesStart, pack_start
from hitfinder.stream.results import Outcome
from hitfinder.workers import frame_samples
from hitfinder.workers.config import GeometryConfig
from hitfinder.workers.frame_samples import KEPT, NO_COUNTS, FrameSamples
from hitfinder.workers.geometry import OperatorGeometry

SHAPE, KEY = (64, 80), 3


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FrameSamples]:
    """Yield samples of a series with a header, that are always due."""
    monkeypatch.setattr(frame_samples, "PERIOD_S", 0.0)
    monkeypatch.setattr(frame_samples, "CORE_SHARE", np.inf)
    header_path(tmp_path, KEY).write_bytes(pack_start(SeriesStart(series=12)))
    made = FrameSamples(tmp_path, OperatorGeometry(GeometryConfig()))
    yield made
    made.close()


def frame_of(counts: int) -> np.ndarray:
    image = np.full(SHAPE, counts, np.uint16)
    image[10, 20] = 500
    return image


def give(samples: FrameSamples, outcome: Outcome, frame: int, blob: Blob, key: int = KEY) -> None:
    """Hand a frame over as the publisher does, and wait until it is decoded or refused."""
    before, others = len(samples.latest(outcome)), samples.latest(outcome)
    until(lambda: samples.wants(outcome))
    samples.take(key, judged(outcome, frame, learned_by=0, n_learned=0), blob)
    newest = others[0].number if others else 0
    until(
        lambda: (
            len(samples.latest(outcome)) > before
            or bool(samples.latest(outcome) and samples.latest(outcome)[0].number > newest)
        )
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, "the frame was not taken"
        time.sleep(0.005)


def test_a_frame_is_seen_whole_and_close_and_added_up(samples: FrameSamples) -> None:
    sent = bytearray(blob_of(frame_of(2)).payload)
    give(samples, Outcome.HIT, 7, replace(blob_of(frame_of(2)), payload=memoryview(sent)))
    sent[:] = bytes(len(sent))  # the slot is used again
    (frame,) = samples.latest(Outcome.HIT)
    assert (frame.record.frame, frame.blob.shape) == (7, SHAPE)
    pooled = samples.pooled(frame)
    assert pooled.shape == (16, 20)
    assert pooled[0, 0] == 32
    assert pooled[2, 5] == 32 + 498
    crop = samples.crop(frame, 10, 19, 4)
    assert crop[0].tolist() == [2, 500, 2, 2]
    assert samples.crop(frame, 62, 78, 100).shape == (2, 2)
    give(samples, Outcome.HIT, 8, blob_of(frame_of(4)))
    assert samples.series is not None
    powder = samples.series.powder
    assert (powder[Outcome.HIT].n_frames, powder[Outcome.MISS].n_frames) == (2, 0)
    assert powder[Outcome.HIT].per_px()[0, 0] == 3.0
    assert samples.brightest()["most_counts"] == 500


def test_what_workers_learned_to_be_hot_is_left_out(samples: FrameSamples, tmp_path: Path) -> None:
    hot = entries(Kind.HOT, [10 * SHAPE[1] + 20], 1, 0)
    save_learned(tmp_path, KEY, LearnedList(0, SHAPE, hot))
    give(samples, Outcome.MISS, 0, blob_of(frame_of(1)))
    (frame,) = samples.latest(Outcome.MISS)
    assert samples.crop(frame, 10, 20, 1).item() == NO_COUNTS
    assert samples.pooled(frame)[2, 5] == 15
    assert samples.brightest()["most_counts"] == 1


def test_only_the_latest_are_kept(samples: FrameSamples) -> None:
    blob = blob_of(frame_of(1))
    for frame in range(KEPT[Outcome.MISS] + 3):
        give(samples, Outcome.MISS, frame, blob)
    kept = samples.latest(Outcome.MISS)
    assert [f.record.frame for f in kept] == [6, 5, 4, 3]
    assert samples.frame(kept[0].number) is kept[0]
    assert samples.frame(1) is None


def test_another_series_starts_its_own_sum(samples: FrameSamples, tmp_path: Path) -> None:
    give(samples, Outcome.HIT, 0, blob_of(frame_of(1)))
    header_path(tmp_path, KEY + 1).write_bytes(pack_start(SeriesStart(series=13)))
    give(samples, Outcome.HIT, 0, blob_of(frame_of(5)), KEY + 1)
    assert samples.series is not None
    assert samples.series.key == KEY + 1
    assert samples.series.powder[Outcome.HIT].per_px()[0, 0] == 5.0


def test_a_series_that_is_over_and_bytes_that_are_wrong_are_passed_over(
    samples: FrameSamples,
) -> None:
    whole = blob_of(frame_of(1))
    samples.take(KEY + 9, judged(Outcome.HIT), whole)
    until(lambda: samples.wants(Outcome.HIT))
    samples.take(KEY, judged(Outcome.HIT), replace(whole, payload=whole.payload[:-20]))
    give(samples, Outcome.HIT, 5, whole)
    assert [f.record.frame for f in samples.latest(Outcome.HIT)] == [5]


def test_frames_without_a_judgement_are_not_wanted(samples: FrameSamples) -> None:
    assert not samples.wants(Outcome.CORRUPT)


def test_no_more_than_the_stated_share_of_a_core_is_spent(tmp_path: Path) -> None:
    header_path(tmp_path, KEY).write_bytes(pack_start(SeriesStart(series=12)))
    samples = FrameSamples(tmp_path, OperatorGeometry(GeometryConfig()))
    try:
        assert samples.wants(Outcome.HIT)
        samples.take(KEY, judged(Outcome.HIT), blob_of(frame_of(1)))
        assert not samples.wants(Outcome.HIT)
        assert samples.wants(Outcome.MISS)
    finally:
        samples.close()
