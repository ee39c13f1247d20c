"""What is dealt to a node and what comes back: places of frames out, verdicts and kept bytes in.

One rule: what comes back of a frame is what the ring holds of it, so it is put into a slot as a
worker would have left it. The bytes of a frame that nobody keeps never leave their node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.head_tables import HeadTables
from hitfinder.stream.controls import Change
from hitfinder.stream.learned import LearnedList
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.recording_series import Span
from hitfinder.stream.ring import Ring
from hitfinder.workers.geometry import SeriesGeometry
from hitfinder.workers.series_estimates import Counted

LaneName = tuple[int, int]
"""(series id, lane): frames of one series that one actor judges in order and learns from."""


@dataclass(frozen=True, slots=True, eq=False)
class Begin:
    """What a lane begins with, or begins again with after its actor died.

    Attributes:
        start: the series' header.
        learned: what its frames have taught so far, a list for each shape of image.
    """

    start: SeriesStart
    learned: tuple[LearnedList, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Dealt:
    """Frames to be judged.

    Attributes:
        lane: theirs.
        spans: where they stand, in frame order.
        begin: for the first of a lane; None if this actor has begun it.
        is_last: of its lane.
        changes: what the operator changed, from which frame on.
    """

    lane: LaneName
    spans: tuple[Span, ...]
    begin: Begin | None
    is_last: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What a series is estimated with; it comes with a lane's first frames, and when it changes.

    Attributes:
        tables: of the heads.
        geometry: in force.
    """

    tables: HeadTables
    geometry: SeriesGeometry


@dataclass(frozen=True, slots=True, eq=False)
class JudgedFrames:
    """What became of dealt frames.

    Attributes:
        rows: dtype `SLOT`, in frame order.
        peaks: of each frame, float32 (5, n).
        payloads: of each, the compressed bytes of all channels; none of what is not kept.
        counted: of each, what it adds to its series' evidence; None if it was not judged.
        terms: None if they are as before.
        learned: the lane's lists, none if they have not grown.
    """

    rows: NDArray[np.void]
    peaks: tuple[NDArray[np.float32], ...]
    payloads: tuple[bytes, ...]
    counted: tuple[Counted | None, ...]
    terms: Terms | None
    learned: tuple[LearnedList, ...]


def put_in(ring: Ring, slot: int, key: int, lane: int, frames: JudgedFrames, i: int) -> None:
    """Write a judged frame into a slot that is FILLING: all but the state.

    Args:
        key: of the series.
        lane: the number under which the frame's list of learned pixels stands.
        i: which of the frames.
    """
    freed_ns = int(ring.slots["freed_ns"][slot])
    peaks, payload = frames.peaks[i], frames.payloads[i]
    ring.peaks[slot, :, : peaks.shape[1]] = peaks
    ring.payload[slot, : len(payload)] = np.frombuffer(payload, np.uint8)
    row = frames.rows[i].copy()
    row["seq"], row["freed_ns"], row["key"], row["attempts"] = 0, freed_ns, key, 0
    row["file"], row["row"] = b"", -1
    if not payload:
        row["n_blobs"] = 0
    if row["learned_by"] >= 0:
        row["learned_by"] = lane
    ring.slots[slot] = row
    ring.slots["seq"][slot] = ring.next("next_seq")  # last: it makes the rest valid
