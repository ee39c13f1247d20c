"""A recorded series that is being judged on a cluster: its portions, and the ring they come to.

One rule: frames are put into the ring in the series' order, each once: a portion that was lost
with its actor is dealt again, and what the ring has seen is passed over.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from hitfinder.stream.learned import LearnedList
from hitfinder.stream.malformed import Malformed
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.recording_series import RecordedSeries, Span, dealt
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import BLANK_SLOT, SLOT, Ring, Seen, State
from hitfinder.stream.series import SeriesTable
from hitfinder.workers.cluster_replay_frames import JudgedFrames, LaneName, put_in
from hitfinder.workers.series_estimates import SeriesEstimates
from hitfinder.workers.session import FIRST_WORKER_ROLE

CORRUPT = OUTCOMES.index(Outcome.CORRUPT)


@dataclass(slots=True, eq=False)
class Lane:
    """Frames of a series that one actor judges in order.

    Attributes:
        name: series id and number; the number is that of its list of learned pixels.
        todo: portions to be dealt.
        flying: portions that are dealt and not in the ring yet.
        actor: who has begun it; None if nobody.
        learned: what its frames have taught, by the shape of the images.
    """

    name: LaneName
    todo: deque[Portion] = field(default_factory=deque)
    flying: list[Portion] = field(default_factory=list)
    actor: int | None = None
    learned: dict[tuple[int, int], LearnedList] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Portion:
    """Frames that are dealt together.

    Attributes:
        n_deaths: of actors that were judging it, once it is a single frame.
        judged: what came back.
        n_put: frames of it that are in the ring.
    """

    lane: Lane
    spans: tuple[Span, ...]
    n_deaths: int = 0
    judged: JudgedFrames | None = None
    n_put: int = 0

    @property
    def frames(self) -> list[int]:
        """Return the numbers of its frames."""
        return [s.first_frame + i for s in self.spans for i in range(len(s.rows))]


class PlayedSeries:
    """One series, from its first portion to its end.

    Args:
        entry: its place in the ring's table.
        n_lanes: actors it is dealt to.
        portion_frames: frames dealt together, at most.

    Attributes:
        lanes: in order.
        key: in the ring.
    """

    def __init__(
        self,
        ring: Ring,
        recorded: RecordedSeries,
        start: SeriesStart,
        entry: int,
        n_lanes: int,
        portion_frames: int,
    ) -> None:
        self.ring, self.start, self.entry = ring, start, entry
        self.key = int(ring.series["key"][entry])
        self.table = SeriesTable(ring)
        self.lanes = [Lane((start.series, n)) for n in range(n_lanes)]
        self._portions: deque[Portion] = deque()
        self._malformed = Malformed(ring)
        for i, spans in enumerate(dealt(recorded.spans, portion_frames, self._is_new)):
            portion = Portion(self.lanes[i % n_lanes], spans)
            portion.lane.todo.append(portion)
            self._portions.append(portion)

    @property
    def is_done(self) -> bool:
        """Say whether every frame is in the ring."""
        return not self._portions

    @property
    def awaited(self) -> Portion | None:
        """The portion that is put next."""
        return self._portions[0] if self._portions else None

    @property
    def has_come(self) -> bool:
        """Say whether verdicts wait for free slots."""
        return self.awaited is not None and self.awaited.judged is not None

    def put(self, estimates: SeriesEstimates) -> int:
        """Put what has come, in order, while slots are free; returns how many frames."""
        n = 0
        while self._portions and (judged := self._portions[0].judged) is not None:
            portion = self._portions[0]
            while portion.n_put < len(judged.rows):
                if not self._put_frame(portion, judged, estimates):
                    return n
                portion.n_put += 1
                n += 1
            self._portions.popleft()
            portion.lane.flying.remove(portion)
        return n

    def split(self, portion: Portion) -> None:
        """Deal a portion that killed its actor frame by frame: one of them may be the reason."""
        singles = [
            Portion(portion.lane, spans) for spans in dealt(portion.spans, 1, lambda frame: True)
        ]
        at = self._portions.index(portion)
        self._portions.remove(portion)
        portion.lane.todo.remove(portion)
        for k, single in enumerate(singles):
            self._portions.insert(at + k, single)
        portion.lane.todo.extendleft(reversed(singles))

    def give_up(self, portion: Portion, reason: str) -> None:
        """Settle a portion's frames as lost."""
        rows = np.frombuffer(BLANK_SLOT * len(portion.frames), SLOT).copy()
        rows["series"], rows["frame"] = self.start.series, portion.frames
        rows["uid"] = (self.start.series_uid or "").encode()
        rows["start_ns"], rows["t_received_ns"] = -1, time.time_ns()
        rows["outcome"], rows["reason"] = OUTCOMES.index(Outcome.LOST), reason.encode()[:160]
        n = len(rows)
        nothing = np.zeros((5, 0), np.float32)
        portion.lane.todo.remove(portion)
        portion.lane.flying.append(portion)
        portion.judged = JudgedFrames(rows, (nothing,) * n, (b"",) * n, (None,) * n, None, ())

    def _is_new(self, frame: int) -> bool:
        return not self.table.is_seen(self.entry, frame)

    def _put_frame(
        self, portion: Portion, judged: JudgedFrames, estimates: SeriesEstimates
    ) -> bool:
        i, lane = portion.n_put, portion.lane.name[1]
        row = judged.rows[i]
        frame = int(row["frame"])
        if not self._is_new(frame):
            return True
        slot = self.ring.take_free()
        if slot is None:
            return False
        self.ring.next("n_messages")
        if row["outcome"] == CORRUPT:
            self._malformed.note(
                f"frame {frame} of series {self.start.series}: {row['reason'].decode()}"
            )
        put_in(self.ring, slot, self.key, lane, judged, i)
        # From here on a successor hands it on instead of asking again.
        self.table.mark(self.entry, frame, Seen.RECEIVED)
        counted = judged.counted[i]
        if counted is not None:
            version = int(self.ring.series["start_version"][self.entry])
            role, is_hit = FIRST_WORKER_ROLE + lane, OUTCOMES[row["outcome"]] is Outcome.HIT
            estimates.count(slot, role, version, counted, is_hit=is_hit)
        self.ring.set_state(slot, State.JUDGED)
        return True
