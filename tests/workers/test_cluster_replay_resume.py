"""What an earlier replay has done is known, and never taken for that of another recording."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.system.recorded import recorded_series
from tests.workers.cluster_actors import Actors, Replay

from hitfinder.stream.results import Outcome
from hitfinder.workers.cluster_replay_resume import earlier, require_same
from hitfinder.workers.config import ConfigError

N_FRAMES = 12


@pytest.fixture
def done(tmp_path) -> Replay:
    """Return a finished replay of one series, in folder `out`."""
    replay = Replay(tmp_path, recorded_series(tmp_path, range(1, 2), N_FRAMES))
    replay.play(replay.dealer(Actors(1)))
    return replay


def test_a_finished_series_is_passed_over(done, tmp_path):
    (series,) = done.recorded
    before = earlier(done.out, series)
    assert before is not None
    assert before.is_finished
    assert before.frames.tolist() == list(range(N_FRAMES))
    assert before.outcomes == (Outcome.MISS,) * N_FRAMES
    again, actors = Replay(tmp_path, [series.spans[0].path]), Actors(1)
    again.play(again.dealer(actors))
    assert not actors.dealt
    assert [path.name for path in done.out.iterdir()] == [before.folder.name]


def test_another_recording_with_the_same_header_is_another_series(done, tmp_path):
    (series,) = done.recorded
    path: Path = series.spans[0].path
    other = path.rename(tmp_path / "other.h5")
    for changed in (other, path):
        if changed == path:
            other.rename(path)
            os.utime(path, ns=(0, 0))
        replay, actors = Replay(tmp_path, [changed]), Actors(1)
        replay.play(replay.dealer(actors))
        assert sum(len(frames) for _, _, frames in actors.dealt) == N_FRAMES
    assert len(list(done.out.iterdir())) == 3


def test_another_threshold_is_refused(done):
    require_same(done.out, done.recorded[0], done.config)
    done.config.gate.threshold = 0.9
    with pytest.raises(ConfigError, match=r"\[gate\].*--out"):
        require_same(done.out, done.recorded[0], done.config)


def test_a_series_that_never_began_is_not_known(done, tmp_path):
    (series,) = done.recorded
    assert earlier(tmp_path / "elsewhere", series) is None


def test_a_ledger_that_is_damaged_leaves_its_series_out_and_says_so(done, tmp_path):
    (folder,) = done.out.iterdir()
    (folder / "summary.json").unlink()
    (folder / "ledger.h5").write_bytes(b"not a ledger")
    again, actors = Replay(tmp_path, [done.recorded[0].spans[0].path]), Actors(1)
    again.play(again.dealer(actors))
    assert not actors.dealt
    assert any("series 1 left out" in line for line in again.ring.errors())
