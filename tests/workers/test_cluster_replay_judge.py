"""A judge on a node: what comes back of the frames it is dealt, without a cluster around it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from tests.system.recorded import recorded_series

from hitfinder import HitfinderError, __version__
from hitfinder.stream.controls import AS_CONFIGURED, Change
from hitfinder.stream.recording_series import RecordedSeries, dealt
from hitfinder.stream.recordings import open_recordings
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.workers.cluster_replay_frames import Begin, Dealt, JudgedFrames
from hitfinder.workers.cluster_replay_judge import Judge, NotBegunError, UnreadableError
from hitfinder.workers.config import Config

N_FRAMES, DAMAGED = 40, 7


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    (path,) = recorded_series(tmp_path_factory.mktemp("recorded"), range(3, 4), N_FRAMES)
    with h5py.File(path, "r+") as file:
        file["entry/data/data"].id.write_direct_chunk((DAMAGED, 0, 0), b"not packed pixels")
    return path


@pytest.fixture(scope="module")
def judge() -> Judge:
    config = Config()
    config.sink.miss_sample_fraction = 0.0
    return Judge(__version__, config, "cpu")


def _series(path: Path) -> RecordedSeries:
    (recording,) = open_recordings([path])
    return recording.series[0]


def _judged(
    judge: Judge, path: Path, lane: int, size: int, *changes: Change
) -> list[JudgedFrames]:
    series, found = _series(path), []
    portions = list(dealt(series.spans, size, lambda frame: True))
    for n, spans in enumerate(portions):
        begin = None if n else Begin(series.start(), ())
        is_last = n == len(portions) - 1
        found.append(
            judge.judge(Dealt((series.series or 0, lane), spans, begin, is_last, changes))
        )
    return found


def _rows(found: list[JudgedFrames]) -> np.ndarray:
    return np.concatenate([one.rows for one in found])


def test_verdicts_do_not_depend_on_how_frames_are_dealt(judge, path):
    whole, parts = _judged(judge, path, 0, N_FRAMES), _judged(judge, path, 1, 7)
    rows, again = _rows(whole), _rows(parts)
    assert rows["frame"].tolist() == list(range(N_FRAMES))
    for name in ("outcome", "p_any", "p_spots3", "n_peaks", "n_photons", "n_learned", "series"):
        np.testing.assert_array_equal(again[name], rows[name], err_msg=name)
    assert {OUTCOMES[o] for o in rows["outcome"][::2]} == {Outcome.HIT}
    assert OUTCOMES[rows["outcome"][DAMAGED]] is Outcome.CORRUPT


def test_only_bytes_that_are_kept_come_back_and_one_miss_to_look_at(judge, path):
    (judged,) = _judged(judge, path, 0, N_FRAMES)
    with h5py.File(path) as file:
        images = file["entry/data/data"].id
        packed = [images.read_direct_chunk((i, 0, 0))[1] for i in range(N_FRAMES)]
    outcomes = [OUTCOMES[o] for o in judged.rows["outcome"]]
    for outcome, payload, stored in zip(outcomes, judged.payloads, packed, strict=True):
        assert payload in {Outcome.HIT: (stored,), Outcome.MISS: (stored, b"")}.get(
            outcome, (b"",)
        )
    n_misses = sum(
        bool(payload) and outcome is Outcome.MISS
        for outcome, payload in zip(outcomes, judged.payloads, strict=True)
    )
    assert n_misses <= 1


def test_what_was_changed_holds_from_its_frame_on(judge, path):
    everything = AS_CONFIGURED._replace(key=1, frame=10, threshold=0.0)
    rows = _rows(_judged(judge, path, 0, 8, everything))
    judged = rows[rows["outcome"] != OUTCOMES.index(Outcome.CORRUPT)]
    assert (judged["threshold"][judged["frame"] >= 10] == 0.0).all()
    assert (judged["threshold"][judged["frame"] < 10] > 0.0).all()


def test_a_lane_goes_on_where_it_began_with_what_was_taught(judge, path):
    series = _series(path)
    first, *rest = dealt(series.spans, N_FRAMES // 2, lambda frame: True)
    begun = judge.judge(Dealt((3, 5), first, Begin(series.start(), ()), False, ()))
    again = judge.judge(Dealt((3, 6), rest[0], Begin(series.start(), begun.learned), True, ()))
    n_taught = sum(len(one.entries) for one in begun.learned)
    assert n_taught > 0
    judged = again.rows[again.rows["n_learned"] >= 0]
    assert (judged["n_learned"] >= n_taught).all()


def test_a_lane_that_did_not_begin_here_is_refused(judge, path):
    (spans,) = dealt(_series(path).spans, N_FRAMES, lambda frame: True)
    with pytest.raises(NotBegunError, match="series 3"):
        judge.judge(Dealt((3, 9), spans, None, False, ()))


def test_a_file_that_is_not_on_this_node_is_named(judge, path, tmp_path):
    series = _series(path)
    (spans,) = dealt(series.spans, N_FRAMES, lambda frame: True)
    elsewhere = tmp_path / "elsewhere.h5"
    assert judge.unreadable([path, elsewhere]) == [elsewhere]
    path.rename(elsewhere)
    try:
        with pytest.raises(UnreadableError, match=path.name):
            judge.judge(Dealt((3, 0), spans, Begin(series.start(), ()), True, ()))
    finally:
        elsewhere.rename(path)


def test_another_version_of_the_program_is_refused():
    with pytest.raises(HitfinderError, match="0.0.0"):
        Judge("0.0.0", Config(), "cpu")
