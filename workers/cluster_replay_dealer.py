"""Deals recorded series to judges on a cluster, and brings back what they say.

One rule: what was asked of an actor that died is asked again of another; nothing is believed to be
done before its verdict is in the ring. Ray decides where an actor stands and starts it anew; here
is only decided which frames it gets.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hitfinder.stream.controls import Change, Controls
from hitfinder.stream.intake import Intake
from hitfinder.stream.learned import save_learned
from hitfinder.stream.messages import SeriesEnd
from hitfinder.stream.recording_series import RecordedSeries
from hitfinder.workers.children import MAX_ATTEMPTS
from hitfinder.workers.cluster import Answer, ClusterError, DiedError
from hitfinder.workers.cluster_replay_frames import Begin, Dealt, JudgedFrames
from hitfinder.workers.cluster_replay_judge import NotBegunError, UnreadableError
from hitfinder.workers.cluster_replay_opening import Opener
from hitfinder.workers.cluster_replay_series import Lane, PlayedSeries, Portion
from hitfinder.workers.series_estimates import SeriesEstimates
from hitfinder.workers.session import FIRST_WORKER_ROLE, MAX_WORKERS

log = logging.getLogger(__name__)

# Portions that an actor has: one it judges, one that waits there, one on its way back.
FLYING = 3
MAX_PORTION_FRAMES = 32
# A series is dealt to one actor, which learns from it in order as a single worker does. Only where
# there are more actors than series is one as long as this dealt to several, each of which learns
# for itself, as several workers of a daemon do: it takes some hundred frames.
LANE_FRAMES = 5000
# An actor that has not answered for so long hangs.
HUNG_S = 300.0
# How often is looked for a free slot while verdicts wait for one.
FULL_WAIT_S = 0.002


class Pool(Protocol):
    """The actors; see `cluster.Actors`."""

    def __len__(self) -> int: ...
    def ask(self, actor: int, method: str, *arguments: object) -> int: ...
    def ask_node(self, actor: int) -> int: ...
    def restart(self, actor: int) -> None: ...
    def answers(self, timeout_s: float) -> list[Answer]: ...


@dataclass(slots=True, eq=False)
class _Seat:
    """An actor as it is seen from here.

    Attributes:
        number: in the pool.
        node: name of the node that it stands on; None while it is down.
        is_out: it is not asked any more.
        lanes: dealt to it.
        asked: ticket -> portion, in order of asking.
        answered_s: when it last answered, or was asked with nothing else to do.
    """

    number: int
    node: str | None = None
    is_out: bool = False
    lanes: list[Lane] = field(default_factory=list)
    asked: dict[int, Portion] = field(default_factory=dict)
    answered_s: float = 0.0

    @property
    def n_flying(self) -> int:
        return sum(len(lane.flying) for lane in self.lanes)


class Dealer:
    """Plays recorded series over the actors of a pool.

    Args:
        intake: of the ring.
        opener: of series.
        actors: judges.
        names: returns id -> name of the living nodes.
        recorded: the series, in order.
    """

    def __init__(
        self,
        intake: Intake,
        opener: Opener,
        actors: Pool,
        names: Callable[[], Mapping[str, str]],
        recorded: Sequence[RecordedSeries],
    ) -> None:
        self.ring, self.intake, self.opener = intake.ring, intake, opener
        self.actors, self._names = actors, names
        self.estimates = SeriesEstimates(self.ring, FIRST_WORKER_ROLE)
        self._controls = Controls(self.ring)
        # One of each folder is enough to see whether a node has it.
        paths = {span.path.parent: span.path for series in recorded for span in series.spans}
        self._paths = list(paths.values())
        self._queue = deque(recorded)
        self._n_series = len(recorded)
        self._playing: list[PlayedSeries] = []
        self._lanes: deque[Lane] = deque()
        self._seats = [_Seat(n) for n in range(len(actors))]
        self._waking = {actors.ask_node(seat.number): seat for seat in self._seats}
        self._looking: dict[int, tuple[_Seat, str]] = {}

    @property
    def n_up(self) -> int:
        """Number of actors that judge."""
        return sum(seat.node is not None for seat in self._seats)

    @property
    def is_done(self) -> bool:
        """Say whether all series are over."""
        return not (self._queue or self._playing or self.intake.series.open_entries())

    def step(self, timeout_s: float) -> None:
        """Open, deal, take what has come, put it into the ring.

        Raises:
            ClusterError: no actor is left.
        """
        for seat in self._seats:
            self._deal(seat)
        is_full = any(series.has_come for series in self._playing)
        for answer in self.actors.answers(FULL_WAIT_S if is_full else timeout_s):
            self.take(answer)
        if not self._is_asking:
            self.intake.bells.wait("receiver", timeout_s)
        self._restart_hung()
        n_put = sum(series.put(self.estimates) for series in self._playing)
        if n_put:
            self.intake.bells.ring("sink")
        self._end_done()
        self.estimates.step()
        self._note()

    def unfinished(self) -> list[str]:
        """Say which series are left open, a sentence each."""
        received = self.ring.series["n_received"]
        return [
            f"series {s.start.series} is left at {received[s.entry]} of {s.start.n_frames} "
            "frames; the same command goes on with it"
            for s in self._playing
        ]

    @property
    def _is_asking(self) -> bool:
        return bool(self._waking or self._looking or any(seat.asked for seat in self._seats))

    # ------------------------------------------------------------------------------------

    def _deal(self, seat: _Seat) -> None:
        if seat.node is None:
            return
        while seat.n_flying < FLYING:
            lane = self._next_lane(seat)
            if lane is None:
                break
            self._ask(seat, lane)
        # With all that it judged waiting for frames before them, these go to it.
        if not seat.asked and (lane := self._awaited_lane(seat)) is not None:
            self._ask(seat, lane)

    def _awaited_lane(self, seat: _Seat) -> Lane | None:
        """Return an actor's lane, or one that nobody has, whose next frames are put next."""
        for lane in (*seat.lanes, *self._lanes):
            if lane.todo and self._series_of(lane).awaited is lane.todo[0]:
                if lane in self._lanes:
                    self._lanes.remove(lane)
                return lane
        return None

    def _next_lane(self, seat: _Seat) -> Lane | None:
        """Return a lane with frames to deal: the actor's own, one that nobody has, a new one."""
        seat.lanes = [lane for lane in seat.lanes if lane.todo or lane.flying]
        if own := [lane for lane in seat.lanes if lane.todo]:
            return own[0]
        while not any(lane.todo for lane in self._lanes) and self._queue and self.opener.has_room:
            self._open(self._queue.popleft())
        while self._lanes and not self._lanes[0].todo:
            self._lanes.popleft()  # what it had was given up
        return self._lanes.popleft() if self._lanes else None

    def _open(self, recorded: RecordedSeries) -> None:
        spare = len(self._seats) // self._n_series
        n_lanes = max(1, min(spare, recorded.n_frames // LANE_FRAMES, MAX_WORKERS))
        # A change of the operator's holds from the first frame that the ring cannot hold, so no
        # frame beyond that may be under way (controls.py).
        portion_frames = self.ring.layout.n_slots // (FLYING * n_lanes)
        portion_frames = max(1, min(MAX_PORTION_FRAMES, portion_frames))
        series = self.opener.open(recorded, n_lanes, portion_frames)
        if series is not None:
            self._playing.append(series)
            self._lanes += [lane for lane in series.lanes if lane.todo]

    def _ask(self, seat: _Seat, lane: Lane) -> None:
        series, portion = self._series_of(lane), lane.todo.popleft()
        begin = None
        if lane.actor != seat.number:
            begin = Begin(series.start, tuple(lane.learned.values()))
            lane.actor = seat.number
            seat.lanes.append(lane)
        if not seat.asked:
            seat.answered_s = time.monotonic()
        dealt = Dealt(lane.name, portion.spans, begin, not lane.todo, self._changes(series.key))
        lane.flying.append(portion)
        seat.asked[self.actors.ask(seat.number, "judge", dealt)] = portion

    def _changes(self, key: int) -> tuple[Change, ...]:
        """Return what the operator changed for a series, by its frames alone."""
        return tuple(
            change if change.key == key else change._replace(frame=0)
            for change in self._controls.all()
            if change.key <= key
        )

    def _series_of(self, lane: Lane) -> PlayedSeries:
        return next(s for s in self._playing if s.start.series == lane.name[0])

    # What comes back --------------------------------------------------------------------

    def take(self, answer: Answer) -> None:
        """Take one thing that has come."""
        if answer.ticket in self._waking:
            self._woken(self._waking.pop(answer.ticket), answer)
        elif answer.ticket in self._looking:
            self._looked(*self._looking.pop(answer.ticket), answer)
        else:
            for seat in self._seats:
                if answer.ticket in seat.asked:
                    self._judged(seat, answer)

    def _woken(self, seat: _Seat, answer: Answer) -> None:
        """An actor was started, or never will be."""
        if answer.error is not None:
            self._leave_out(seat, f"an actor cannot be started: {answer.error}")
            return
        name = self._names().get(answer.value, answer.value)
        ticket = self.actors.ask(seat.number, "unreadable", self._paths)
        self._looking[ticket] = seat, name

    def _looked(self, seat: _Seat, name: str, answer: Answer) -> None:
        """An actor has looked whether it can read the recordings."""
        if isinstance(answer.error, DiedError):
            self._waking[self.actors.ask_node(seat.number)] = seat
        elif answer.error is not None:
            self._leave_out(seat, f"node {name}: {answer.error}")
        elif answer.value:
            self._leave_out(seat, _unreadable(name, answer.value[0]))
        else:
            log.info("an actor judges on node %s", name)
            seat.node = name

    def _judged(self, seat: _Seat, answer: Answer) -> None:
        portion, error = seat.asked[answer.ticket], answer.error
        seat.answered_s = time.monotonic()
        if error is None:
            del seat.asked[answer.ticket]
            self._bring(portion, answer.value)
        elif isinstance(error, NotBegunError) and portion is next(iter(seat.asked.values())):
            self._take_back(seat, [portion.lane])
        elif isinstance(error, UnreadableError) and os.access(str(error), os.R_OK):
            self._take_back(seat, seat.lanes)
            self._leave_out(seat, _unreadable(str(seat.node), str(error)))
        else:
            if not isinstance(error, DiedError | NotBegunError):
                # What it holds half judged must not be taken for the next portion's.
                self.actors.restart(seat.number)
            self._bury(seat, error)

    def _bring(self, portion: Portion, judged: JudgedFrames) -> None:
        """Take verdicts; what they rest on is kept before they go into the ring."""
        series, lane = self._series_of(portion.lane), portion.lane
        for one in judged.learned:
            own = type(one)(lane.name[1], one.shape, one.entries)
            save_learned(self.intake.runtime, series.key, own)
            lane.learned[one.shape] = own
        if judged.terms is not None:
            version = int(self.ring.series["start_version"][series.entry])
            terms = judged.terms
            self.estimates.know(series.key, version, terms.tables, terms.geometry)
        portion.judged = judged

    def _bury(self, seat: _Seat, error: Exception) -> None:
        """Deal what a dead actor had to others; the portion it was judging may have killed it."""
        killer = next(iter(seat.asked.values()))
        n_frames = sum(len(portion.frames) for portion in seat.asked.values())
        log.error(
            "an actor on node %s died (%s); %d frames are dealt again", seat.node, error, n_frames
        )
        self.ring.note_error(f"an actor on node {seat.node} died: {error}")
        self._take_back(seat, seat.lanes)
        seat.node = None
        self._waking[self.actors.ask_node(seat.number)] = seat
        series = self._series_of(killer.lane)
        if len(killer.frames) > 1:
            series.split(killer)
            return
        killer.n_deaths += 1
        if killer.n_deaths >= MAX_ATTEMPTS:
            series.give_up(killer, f"{killer.n_deaths} actors died while judging it: {error}")

    def _take_back(self, seat: _Seat, lanes: Sequence[Lane]) -> None:
        """Let lanes be begun again, with all that is not judged of them."""
        for lane in list(lanes):
            waiting = [portion for portion in lane.flying if portion.judged is None]
            lane.flying = [portion for portion in lane.flying if portion.judged is not None]
            lane.todo.extendleft(reversed(waiting))
            lane.actor = None
            seat.lanes.remove(lane)
            seat.asked = {t: p for t, p in seat.asked.items() if p not in waiting}
            if lane.todo:
                self._lanes.appendleft(lane)

    def _leave_out(self, seat: _Seat, why: str) -> None:
        log.error("%s", why)
        self.ring.note_error(why)
        seat.node, seat.is_out = None, True
        if all(other.is_out for other in self._seats):
            raise ClusterError(f"no node can judge: {why}")

    def _restart_hung(self) -> None:
        now_s = time.monotonic()
        for seat in self._seats:
            if seat.asked and now_s - seat.answered_s > HUNG_S:
                log.error("an actor on node %s has not answered for %.0f s", seat.node, HUNG_S)
                seat.answered_s = now_s
                self.actors.restart(seat.number)

    # ------------------------------------------------------------------------------------

    def _end_done(self) -> None:
        for series in [s for s in self._playing if s.is_done]:
            self._playing.remove(series)
            if not self.ring.series["ended"][series.entry]:
                self.intake.take(SeriesEnd(series.start.series, series.start.series_uid))

    def _note(self) -> None:
        """Say how far we are; a series whose frames are under way is not silent."""
        for series in self._playing:
            self.ring.series["t_last_ns"][series.entry] = time.monotonic_ns()
        control = self.ring.control
        control["n_judges"], control["n_judges_up"] = len(self._seats), self.n_up
        control["n_nodes"] = len({seat.node for seat in self._seats} - {None})


def _unreadable(node: str, path: Path | str) -> str:
    return (
        f"node {node} cannot read {path}; recordings must lie on a file system that all nodes "
        "share, under the same path"
    )
