"""Messages into the ring: which series, which slot, bytes copied.

The same intake serves the wire (receiver.py) and recorded runs (reader.py). One rule: a frame is
marked seen only once all its bytes are in a slot, so a killed process loses at most the one
message in its hands, and that frame is accounted for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hitfinder.stream.errors import RingError, WireError
from hitfinder.stream.malformed import Malformed
from hitfinder.stream.messages import (
    Blob,
    Frame,
    FrameHeader,
    Message,
    SeriesEnd,
    SeriesStart,
    pack_start,
)
from hitfinder.stream.results import Outcome
from hitfinder.stream.ring import Bells, Ring, Seen, State
from hitfinder.stream.series import Admission, SeriesTable

log = logging.getLogger(__name__)

# Live, the detector buffers while we do not read; past this time it would lose frames unseen,
# so we read on, drop, and count.
MAX_HOLD_S = 10.0
# While a process that died has no successor yet, room is sure to come, and that time does not
# count; but this is the most: loading a model takes a minute on a machine that has other work.
MAX_MEND_S = 90.0
# How often a process that waits for room looks whether it should stop or seal a series.
CHECK_S = 0.02


class Intake:
    """Takes messages and fills slots.

    Args:
        ring: the shared memory.
        bells: doorbells; rings `worker` and `sink`.
        runtime: folder where headers are left for the other processes.
        when_full: `drop` holds for `MAX_HOLD_S` in which all processes run, then drops and
            counts; `block` waits.
        beat: called while waiting, to show that the process lives and whether it should go on.
    """

    def __init__(
        self,
        ring: Ring,
        bells: Bells,
        runtime: Path,
        *,
        when_full: str,
        beat: Callable[[], bool],
    ) -> None:
        self.ring, self.bells, self.runtime = ring, bells, runtime
        self.series = SeriesTable(ring)
        self.when_full, self.beat = when_full, beat
        self._malformed = Malformed(ring)
        self._dropping = False
        self._close_requests = -1

    def take(self, message: Message | WireError) -> None:
        """Put one message where it belongs; malformed ones are counted, never raised."""
        self.ring.next("n_messages")
        if isinstance(message, WireError):
            self.malformed(message)
        elif isinstance(message, Frame):
            self._take_frame(message)
        elif isinstance(message, SeriesStart):
            self._take_start(message)
        else:
            self._take_end(message)

    def begin(self, start: SeriesStart) -> int | None:
        """Open a recorded series beside those that are open; None while no entry is free."""
        entry = self.series.begin(start, time.monotonic_ns())
        if entry is not None:
            self._welcome(entry, start)
        return entry

    def malformed(self, error: WireError) -> None:
        """Count a malformed message, name it, and give its frame a verdict where one is known."""
        self._malformed.note(str(error))
        if error.series is not None and error.frame is not None:
            self._take_corrupt(FrameHeader(error.series, error.frame), str(error))

    def seal(self) -> None:
        """Answer the supervisor's wish to close series; cheap, as it is asked at each message."""
        requests = int(self.ring.control["close_requests"][0])
        if requests != self._close_requests:
            self._close_requests = requests
            self.series.seal_requested()
            self.bells.ring("supervisor")

    def recover(self) -> None:
        """Take over the slots, and the series without a header file, of a killed predecessor."""
        for opened in self.series.open_entries():
            self._leave_lost_header(opened)
        for slot in range(self.ring.layout.n_slots):
            state = self.ring.state_of(slot)
            header = self.ring.slots[slot]
            entry = self.series.entry_of(int(header["key"]))
            if state is not State.FILLING:
                continue
            if header["seq"] == 0 or entry is None:
                self.ring.release(slot)
                continue
            self._see(entry, int(header["frame"]))
            self._settle(slot, Outcome.LOST, "the receiver died while taking it")

    # ------------------------------------------------------------------------------------

    def _take_start(self, start: SeriesStart) -> None:
        while (entry := self.series.start(start, time.monotonic_ns())) is None:
            if not self._wait():
                return
        self._welcome(entry, start)

    def _welcome(self, entry: int, start: SeriesStart) -> None:
        for warning in start.warnings:
            log.warning("series %d: %s", start.series, warning)
        self._leave_header(entry, start)
        log.info("series %d: header, %s frames announced", start.series, start.n_frames)
        self.bells.ring("supervisor")

    def _take_end(self, end: SeriesEnd) -> None:
        if not self.series.end(end, time.monotonic_ns()):
            self.ring.next("n_stale")
            log.info("series %d: end of a series that is not open", end.series)
        self.bells.ring("supervisor")

    def _take_frame(self, frame: Frame) -> None:
        entry = self._admit(frame.header, frame.blobs[0])
        if entry is None:
            return
        slot = self._slot_for(entry, frame.header)
        if slot is None:
            return
        try:
            self.ring.store_blobs(slot, frame.blobs)
        except RingError as error:
            self.ring.note_error(str(error))
            log.warning("%s", error)
            self._see(entry, frame.header.frame)
            self._settle(slot, Outcome.DROPPED, str(error))
            return
        # Seen before it is handed on: a worker may be done with it before we are killed.
        self._see(entry, frame.header.frame)
        self.ring.set_state(slot, State.RECEIVED)
        self.bells.ring("worker")

    def _take_corrupt(self, header: FrameHeader, reason: str) -> None:
        entry = self._admit(header, None)
        if entry is None:
            return
        # What cannot be read names no unique id; the series in which it counts does.
        uid = self.series.entries["uid"][entry].decode(errors="replace") or None
        slot = self._slot_for(entry, replace(header, series_uid=uid))
        if slot is not None:
            self._see(entry, header.frame)
            self._settle(slot, Outcome.CORRUPT, reason)

    def _slot_for(self, entry: int, header: FrameHeader) -> int | None:
        """Return a slot that names this frame; None, and marked so, if it had to be dropped."""
        slot = self._free_slot()
        if slot is None:
            self.series.mark(entry, header.frame, Seen.DROPPED)
            return None
        self.ring.describe(slot, header, int(self.series.entries["key"][entry]), time.time_ns())
        return slot

    def _settle(self, slot: int, outcome: Outcome, reason: str) -> None:
        self.ring.settle(slot, outcome, reason)
        self.bells.ring("sink")

    def _admit(self, header: FrameHeader, blob: Blob | None) -> int | None:
        """Return the entry of the frame's series, opening it if need be; None if not wanted."""
        series, uid = header.series, header.series_uid
        while (entry := self.series.entry_for_frame(series, uid, time.monotonic_ns())) is None:
            if not self._wait():
                return None
        admission = self.series.admit(entry, header.frame, time.monotonic_ns())
        if admission is Admission.ABSURD:
            expected = int(self.series.entries["expected"][entry])
            self._malformed.note(
                f"frame {header.frame} of series {series}: the header announced {expected}"
            )
        if admission is not Admission.ADMIT:
            return None
        if not self.series.entries["has_start"][entry]:
            self._leave_headerless(entry, header, blob)
        return entry

    def _see(self, entry: int, frame: int) -> None:
        if not self.series.is_seen(entry, frame):
            self.series.mark(entry, frame, Seen.RECEIVED)

    def _free_slot(self) -> int | None:
        """Return a slot, waiting for one as the policy says; None means drop."""
        begin_s = whole_s = time.monotonic()
        while (slot := self.ring.take_free()) is None:
            # Not in `_wait`: who waits for a series to close must let its quiet time pass.
            self.ring.control["t_unread_ns"][0] = time.monotonic_ns()
            if not self._wait():
                return None
            now_s = time.monotonic()
            if self.ring.control["n_down"][0]:
                whole_s = now_s
            is_enough = now_s - whole_s > MAX_HOLD_S or now_s - begin_s > MAX_MEND_S
            if self.when_full == "drop" and (self._dropping or is_enough):
                if not self._dropping:
                    log.warning(
                        "ring full for %.0f s: dropping frames until a slot is free",
                        now_s - begin_s,
                    )
                self._dropping = True
                return None
        self._dropping = False
        return slot

    def _wait(self) -> bool:
        self.bells.wait("receiver", CHECK_S)
        self.seal()
        return self.beat()

    def _leave_headerless(self, entry: int, header: FrameHeader, blob: Blob | None) -> None:
        if header_path(self.runtime, int(self.series.entries["key"][entry])).exists():
            return
        start = SeriesStart(
            header.series,
            header.series_uid,
            shape=blob.shape if blob else None,
            dtype=blob.dtype if blob else None,
            warnings=("no header was received: geometry, mask and frame count are unknown",),
        )
        log.warning("series %d: %s", header.series, start.warnings[0])
        self._leave_header(entry, start)

    def _leave_lost_header(self, entry: int) -> None:
        """Stand in for a header that died with the receiver before it was left for the others."""
        series = self.series.entries[entry]
        if header_path(self.runtime, int(series["key"])).exists():
            return
        expected = int(series["expected"])
        start = SeriesStart(
            int(series["series"]),
            series["uid"].decode() or None,
            n_frames=expected if expected >= 0 else None,
            warnings=("its header was lost with a killed receiver: no geometry, no mask",),
        )
        log.warning("series %d: %s", start.series, start.warnings[0])
        self._leave_header(entry, start)

    def _leave_header(self, entry: int, start: SeriesStart) -> None:
        path = header_path(self.runtime, int(self.series.entries["key"][entry]))
        partial = path.with_suffix(".partial")
        partial.write_bytes(pack_start(start))
        partial.replace(path)


def header_path(runtime: Path, key: int) -> Path:
    """Return where the header of series `key` stands for the other processes."""
    return runtime / f"start_{key}.msgpack"


def drop_headers(runtime: Path, keys: list[int]) -> None:
    """Forget the headers of series that are over."""
    for key in keys:
        with contextlib.suppress(FileNotFoundError):
            header_path(runtime, key).unlink()
