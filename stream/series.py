"""Which series are open, which frames of them were seen, and how a series ends.

One rule: everything known of a series stands in shared memory, each field with one writing
process, so a restarted process goes on where its predecessor died. No I/O, no clock: times are
arguments (monotonic nanoseconds).

How a series ends (protocol note, section 6):

    ended           receiver    end message seen, or a new header superseded it
    close_requested supervisor  nothing more is expected, or the grace time has passed
    sealed          receiver    will admit no more frames of it
    drained         supervisor  no slot holds a frame of it; missing frames are published
    finalised       sink        its files are closed
    released        supervisor  its series.end is published; the entry may be used again
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.messages import MAX_FRAMES, SeriesEnd, SeriesStart
from hitfinder.stream.ring import Ring, Seen

# The end message may overtake the last images when several sockets read one detector; and
# without a header nobody knows how many to wait for (protocol note, section 5).
GRACE_S = 1.0
# All announced frames are here but no end message: it went to another receiver or died with one.
COMPLETE_GRACE_S = 3.0
# A detector that lost power sends nothing at all. Long, since a triggered run may pause.
SILENT_S = 300.0
# A later series has begun and this one says nothing: its end died with a killed receiver or went
# to another one. Long enough for a second detector on the same daemon to pause between triggers.
OVERTAKEN_S = 30.0
# A frame of a closed series within this time is late; after it the ids have restarted.
LATE_S = 10.0
# A header may promise too few frames; a number beyond twice that and this many is a fault, and
# believing it would announce all the numbers below it.
MAX_UNPROMISED = 10_000


class Admission(Enum):
    """What becomes of a frame that arrived."""

    ADMIT = "admit"
    DUPLICATE = "duplicate"
    LATE = "late"
    ABSURD = "absurd"
    """Its number lies so far beyond what the header announced that it must be wrong."""


class SeriesTable:
    """The open and lately closed series, over a ring's shared memory."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.entries = ring.series
        self.seen: NDArray[np.uint8] = ring.seen
        # What is asked at every frame: a list of sixteen is searched faster than an array.
        self._keys, self._released = ring.series["key"], ring.series["released"]

    def entry_of(self, key: int) -> int | None:
        """Return the index of series `key`, None if it is no longer known."""
        keys: list[int] = self._keys.tolist()
        return keys.index(key) if key and key in keys else None

    def open_entries(self) -> list[int]:
        """Return the entries that are not released yet, oldest first."""
        keys: list[int] = self._keys.tolist()
        released: list[int] = self._released.tolist()
        found = [entry for entry, key in enumerate(keys) if key and not released[entry]]
        return sorted(found, key=keys.__getitem__)

    # The receiver's side ----------------------------------------------------------------

    def start(self, start: SeriesStart, now_ns: int, *, again: bool = False) -> int | None:
        """Take a header: open its series, or complete one that began without it.

        A start while another series is open ends that one: its end went to another receiver or
        was never sent. Returns the entry, or None while no entry is free.

        Args:
            again: a killed receiver may have opened the series with this very header.
        """
        entry = self._find(start.series, start.series_uid)
        if entry is not None and not self.entries["has_start"][entry]:
            self._attach(entry, start)
            return entry
        if entry is not None and self._is_same_header(entry, start, again=again):
            return entry
        self.end_all("superseded", now_ns)
        return self.begin(start, now_ns)

    def begin(self, start: SeriesStart, now_ns: int) -> int | None:
        """Open a series beside those that are open, as recordings are read side by side.

        Returns the entry, or None while no entry is free.
        """
        opened = self._open(start.series, start.series_uid, now_ns)
        if opened is not None:
            self._attach(opened, start)
        return opened

    def entry_for_frame(self, series: int, uid: str | None, now_ns: int) -> int | None:
        """Return the entry of a frame's series; a series without header is opened by its frame.

        None while no entry is free.
        """
        entry = self._find(series, uid)
        if entry is None:
            entry = self._find_closed(series, uid, now_ns)
        if entry is None:
            entry = self._open(series, uid, now_ns)
        if entry is None:
            self._make_room(now_ns)
        return entry

    def admit(self, entry: int, frame: int, now_ns: int) -> Admission:
        """Decide what becomes of a frame; counts it. The caller marks it seen once it is safe."""
        e = self.entries
        expected = int(e["expected"][entry])
        if expected >= 0 and frame >= 2 * expected + MAX_UNPROMISED:
            return Admission.ABSURD
        if self.is_seen(entry, frame):
            e["n_duplicate"][entry] += 1
            return Admission.DUPLICATE
        if e["sealed"][entry] or e["released"][entry]:
            e["n_late"][entry] += 1
            return Admission.LATE
        e["t_last_ns"][entry] = now_ns
        return Admission.ADMIT

    def is_seen(self, entry: int, frame: int) -> bool:
        """Say whether a frame of this number is in a slot, judged, or dropped."""
        return bool(self.seen[entry, frame])

    def mark(self, entry: int, frame: int, seen: Seen) -> None:
        """Write down that a frame is in a slot (RECEIVED) or that there was no room (DROPPED)."""
        e = self.entries
        self.seen[entry, frame] = int(seen)
        e["max_frame"][entry] = max(int(e["max_frame"][entry]), frame)
        lowest = int(e["min_frame"][entry])
        e["min_frame"][entry] = frame if lowest < 0 else min(lowest, frame)
        e["n_received" if seen is Seen.RECEIVED else "n_dropped"][entry] += 1

    def forget(self, entry: int) -> None:
        """Forget which frames were seen of a series none of which is in a slot yet."""
        e = self.entries
        self.seen[entry, : int(e["max_frame"][entry]) + 1] = 0
        e["min_frame"][entry] = e["max_frame"][entry] = -1
        e["n_received"][entry] = e["n_dropped"][entry] = 0

    def end(self, end: SeriesEnd, now_ns: int) -> bool:
        """Take an end message; False if it is stale (its series is not open)."""
        entry = self._find(end.series, end.series_uid)
        if entry is None or self.entries["ended"][entry]:
            return False
        self._end(entry, b"ended", now_ns)
        return True

    def end_all(self, reason: str, now_ns: int) -> None:
        """End every open series, as when another one begins."""
        for entry in self.open_entries():
            if not self.entries["ended"][entry]:
                self._end(entry, reason.encode(), now_ns)

    def seal_requested(self) -> list[int]:
        """Seal what the supervisor asked for: no frame of it is admitted from here on."""
        e = self.entries
        asked = np.flatnonzero((e["close_requested"] == 1) & (e["sealed"] == 0))
        e["sealed"][asked] = 1
        return [int(i) for i in asked]

    # The supervisor's side --------------------------------------------------------------

    def request_close(self, entry: int, reason: str) -> None:
        """Ask the receiver to admit no more frames of a series."""
        self.entries["reason"][entry] = reason.encode()[:32]
        self.entries["close_requested"][entry] = 1
        self.ring.next("close_requests")

    def wants_closing(self, entry: int, now_ns: int) -> str | None:
        """Return why a series should be closed now, None if it should go on."""
        e = self.entries[entry]
        expected, here = int(e["expected"]), int(e["n_received"] + e["n_dropped"])
        complete = expected >= 0 and here >= expected and int(e["max_frame"]) < expected
        # Only time in which the wire was read counts: what was held back outside may come yet.
        unread_ns = int(self.ring.control["t_unread_ns"][0])
        quiet_s = (now_ns - max(int(e["t_last_ns"]), int(e["t_ended_ns"]), unread_ns)) * 1e-9
        if e["ended"]:
            reason = e["reason"].decode()
            return reason if complete or quiet_s > GRACE_S else None
        if complete and quiet_s > COMPLETE_GRACE_S:
            return "complete, no end message"
        later = self.entries["t_opened_ns"][self.entries["key"] > e["key"]]
        if quiet_s > OVERTAKEN_S and bool(np.any(later > e["t_last_ns"])):
            return "superseded"
        return "silent" if quiet_s > SILENT_S else None

    def announced(self, entry: int) -> int:
        """Return how many frames a series has: the header's count, or more if more came.

        Without a header only what lies between the frames that came is known to exist; of a share
        only what came.
        """
        if self._is_share():
            return int(self.entries["n_received"][entry] + self.entries["n_dropped"][entry])
        first, end = self._span(entry)
        return end - first

    def unseen(self, entry: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the frame numbers that are (missing, dropped), once the series is sealed.

        Nothing is missing of a share: what did not come here was dealt to another host.
        """
        first, end = self._span(entry)
        seen = self.seen[entry, first:end]
        missing, dropped = seen == Seen.NOTHING, seen == Seen.DROPPED
        if self._is_share():
            missing[:] = False
        return np.flatnonzero(missing) + first, np.flatnonzero(dropped) + first

    def n_missing_below(self, entry: int, frame: int) -> int:
        """Return how many frames below a number, -1 where none has come yet, have not come."""
        first, _ = self._span(entry)
        return int(np.count_nonzero(self.seen[entry, first : max(frame, first)] == Seen.NOTHING))

    def so_far(self, entry: int) -> dict[str, int]:
        """Return what is known of a series' frames while it is open.

        `n_missing` counts the gaps below the highest number that came; a late frame closes one.
        """
        e = self.entries[entry]
        received, dropped = int(e["n_received"]), int(e["n_dropped"])
        first = 0 if e["has_start"] else max(int(e["min_frame"]), 0)
        return {
            "n_received": received,
            "n_dropped": dropped,
            "n_missing": 0
            if self._is_share()
            else int(e["max_frame"]) + 1 - first - received - dropped,
        }

    def is_known(self, series: int, uid: str | None, now_ns: int) -> bool:
        """Say whether a frame of this series would find it open, or lately closed."""
        found = self._find(series, uid)
        return found is not None or self._find_closed(series, uid, now_ns) is not None

    # ------------------------------------------------------------------------------------

    def _is_share(self) -> bool:
        return bool(self.ring.control["is_share"][0])

    def _span(self, entry: int) -> tuple[int, int]:
        e = self.entries[entry]
        end = min(max(int(e["expected"]), int(e["max_frame"]) + 1, 0), MAX_FRAMES)
        return (0 if e["has_start"] else max(int(e["min_frame"]), 0)), end

    def _find(self, series: int, uid: str | None) -> int | None:
        """Return the newest series of this id that takes frames; V2's unique id must agree."""
        for entry in reversed(self.open_entries()):
            if not self.entries["sealed"][entry] and self._is(entry, series, uid):
                return entry
        return None

    def _find_closed(self, series: int, uid: str | None, now_ns: int) -> int | None:
        e = self.entries
        for i in np.flatnonzero(e["sealed"] == 1):
            entry = int(i)
            recent = not e["released"][entry] or now_ns - e["t_released_ns"][entry] < LATE_S * 1e9
            # Numbers begin again; a unique id does not.
            is_same = uid is not None and uid == e["uid"][entry].decode(errors="replace")
            if e["key"][entry] and (recent or is_same) and self._is(entry, series, uid):
                return entry
        return None

    def _is_same_header(self, entry: int, start: SeriesStart, *, again: bool) -> bool:
        """Say whether a series of this number began with this header; V1 has no unique id."""
        if start.series_uid is None:
            return again and int(self.entries["max_frame"][entry]) < 0
        return bool(self.entries["uid"][entry].decode() == start.series_uid)

    def _is(self, entry: int, series: int, uid: str | None) -> bool:
        known = self.entries["uid"][entry].decode(errors="replace")
        same_uid = uid is None or not known or known == uid
        return int(self.entries["series"][entry]) == series and same_uid

    def _place(self) -> int | None:
        """Return the entry to use next: an empty one, else the one released longest ago."""
        e = self.entries
        usable = (e["key"] == 0) | (e["released"] == 1)
        found = np.flatnonzero(usable)
        return int(found[np.argmin(e["key"][found])]) if found.size else None

    def _make_room(self, now_ns: int) -> None:
        """End the series that have gone quiet: more are open than any detector has."""
        for entry in self.open_entries():
            quiet_s = (now_ns - int(self.entries["t_last_ns"][entry])) * 1e-9
            if quiet_s > GRACE_S and not self.entries["ended"][entry]:
                self._end(entry, b"superseded", now_ns)

    def _open(self, series: int, uid: str | None, now_ns: int) -> int | None:
        entry = self._place()
        if entry is None:
            return None
        e = self.entries
        top = int(e["max_frame"][entry]) if e["key"][entry] else -1
        if top >= 0:
            self.seen[entry, : top + 1] = 0
        fresh = np.zeros(1, e.dtype)
        fresh["series"], fresh["uid"] = series, (uid or "").encode()[:64]
        fresh["expected"] = fresh["min_frame"] = fresh["max_frame"] = -1
        fresh["t_opened_ns"] = fresh["t_last_ns"] = now_ns
        e[entry] = fresh[0]
        # The key makes the entry valid, so it is written last.
        e["key"][entry] = self.ring.next("next_key")
        return entry

    def _attach(self, entry: int, start: SeriesStart) -> None:
        e = self.entries
        e["expected"][entry] = -1 if start.n_frames is None else min(start.n_frames, MAX_FRAMES)
        if start.series_uid:
            e["uid"][entry] = start.series_uid.encode()[:64]
        e["has_start"][entry] = 1
        e["start_version"][entry] += 1

    def _end(self, entry: int, reason: bytes, now_ns: int) -> None:
        e = self.entries
        e["reason"][entry], e["t_ended_ns"][entry] = reason, now_ns
        e["ended"][entry] = 1
