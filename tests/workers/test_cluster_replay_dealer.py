"""Dealing recorded series to actors that die, cannot read, or forget: each frame is judged once.

The actors are played here: they answer as those on a cluster do, but say `miss` to every frame.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.system.recorded import recorded_series

from hitfinder.stream.intake import Intake
from hitfinder.stream.recordings import open_recordings
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import BLANK_SLOT, SLOT, Bells, Layout, Ring, State, create_memory
from hitfinder.workers.cluster import Answer, ClusterError, DiedError
from hitfinder.workers.cluster_replay_dealer import FLYING, Dealer
from hitfinder.workers.cluster_replay_frames import Dealt, JudgedFrames
from hitfinder.workers.cluster_replay_judge import NotBegunError
from hitfinder.workers.cluster_replay_opening import Opener
from hitfinder.workers.config import Config

N_FRAMES, N_SLOTS = 40, 24
Asked = tuple[int, str, tuple[object, ...]]


class Actors:
    """A pool whose actors judge one thing a turn, each on a node of its own.

    Attributes:
        poison: frames of series 1 that kill whoever judges them.
        blind: actors that cannot read the recordings.
        n_deaths: so far.
        begun: the lanes that each knows.
        dealt: (actor, lane, frames), in order of judging.
        most_waiting: that an actor was asked at the same time.
    """

    def __init__(self, n: int) -> None:
        self.poison: set[int] = set()
        self.blind: set[int] = set()
        self.n_deaths, self.dealt = 0, list[tuple[int, tuple[int, int], list[int]]]()
        self._queues = [deque[Asked]() for _ in range(n)]
        self.begun = [set[tuple[int, int]]() for _ in range(n)]
        self._n_asked = self.most_waiting = 0

    def __len__(self) -> int:
        return len(self._queues)

    def ask(self, actor: int, method: str, *arguments: object) -> int:
        self._n_asked += 1
        self._queues[actor].append((self._n_asked, method, arguments))
        self.most_waiting = max(self.most_waiting, len(self._queues[actor]))
        return self._n_asked

    def ask_node(self, actor: int) -> int:
        return self.ask(actor, "node")

    def restart(self, actor: int) -> None:
        self.kill(actor)

    def kill(self, actor: int) -> list[Answer]:
        """Let an actor die with all that it was asked, and come back knowing nothing."""
        self.n_deaths += 1
        self.begun[actor].clear()
        died = [Answer(ticket, None, DiedError("killed")) for ticket, _, _ in self._queues[actor]]
        self._queues[actor].clear()
        return died

    def answers(self, timeout_s: float) -> list[Answer]:
        found: list[Answer] = []
        for actor, queue in enumerate(self._queues):
            if queue:
                found += self._answer(actor, *queue[0])
                if queue and queue[0][0] == found[-1].ticket:
                    queue.popleft()
        return found

    def _answer(
        self, actor: int, ticket: int, method: str, arguments: tuple[object, ...]
    ) -> list[Answer]:
        if method == "node":
            return [Answer(ticket, f"id{actor}", None)]
        if method == "unreadable":
            (paths,) = arguments
            return [Answer(ticket, paths if actor in self.blind else [], None)]
        (dealt,) = arguments
        assert isinstance(dealt, Dealt)
        frames = [s.first_frame + i for s in dealt.spans for i in range(len(s.rows))]
        if dealt.lane[0] == 1 and self.poison & set(frames):
            return self.kill(actor)
        if dealt.begin is not None:
            self.begun[actor].add(dealt.lane)
        if dealt.lane not in self.begun[actor]:
            return [Answer(ticket, None, NotBegunError("forgotten"))]
        self.dealt.append((actor, dealt.lane, frames))
        return [Answer(ticket, _misses(dealt, frames), None)]


def _misses(dealt: Dealt, frames: list[int]) -> JudgedFrames:
    n, nothing = len(frames), np.zeros((5, 0), np.float32)
    rows = np.frombuffer(BLANK_SLOT * n, SLOT).copy()
    rows["series"], rows["frame"] = dealt.lane[0], frames
    rows["outcome"] = OUTCOMES.index(Outcome.MISS)
    return JudgedFrames(rows, (nothing,) * n, (b"",) * n, (None,) * n, None, ())


class Replay:
    """Recorded series, a ring, and a sink that only notes (series, frame, outcome)."""

    def __init__(self, folder: Path, paths: list[Path]) -> None:
        layout = Layout(N_SLOTS, 1 << 18)
        self.ring = Ring(create_memory(layout), layout)
        self.bells = Bells.create(("receiver", "sink", "supervisor", "worker"))
        self.runtime, self.out = folder / "runtime", folder / "out"
        self.runtime.mkdir(exist_ok=True)
        self.config = Config()
        self.config.sink.out = str(self.out)
        self.recorded = [s for r in open_recordings(paths) for s in r.series]
        self.stored: list[tuple[int, int, str]] = []

    def dealer(self, actors: Actors) -> Dealer:
        names = {f"id{n}": f"node{n}" for n in range(len(actors))}
        intake = Intake(self.ring, self.bells, self.runtime, when_full="block", beat=lambda: True)
        return Dealer(intake, Opener(intake, self.config), actors, lambda: names, self.recorded)

    def play(self, dealer: Dealer, until: Callable[[], bool] = lambda: False) -> None:
        """Run to the end, or until something holds."""
        deadline = time.monotonic() + 60
        while not dealer.is_done and not until():
            assert time.monotonic() < deadline
            dealer.step(0.0)
            self.store()

    def store(self) -> None:
        """Take what is in the ring, and release the series that have ended."""
        for slot in self.ring.in_state(State.JUDGED):
            row = self.ring.slots[slot]
            outcome = OUTCOMES[row["outcome"]].value
            self.stored.append((int(row["series"]), int(row["frame"]), outcome))
            self.ring.release(slot)
        self.ring.series["released"] |= self.ring.series["ended"]

    def close(self) -> None:
        for fd in (self.ring.fd, *self.bells.fds.values()):
            os.close(fd)


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
    assert str(replay.recorded[0].spans[0].path) in caplog.text


def test_where_no_node_can_read_it_ends(replay):
    actors = Actors(1)
    actors.blind = {0}
    dealer = replay.dealer(actors)
    with pytest.raises(ClusterError, match="cannot read .*run01.h5"):
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
