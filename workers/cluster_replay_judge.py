"""What stands on a node: a daemon's worker over a small ring of its own, in one process.

One rule: frames are read, filled into slots, reduced and judged by the same code as on one host;
only where they come from and where their verdicts go differs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder import HitfinderError, __version__
from hitfinder.models.head_tables import HeadTables
from hitfinder.models.judgement import Judgement
from hitfinder.stream.controls import Change, Controls
from hitfinder.stream.intake import Intake, drop_headers
from hitfinder.stream.learned import LearnedList, all_learned, drop_learned, save_learned
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.recording_series import frames_of
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import MAX_SERIES, SLOT, Bells, Layout, Ring, State, create_memory
from hitfinder.stream.series import SeriesTable
from hitfinder.stream.series_folder import is_sampled
from hitfinder.workers.cluster_replay_frames import (
    Begin,
    Dealt,
    JudgedFrames,
    LaneName,
    Terms,
)
from hitfinder.workers.config import Config
from hitfinder.workers.geometry import SeriesGeometry
from hitfinder.workers.series_estimates import Counted, SeriesEstimates, counted_in
from hitfinder.workers.session import FIRST_WORKER_ROLE
from hitfinder.workers.supervisor import make_runtime
from hitfinder.workers.worker import Worker

# Enough that the decoder is ahead of the judge; more would only take memory.
N_SLOTS = 8
WAIT_S = 0.05
# Lanes remembered: the ring knows so many series, and one is needed to begin the next.
MAX_LANES = MAX_SERIES - 1


class NotBegunError(HitfinderError):
    """This actor does not hold the lane: it was started anew, or gave it up for others."""


class UnreadableError(HitfinderError):
    """A recording cannot be read where the actor stands."""


@dataclass(slots=True)
class _Lane:
    """What this actor knows of a lane.

    Attributes:
        start: its header, under a series id that only this ring uses.
        uid: the series' unique id.
        entry: in the ring's table of series.
        n_learned: entries that are known where the frames are dealt.
        tables: that were sent there.
    """

    start: SeriesStart
    uid: bytes
    entry: int
    n_learned: int = 0
    tables: HeadTables | None = None


class _Noted(SeriesEstimates):
    """Stands where a worker counts frames into its series: keeps the counts to be sent."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(ring, FIRST_WORKER_ROLE)
        self.counted: dict[int, Counted] = {}
        self.terms: Terms | None = None

    def add(
        self,
        slot: int,
        version: int,
        tables: HeadTables,
        geometry: SeriesGeometry,
        judgement: Judgement,
    ) -> None:
        """Keep what a judged frame says, by its number."""
        self.counted[int(self.ring.slots["frame"][slot])] = counted_in(judgement)
        self.terms = Terms(tables, geometry)

    def step(self) -> None:
        """Estimate nothing: that is done where all nodes' counts come together."""


class _Changes(Controls):
    """Stands where a worker looks up what the operator changed: it came with the frames."""

    def __init__(self, ring: Ring) -> None:
        super().__init__(ring)
        self.dealt: Sequence[Change] = ()

    def at(self, key: int, frame: int) -> Change | None:
        """Return what holds for a frame of the dealt ones, None if all is as configured."""
        return next((c for c in reversed(self.dealt) if c.frame <= frame), None)


