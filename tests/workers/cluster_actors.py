"""Actors that are played, and a daemon around a dealer: for what happens without a cluster.

The actors answer as those on a cluster do, but say `miss` to every frame.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hitfinder.stream.controls import Change
from hitfinder.stream.intake import Intake
from hitfinder.stream.recordings import open_recordings
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import BLANK_SLOT, SLOT, Bells, Layout, Ring, State, create_memory
from hitfinder.stream.sink import Sink, SinkSettings
from hitfinder.workers.cluster import Answer, DiedError
from hitfinder.workers.cluster_replay_dealer import Dealer
from hitfinder.workers.cluster_replay_frames import Dealt, JudgedFrames
from hitfinder.workers.cluster_replay_judge import NotBegunError
from hitfinder.workers.cluster_replay_opening import Opener
from hitfinder.workers.config import Config
from hitfinder.workers.geometry import OperatorGeometry

N_SLOTS = 24
Asked = tuple[int, str, tuple[object, ...]]


class Actors:
    """A pool whose actors judge one thing a turn, each on a node of its own.

    Attributes:
        poison: frames of series 1 that kill whoever judges them.
        blind: actors that cannot read the recordings.
        n_deaths: so far.
        begun: the lanes that each knows.
        dealt: (actor, lane, frames), in order of judging.
        changes: what came with each of them of the operator's.
        most_waiting: that an actor was asked at the same time.
    """

    def __init__(self, n: int) -> None:
        self.poison: set[int] = set()
        self.blind: set[int] = set()
        self.n_deaths, self.dealt = 0, list[tuple[int, tuple[int, int], list[int]]]()
        self.changes: list[tuple[Change, ...]] = []
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
        self.changes.append(dealt.changes)
        return [Answer(ticket, _misses(dealt, frames), None)]


def _misses(dealt: Dealt, frames: list[int]) -> JudgedFrames:
    n, nothing = len(frames), np.zeros((5, 0), np.float32)
    rows = np.frombuffer(BLANK_SLOT * n, SLOT).copy()
    rows["series"], rows["frame"] = dealt.lane[0], frames
    rows["outcome"] = OUTCOMES.index(Outcome.MISS)
    return JudgedFrames(rows, (nothing,) * n, (b"",) * n, (None,) * n, None, ())


class Replay:
    """Recorded series, a ring and its sink; no page, no topic.

    Attributes:
        stored: (series, frame, outcome), in the order of storing.
    """

    def __init__(self, folder: Path, paths: list[Path]) -> None:
        layout = Layout(N_SLOTS, 1 << 18)
        (folder / "out").mkdir(exist_ok=True)
        self.ring = Ring(create_memory(layout), layout)
        self.bells = Bells.create(("receiver", "sink", "supervisor", "worker"))
        self.runtime, self.out = folder / "runtime", folder / "out"
        self.runtime.mkdir(exist_ok=True)
        self.config = Config()
        self.config.sink.out = str(self.out)
        self.recorded = [s for r in open_recordings(paths) for s in r.series]
        self.stored: list[tuple[int, int, str]] = []
        self.sink = Sink(
            self.ring,
            self.bells,
            self.runtime,
            SinkSettings(
                self.out,
                100,
                0.0,
                {"config": self.config.as_json()},
                OperatorGeometry(self.config.geometry).in_force,
            ),
        )

    def dealer(self, actors: Actors) -> Dealer:
        names = {f"id{n}": f"node{n}" for n in range(len(actors))}
        intake = Intake(self.ring, self.bells, self.runtime, when_full="block", beat=lambda: True)
        return Dealer(intake, Opener(intake, self.out), actors, lambda: names, self.recorded)

    def play(self, dealer: Dealer, until: Callable[[], bool] = lambda: False) -> None:
        """Run to the end, or until something holds."""
        deadline = time.monotonic() + 60
        while not dealer.is_done and not until():
            assert time.monotonic() < deadline
            dealer.step(0.0)
            self.store()

    def store(self) -> None:
        """Store what is in the ring, and close the series that have ended."""
        self.sink.store()
        for slot in self.ring.in_state(State.STORED):
            row = self.ring.slots[slot]
            outcome = OUTCOMES[row["outcome"]].value
            self.stored.append((int(row["series"]), int(row["frame"]), outcome))
            self.ring.release(slot)
        series = self.ring.series
        series["sealed"] |= series["ended"]
        series["drained"] |= series["ended"]
        self.sink.finalise()
        series["released"] |= series["finalised"]

    def close(self) -> None:
        for fd in (self.ring.fd, *self.bells.fds.values()):
            os.close(fd)
