"""Dealing series to actors that die, cannot read, or forget: each frame is judged once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.recorded import recorded_series
from tests.workers.cluster_actors import N_SLOTS, Actors, Replay

from hitfinder.stream.controls import Controls
from hitfinder.workers.cluster import ClusterError
from hitfinder.workers.cluster_replay_dealer import FLYING

N_FRAMES = 40


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> list[Path]:
    return recorded_series(tmp_path_factory.mktemp("recorded"), range(1, 4), N_FRAMES)


@pytest.fixture
def replay(paths, tmp_path) -> Iterator[Replay]:
    replay = Replay(tmp_path, paths)
    yield replay
    replay.close()


ALL = [(series, frame) for series in (1, 2, 3) for frame in range(N_FRAMES)]


def _by_series(stored: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """Return (series, frame), series by series, frames in the order in which they came."""
    return sorted(((s, f) for s, f, _ in stored), key=lambda one: one[0])


def test_a_series_goes_to_one_actor_in_order(replay):
    actors = Actors(2)
    replay.play(replay.dealer(actors))
    assert _by_series(replay.stored) == ALL
    assert len({(actor, lane) for actor, lane, _ in actors.dealt}) == 3
    assert {actor for actor, _, _ in actors.dealt} == {0, 1}
    assert max(len(frames) for _, _, frames in actors.dealt) == N_SLOTS // FLYING
    assert actors.most_waiting <= FLYING


def test_what_a_dead_actor_had_is_judged_by_others(replay):
    actors = Actors(2)
    dealer = replay.dealer(actors)
    for n in (1, 2, 3):
        replay.play(dealer, until=lambda n=n: len(replay.stored) > n * N_FRAMES // 2)
        for answer in actors.kill(0):
            dealer.take(answer)
    replay.play(dealer)
    assert _by_series(replay.stored) == ALL
    assert {outcome for _, _, outcome in replay.stored} == {"miss"}
    assert any("node0 died" in line for line in replay.ring.errors())


def test_only_the_frame_that_kills_is_given_up(replay):
    actors = Actors(2)
    actors.poison = {13}
    replay.play(replay.dealer(actors))
    assert _by_series(replay.stored) == ALL
    assert [one for one in replay.stored if one[2] != "miss"] == [(1, 13, "lost")]
    assert actors.n_deaths == 1 + 3  # once among others, then alone


def test_an_actor_that_forgot_a_lane_is_told_to_begin_it_again(replay):
    actors = Actors(1)
    dealer = replay.dealer(actors)
    replay.play(dealer, until=lambda: len(replay.stored) > N_FRAMES // 2)
    actors.begun[0].clear()
    replay.play(dealer)
    assert _by_series(replay.stored) == ALL
    assert actors.n_deaths == 0


def test_a_node_that_cannot_read_is_named_and_left_out(replay, caplog):
    actors = Actors(2)
    actors.blind = {1}
    replay.play(replay.dealer(actors))
    assert _by_series(replay.stored) == ALL
    assert {actor for actor, _, _ in actors.dealt} == {0}
    assert "node node1 cannot read" in caplog.text
    assert str(replay.recorded[-1].spans[0].path) in caplog.text


def test_a_change_reaches_every_frame_that_it_holds_for(replay):
    actors = Actors(1)
    dealer = replay.dealer(actors)
    replay.play(dealer, until=lambda: len(replay.stored) > 0)
    change = Controls(replay.ring).put(threshold=0.25)
    replay.play(dealer)
    assert change.series == 1
    assert change.frame < N_FRAMES
    for (_, (series, _), frames), changes in zip(actors.dealt, actors.changes, strict=True):
        if series > 1 or frames[-1] >= change.frame:
            (told,) = changes
            assert told.threshold == 0.25
            assert told.frame == (change.frame if series == 1 else 0)


def test_where_no_node_can_read_it_ends(replay):
    actors = Actors(1)
    actors.blind = {0}
    dealer = replay.dealer(actors)
    with pytest.raises(ClusterError, match=r"cannot read .*run0\d.h5"):
        replay.play(dealer)


def test_a_successor_goes_on_with_what_the_ring_has_seen(replay):
    first, second = Actors(2), Actors(2)
    replay.play(replay.dealer(first), until=lambda: len(replay.stored) > N_FRAMES)
    replay.play(replay.dealer(second))
    assert _by_series(replay.stored) == ALL


@pytest.mark.parametrize("n_blind", [0, 2])
def test_a_long_series_is_dealt_to_several_in_order(n_blind, paths, tmp_path, monkeypatch):
    monkeypatch.setattr("hitfinder.workers.cluster_replay_dealer.LANE_FRAMES", N_FRAMES // 4)
    replay = Replay(tmp_path, paths[:1])
    actors = Actors(3)
    actors.blind = set(range(n_blind))
    replay.play(replay.dealer(actors))
    assert {actor for actor, _, _ in actors.dealt} == {0, 1, 2} - actors.blind
    assert [frame for _, frame, _ in replay.stored] == list(range(N_FRAMES))
    assert {lane for _, lane, _ in actors.dealt} == {(1, 0), (1, 1), (1, 2)}
    replay.close()