class Judge:
    """Judges dealt frames on one device.

    Args:
        version: the program's version where the frames are dealt.
        config: the run's.
        device: `cpu` or `cuda:N`.

    Raises:
        HitfinderError: another version of the program is installed here.
    """

    def __init__(self, version: str, config: Config, device: str) -> None:
        if version != __version__:
            raise HitfinderError(
                f"hitfinder-stream {__version__} here, {version} where it is dealt"
            )
        torch.set_num_threads(1)
        self._config, self._runtime = config, make_runtime()
        layout = Layout(N_SLOTS, config.ring.slot_bytes)
        self._ring = Ring(create_memory(layout), layout)
        bells = Bells.create(("receiver", "worker0", "sink", "supervisor"))
        self._intake = Intake(
            self._ring, bells, self._runtime, when_full="block", beat=lambda: True
        )
        self._series = SeriesTable(self._ring)
        self._worker = Worker(
            self._ring,
            bells,
            self._runtime,
            config,
            FIRST_WORKER_ROLE,
            device,
            config.workers.decoders or 1,
            is_live=False,
        )
        self._noted, self._changes = _Noted(self._ring), _Changes(self._ring)
        self._worker.estimates, self._worker.controls = self._noted, self._changes
        self._lanes: dict[LaneName, _Lane] = {}
        self._n_begun = 0

    def unreadable(self, paths: Sequence[Path]) -> list[Path]:
        """Return the files that this node cannot open."""
        return [path for path in paths if not os.access(path, os.R_OK)]

    def judge(self, dealt: Dealt) -> JudgedFrames:
        """Judge frames, in order, with what the lane's frames before them have taught.

        Raises:
            NotBegunError: the lane has not begun here.
            UnreadableError: a file that holds frames cannot be opened on this node.
        """
        lane = self._lane(dealt)
        if unreadable := self.unreadable([span.path for span in dealt.spans]):
            raise UnreadableError(str(unreadable[0]))
        self._noted.counted, self._noted.terms = {}, None
        self._changes.dealt = dealt.changes
        n_frames = sum(len(span.rows) for span in dealt.spans)
        messages = frames_of(dealt.spans, lane.start)
        rows = np.zeros(n_frames, SLOT)
        peaks: list[NDArray[np.float32]] = []
        payloads: list[bytes] = []
        n_taken = n_done = 0
        while n_done < n_frames:
            for message in islice(messages, N_SLOTS - (n_taken - n_done)):
                self._intake.take(message)
                n_taken += 1
            self._worker.run_once(WAIT_S)
            for slot in self._ring.in_state(State.JUDGED):
                rows[n_done] = self._ring.slots[slot]
                n_peaks = max(int(rows["n_peaks"][n_done]), 0)
                peaks.append(self._ring.peaks[slot, :, :n_peaks].copy())
                payloads.append(self._payload(dealt, slot, has_any=any(payloads)))
                self._ring.release(slot)
                n_done += 1
        rows["series"], rows["uid"] = dealt.lane[0], lane.uid
        order = np.argsort(rows["frame"], kind="stable").tolist()
        judged = JudgedFrames(
            rows[order],
            tuple(peaks[i] for i in order),
            tuple(payloads[i] for i in order),
            tuple(self._noted.counted.get(frame) for frame in rows["frame"][order].tolist()),
            self._new_terms(lane),
            self._new_learned(lane),
        )
        if dealt.is_last:
            self._forget(dealt.lane)
        return judged

    # ------------------------------------------------------------------------------------

    def _lane(self, dealt: Dealt) -> _Lane:
        if dealt.begin is not None:
            return self._begin(dealt.lane, dealt.begin)
        if dealt.lane not in self._lanes:
            raise NotBegunError(f"lane {dealt.lane[1]} of series {dealt.lane[0]} is not here")
        self._lanes[dealt.lane] = self._lanes.pop(dealt.lane)  # the latest used stands last
        return self._lanes[dealt.lane]

    def _begin(self, name: LaneName, begin: Begin) -> _Lane:
        if name in self._lanes:
            self._forget(name)
        elif len(self._lanes) == MAX_LANES:
            self._forget(next(iter(self._lanes)))
        self._n_begun += 1
        own = replace(begin.start, series=self._n_begun, series_uid=None)
        self._intake.take(own)
        entry = self._series.open_entries()[-1]
        lane = _Lane(own, (begin.start.series_uid or "").encode(), entry)
        for learned in begin.learned:
            save_learned(self._runtime, self._key(lane), replace(learned, worker=0))
        lane.n_learned = sum(len(learned.entries) for learned in begin.learned)
        self._lanes[name] = lane
        return lane

    def _forget(self, name: LaneName) -> None:
        lane = self._lanes.pop(name)
        drop_headers(self._runtime, [self._key(lane)])
        drop_learned(self._runtime, self._key(lane))
        self._ring.series["sealed"][lane.entry] = self._ring.series["released"][lane.entry] = 1

    def _key(self, lane: _Lane) -> int:
        return int(self._ring.series["key"][lane.entry])

    def _payload(self, dealt: Dealt, slot: int, *, has_any: bool) -> bytes:
        """Return a frame's bytes if it is kept, or is a portion's one miss to look at."""
        header = self._ring.slots[slot]
        outcome, frame = OUTCOMES[header["outcome"]], int(header["frame"])
        change = self._changes.at(0, frame)
        fraction = None if change is None else change.miss_sample_fraction
        if fraction is None:
            fraction = self._config.sink.miss_sample_fraction
        is_kept = outcome is Outcome.HIT or (
            outcome is Outcome.MISS and (not has_any or is_sampled(dealt.lane[0], frame, fraction))
        )
        n_bytes = int(header["blobs"]["n_bytes"][: int(header["n_blobs"])].sum())
        return self._ring.payload[slot, :n_bytes].tobytes() if is_kept else b""

    def _new_terms(self, lane: _Lane) -> Terms | None:
        terms = self._noted.terms
        if terms is None or terms.tables is lane.tables:
            return None
        lane.tables = terms.tables
        return terms

    def _new_learned(self, lane: _Lane) -> tuple[LearnedList, ...]:
        learned = tuple(all_learned(self._runtime, self._key(lane)))
        n_learned = sum(len(one.entries) for one in learned)
        if n_learned == lane.n_learned:
            return ()
        lane.n_learned = n_learned
        return learned
