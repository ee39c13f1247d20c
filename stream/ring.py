"""The shared-memory ring: slots of frames whose states, not queues, say where each frame is.

One rule: a slot's state word is written last by the process that finished a step, so whoever
dies, the survivors can read from memory alone what is done and what is to do again. The memory
is an anonymous file (memfd): it is nowhere by name and vanishes with its last process.

    FREE -> FILLING -> RECEIVED -> JUDGING -> JUDGED -> STORED -> FREE
            receiver (intake.py)   worker     sink      supervisor
"""

from __future__ import annotations

import math
import mmap
import os
import select
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream import _kernels
from hitfinder.stream.errors import RingError
from hitfinder.stream.messages import MAX_FRAMES, Blob, Codec, FrameHeader
from hitfinder.stream.packed import Packed
from hitfinder.stream.results import OUTCOMES, Outcome, Peaks, Record

MAX_PEAKS = 1024  # a frame, as CrystFEL's readers commonly take
MAX_BLOBS = 4  # channels of one exposure; the detector has at most three
MAX_SERIES = 16  # open or lately closed; a detector has one, several sockets a few
MAX_ROLES = 16  # receiver, sink, workers
# Messages read from the wire and not taken in yet; the largest is a V1 header of a 64M detector,
# flatfield and mask of 256 MiB each.
N_MESSAGES, MAX_PARTS, MESSAGE_BYTES = 4, 16, 640 << 20
MAX_BINS = 1024  # of a series' background counts; see evidence.py
ERROR_LINES = 16  # latest malformed messages kept for `status`
PAGE = 4096
# A state word: the state, and above it the role of the process that claimed the slot.
STATE_BITS, OWNER_SHIFT = 0xFF, 8


class State(IntEnum):
    """Where a slot's frame is; see the module's drawing."""

    FREE = 0
    FILLING = 1
    RECEIVED = 2
    JUDGING = 3
    JUDGED = 4
    STORED = 5


class Seen(IntEnum):
    """What is known of one frame number of a series; one byte each in shared memory."""

    NOTHING = 0
    RECEIVED = 1
    DROPPED = 2


BLOB = np.dtype(
    [("channel", "S32"), ("codec", "u1"), ("elem_size", "u1"), ("has_header", "u1")]
    + [("dtype", "S8"), ("ss", "u4"), ("fs", "u4"), ("offset", "u8"), ("n_bytes", "u8")],
    align=True,
)
# What a slot says, in the order in which it is written, and what stands for "unknown".
_FRAME = [("key", "u4"), ("attempts", "u4"), ("series", "u8"), ("frame", "u8"), ("uid", "S64")]
_FRAME += [("start_ns", "i8"), ("t_received_ns", "i8")]
_VERDICT = [("outcome", "i1"), ("mismatch", "i1"), ("tells_parameters", "i1"), ("n_peaks", "i4")]
_VERDICT += [(n, "f8") for n in ("p_hit", "threshold", "p_any", "p_spots3")]
_VERDICT += [(n, "f8") for n in ("photon_energy_eV", "photon_energy_sigma_eV")]
_VERDICT += [(n, "f8") for n in ("clen_m", "clen_sigma_m")]
_VERDICT += [(n, "f8") for n in ("header_photon_energy_eV", "header_clen_m")]
_VERDICT += [(n, "f8") for n in ("d_min_A", "background_photons_per_px", "flux_scale")]
_VERDICT += [("n_photons", "i8"), ("n_learned", "i8"), ("learned_by", "i4")]
_VERDICT += [("model", "S64"), ("mask", "S64")]
_PLACE = [("reason", "S160"), ("row", "i8"), ("file", "S64")]
SLOT = np.dtype(
    [("seq", "u8"), ("freed_ns", "u8")]
    + _FRAME
    + [("n_blobs", "u4"), ("blobs", BLOB, MAX_BLOBS)]
    + _VERDICT
    + _PLACE,
    align=True,
)
FRAME = Packed(SLOT, [name for name, _ in _FRAME])
VERDICT = Packed(SLOT, [name for name, _ in _VERDICT])
SAID = Packed(SLOT, [name for name, _ in _FRAME + _VERDICT + _PLACE])
BLOB_FIELDS = Packed(BLOB, BLOB.names or ())
_UNKNOWN: dict[str, Any] = {"i": -1, "f": math.nan, "S": b""}
UNKNOWN = {name: _UNKNOWN[np.dtype(kind).kind] for name, kind in _VERDICT + _PLACE}
FLOATS = tuple(name for name, kind in _VERDICT if kind == "f8")
BLOBS_AT: int = dict(SLOT.fields or {})["blobs"][1]
CODECS = tuple(Codec)


def _blank_slot() -> bytes:
    blank = np.zeros(1, SLOT)
    for name, value in UNKNOWN.items():
        blank[name] = value
    return blank.tobytes()


BLANK_SLOT = _blank_slot()
SERIES = np.dtype(
    [("key", "u4"), ("series", "u8"), ("uid", "S64"), ("expected", "i8")]
    + [("has_start", "u1"), ("start_version", "u4"), ("folder", "S256")]
    # Steps of a series' end, each flag with one writer; see series.py.
    + [("ended", "u1"), ("close_requested", "u1"), ("sealed", "u1"), ("drained", "u1")]
    + [("finalised", "u1"), ("released", "u1"), ("reason", "S32")]
    + [
        ("min_frame", "i8"),
        ("max_frame", "i8"),
        ("n_received", "u8"),
        ("n_duplicate", "u8"),
        ("n_late", "u8"),
    ]
    + [("t_opened_ns", "i8"), ("t_last_ns", "i8"), ("t_ended_ns", "i8"), ("t_released_ns", "i8")]
    + [("n_dropped", "u8"), ("counts", "u8", len(OUTCOMES))],
    align=True,
)
CONTROL = np.dtype(
    [("stop", "u4"), ("source_done", "u4"), ("next_key", "u8"), ("next_seq", "u8")]
    + [("close_requests", "u8"), ("n_put", "u8"), ("n_done", "u8")]
    + [("n_messages", "u8"), ("n_bytes", "u8"), ("n_malformed", "u8"), ("n_stale", "u8")]
    + [("source_position", "u8"), ("source_total", "i8"), ("connected", "u4")]
    + [("n_errors", "u8"), ("errors", "S240", ERROR_LINES)]
    # When the wire was last left unread: the ring was full, or the receiver dead.
    + [
        ("n_down", "u4"),
        ("t_unread_ns", "i8"),
        ("ready", "u4", MAX_ROLES),
        ("heartbeat_ns", "i8", MAX_ROLES),
    ]
    + [("n_hot", "u4", MAX_ROLES), ("last_words", "S200", MAX_ROLES)]
    # Of a replay over a cluster: judges asked for, those that judge, and the nodes they are on.
    + [("n_judges", "u4"), ("n_judges_up", "u4"), ("n_nodes", "u4")]
    # Frames of a series are dealt over several hosts, of which this is one.
    + [("is_share", "u4")],
    align=True,
)
# Where the counters lie in it.
COUNTERS = {
    name: int(place[1]) for name, place in (CONTROL.fields or {}).items() if place[0] == np.uint64
}
# A message in the inbox; see inbox.py.
MESSAGE = np.dtype(
    [("n_tries", "u4"), ("n_parts", "u4"), ("lengths", "u8", MAX_PARTS)], align=True
)
# What the operator changed in one run of the daemon; see controls.py.
MAX_CHANGES = 256
CHANGE = np.dtype(
    [("key", "u4"), ("series", "i8"), ("frame", "u8")]
    + [("threshold", "f8"), ("miss_sample_fraction", "f8")]
    + [("model", "S64"), ("mask", "S64"), ("n_masks", "u4")],
    align=True,
)
# What may take the place of model and mask, and what each worker says of it; see candidate.py.
CANDIDATE = np.dtype(
    [("number", "u4"), ("model", "S64"), ("mask", "S64"), ("n_masks", "u4"), ("threshold", "f8")]
    + [("answered", "u4", MAX_ROLES), ("refusal", "S240", MAX_ROLES)]
    + [("judged", "u8", (MAX_ROLES, 2, 2))],
    align=True,
)
# Two copies each, the active one whole; see evidence.py.
COUNTS = np.dtype(
    [("key", "u4"), ("version", "u4"), ("n_bins", "u4"), ("n_frames", "u8"), ("last_seq", "u8")]
    + [("counts", "f8", MAX_BINS), ("exposure", "f8", MAX_BINS)],
    align=True,
)
EVIDENCE = np.dtype([("active", "u4"), ("copies", COUNTS, 2)], align=True)
ESTIMATE = np.dtype(
    [("key", "u4"), ("n_frames", "u8"), ("n_hits_used", "u8"), ("n_misses_used", "u8")]
    + [("n_photons", "f8")]
    + [(n, "f8") for n in ("photon_energy_eV", "photon_energy_sigma_eV")]
    + [(n, "f8") for n in ("clen_m", "clen_sigma_m", "correlation", "dispersion")]
    + [("matrix", "f4", (3, 3)), ("tells_parameters", "?")]
    # Header against pixels: the last look, its chance, and whether any look was a mismatch.
    + [("look", "i4"), ("header_chance", "f8"), ("header_mismatch", "?")],
    align=True,
)
POSTERIOR = np.dtype([("claimed_ms", "u4"), ("active", "u4"), ("copies", ESTIMATE, 2)], align=True)


def _pages(n_bytes: int) -> int:
    return -(-n_bytes // PAGE) * PAGE


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in the ring's memory, from the two numbers that size it."""

    n_slots: int
    slot_bytes: int

    @property
    def offsets(self) -> dict[str, int]:
        """Return the byte offset of each part; `end` is the total size."""
        sizes = {
            "control": CONTROL.itemsize,
            "states": 4 * self.n_slots,
            "slots": SLOT.itemsize * self.n_slots,
            "peaks": 4 * 5 * MAX_PEAKS * self.n_slots,
            "series": SERIES.itemsize * MAX_SERIES,
            "evidence": EVIDENCE.itemsize * MAX_SERIES * MAX_ROLES * 2,
            "posteriors": POSTERIOR.itemsize * MAX_SERIES,
            "changes": CHANGE.itemsize * MAX_CHANGES,
            "changes_made": 4,
            "candidate": CANDIDATE.itemsize,
            "messages": MESSAGE.itemsize * N_MESSAGES,
            # Sparse: only pages of frame numbers that were seen become memory.
            "seen": MAX_FRAMES * MAX_SERIES,
            "payload": _pages(self.slot_bytes) * self.n_slots,
            "inbox": MESSAGE_BYTES * N_MESSAGES,
        }
        offsets, at = {}, 0
        for name, size in sizes.items():
            offsets[name] = at
            at += _pages(size)
        offsets["end"] = at
        return offsets


class Ring:
    """One mapping of the ring, in whichever process.

    Args:
        fd: memfd as made by `create_memory`, inherited by every child.
        layout: the two numbers it was made with.
    """

    def __init__(self, fd: int, layout: Layout) -> None:
        at = layout.offsets
        self.fd, self.layout = fd, layout
        self.memory = mmap.mmap(fd, at["end"])
        self.control = np.frombuffer(self.memory, CONTROL, 1, at["control"])[0:1]
        self.states = np.frombuffer(self.memory, np.uint32, layout.n_slots, at["states"])
        self.slots = np.frombuffer(self.memory, SLOT, layout.n_slots, at["slots"])
        peaks = np.frombuffer(self.memory, "<f4", layout.n_slots * 5 * MAX_PEAKS, at["peaks"])
        self.peaks = peaks.reshape(layout.n_slots, 5, MAX_PEAKS)
        self.series = np.frombuffer(self.memory, SERIES, MAX_SERIES, at["series"])
        n_blocks = MAX_SERIES * MAX_ROLES * 2
        evidence = np.frombuffer(self.memory, EVIDENCE, n_blocks, at["evidence"])
        self.evidence = evidence.reshape(MAX_SERIES, MAX_ROLES, 2)
        self.posteriors = np.frombuffer(self.memory, POSTERIOR, MAX_SERIES, at["posteriors"])
        self.changes = np.frombuffer(self.memory, CHANGE, MAX_CHANGES, at["changes"])
        self.changes_made = np.frombuffer(self.memory, np.uint32, 1, at["changes_made"])
        self.candidate = np.frombuffer(self.memory, CANDIDATE, 1, at["candidate"])
        self.messages = np.frombuffer(self.memory, MESSAGE, N_MESSAGES, at["messages"])
        seen = np.frombuffer(self.memory, np.uint8, MAX_SERIES * MAX_FRAMES, at["seen"])
        self.seen = seen.reshape(MAX_SERIES, MAX_FRAMES)
        stride = _pages(layout.slot_bytes)
        payload = np.frombuffer(self.memory, np.uint8, stride * layout.n_slots, at["payload"])
        self.payload: NDArray[np.uint8] = payload.reshape(layout.n_slots, stride)
        self._states_at, self._slots_at = at["states"], at["slots"]
        # Views of what is asked at every wake-up; a state is the low byte of its word.
        self._low_bytes = self.states.view(np.uint8)[::4]
        self._seq, self._freed_ns = self.slots["seq"], self.slots["freed_ns"]
        self._control_at, self._inbox_at = at["control"], at["inbox"]

    # States -----------------------------------------------------------------------------

    def set_state(self, slot: int, state: State) -> None:
        """Hand a slot on: everything written before is visible to who sees the new state."""
        _kernels.store_u32(self.memory, self._states_at + 4 * slot, int(state))

    def claim(self, slot: int, state: State, to: State, owner: int = 0) -> bool:
        """Move a slot from one state to another unless somebody else was first.

        The owner stands in the same word, so that no death can come between the two.
        """
        word = int(to) | owner << OWNER_SHIFT
        return _kernels.cas_u32(self.memory, self._states_at + 4 * slot, int(state), word)

    def state_of(self, slot: int) -> State:
        """Return where a slot's frame is."""
        return State(int(self.states[slot]) & STATE_BITS)

    def owner_of(self, slot: int) -> int:
        """Return the role that claimed a slot, 0 if none did."""
        return int(self.states[slot]) >> OWNER_SHIFT

    def in_state(self, state: State) -> list[int]:
        """Return the slots in `state`, in the order in which their frames were received."""
        found = self._all_in(state)
        found.sort(key=self._seq.item)
        return found

    def take_free(self) -> int | None:
        """Claim the most recently freed slot, whose memory is still warm; None if all are used."""
        free = self._all_in(State.FREE)
        while free:
            latest = max(free, key=self._freed_ns.item)
            if self.claim(latest, State.FREE, State.FILLING):
                return latest
            free.remove(latest)
        return None

    def release(self, slot: int) -> None:
        """Give a slot back; its frame is published and forgotten."""
        self._seq[slot] = 0
        self.slots["key"][slot] = 0
        self._freed_ns[slot] = time.monotonic_ns()
        self.set_state(slot, State.FREE)

    def busy(self, key: int) -> bool:
        """Say whether any slot still holds a frame of series `key`."""
        return bool(np.any((self.states != State.FREE) & (self.slots["key"] == key)))

    def _all_in(self, state: State) -> list[int]:
        # A copy, in which the search costs a tenth of what numpy asks for a comparison.
        states, found, at = self._low_bytes.tobytes(), [], -1
        while (at := states.find(state, at + 1)) >= 0:
            found.append(at)
        return found

    # Contents ---------------------------------------------------------------------------

    def describe(self, slot: int, frame: FrameHeader, key: int, t_received_ns: int) -> None:
        """Write which frame a slot holds; `seq` last, since it makes the rest valid."""
        at = self._slot_at(slot)
        self.memory[at : at + SLOT.itemsize] = BLANK_SLOT
        uid = (frame.series_uid or "").encode()
        start_ns = -1 if frame.start_ns is None else frame.start_ns
        FRAME.write(
            self.memory, at, key, 0, frame.series, frame.frame, uid, start_ns, t_received_ns
        )
        self._seq[slot] = self.next("next_seq")

    def store_blobs(self, slot: int, blobs: tuple[Blob, ...]) -> None:
        """Copy the compressed bytes of all channels into the slot.

        Raises:
            RingError: more than `MAX_BLOBS` channels, or the slot is too small; the text says
                what to raise.
        """
        header = self.slots[slot]
        if len(blobs) > MAX_BLOBS:
            raise RingError(f"{len(blobs)} channels in one frame; expected <= {MAX_BLOBS}")
        # The image is not kept here, but what a worker makes room for is bounded as well.
        need = max(sum(len(b.payload) for b in blobs), blobs[0].n_bytes)
        if need > self.layout.slot_bytes:
            raise RingError(
                f"frame {header['frame']} of series {header['series']}: a slot holds "
                f"{self.layout.slot_bytes} bytes, this frame needs {need}; raise ring.slot_bytes"
            )
        row_at, at = self._slot_at(slot) + BLOBS_AT, 0
        for i, blob in enumerate(blobs):
            n = len(blob.payload)
            self.payload[slot, at : at + n] = np.frombuffer(blob.payload, np.uint8)
            BLOB_FIELDS.write(
                self.memory,
                row_at + i * BLOB.itemsize,
                blob.channel.encode(),
                CODECS.index(blob.codec),
                blob.elem_size,
                blob.has_header,
                blob.dtype.encode(),
                *blob.shape,
                at,
                n,
            )
            at += n
        header["n_blobs"] = len(blobs)

    def blobs(self, slot: int) -> tuple[Blob, ...]:
        """Return the channels of a slot as received; payloads borrow the slot."""
        row_at, found = self._slot_at(slot) + BLOBS_AT, []
        for i in range(int(self.slots["n_blobs"][slot])):
            channel, codec, elem_size, has_header, dtype, ss, fs, at, n = BLOB_FIELDS.read(
                self.memory, row_at + i * BLOB.itemsize
            )
            found.append(
                Blob(
                    _text(channel),
                    (ss, fs),
                    _text(dtype),
                    CODECS[codec],
                    elem_size,
                    self.payload[slot, at : at + n].data,
                    bool(has_header),
                )
            )
        return tuple(found)

    def settle(self, slot: int, outcome: Outcome, reason: str) -> None:
        """Give a frame a verdict that needs no judging, and pass it to the sink."""
        header = self.slots[slot]
        header["outcome"], header["reason"] = OUTCOMES.index(outcome), reason.encode()[:160]
        self.set_state(slot, State.JUDGED)

    def write_verdict(self, slot: int, **verdict: Any) -> None:
        """Write what a frame was judged to be.

        Args:
            verdict: fields of `VERDICT`; None, or left out, is unknown.
        """
        values = [
            UNKNOWN[name] if (value := verdict.get(name)) is None else value
            for name in VERDICT.names
        ]
        VERDICT.write(self.memory, self._slot_at(slot), *values)

    def record(self, slot: int) -> Record:
        """Return the verdict in a slot as the record that is stored and published."""
        h = dict(zip(SAID.names, SAID.read(self.memory, self._slot_at(slot)), strict=True))
        floats: dict[str, Any] = {n: None if math.isnan(h[n]) else h[n] for n in FLOATS}
        n_peaks = h["n_peaks"]
        peaks = None
        if n_peaks >= 0:
            peaks = Peaks(*(column.tobytes() for column in self.peaks[slot, :, :n_peaks]))
        return Record(
            series=h["series"],
            series_uid=_text(h["uid"]) or None,
            frame=h["frame"],
            outcome=OUTCOMES[h["outcome"]],
            n_peaks=_natural(n_peaks),
            peaks=peaks,
            mismatch=_flag(h["mismatch"]),
            tells_parameters=_flag(h["tells_parameters"]),
            model=_text(h["model"]) or None,
            mask=_text(h["mask"]) or None,
            n_photons=_natural(h["n_photons"]),
            learned_by=_natural(h["learned_by"]),
            n_learned=_natural(h["n_learned"]),
            t_detector_ns=_natural(h["start_ns"]),
            t_received_ns=h["t_received_ns"],
            file=_text(h["file"]) or None,
            row=_natural(h["row"]),
            reason=_text(h["reason"]) or None,
            **floats,
        )

    def _slot_at(self, slot: int) -> int:
        return self._slots_at + slot * SLOT.itemsize

    def message_at(self, place: int) -> int:
        """Return the byte at which a place of the inbox begins."""
        return self._inbox_at + place * MESSAGE_BYTES

    # Counters ---------------------------------------------------------------------------

    def next(self, counter: str) -> int:
        """Count up one of the control words, whoever else counts it too, and return it."""
        offset = self._control_at + COUNTERS[counter]
        return _kernels.add_u64(self.memory, offset, 1)

    def note_error(self, text: str) -> None:
        """Keep the text of a malformed message for `status`; the oldest falls out."""
        n = self.next("n_errors")
        self.control["errors"][0, (n - 1) % ERROR_LINES] = text.encode()[:240]

    def errors(self) -> list[str]:
        """Return the latest malformed messages' texts, oldest first."""
        n = int(self.control["n_errors"][0])
        lines = self.control["errors"][0]
        return [
            lines[i % ERROR_LINES].decode(errors="replace")
            for i in range(max(0, n - ERROR_LINES), n)
        ]


def _flag(value: int) -> bool | None:
    return None if value < 0 else bool(value)


def _natural(value: int) -> int | None:
    return None if value < 0 else value


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="replace")


def create_memory(layout: Layout) -> int:
    """Return an inheritable memfd of the layout's size, all zero and not yet using memory."""
    fd = os.memfd_create("hitfinder-ring")
    os.ftruncate(fd, layout.offsets["end"])
    os.set_inheritable(fd, True)
    return fd


class Bells:
    """Doorbells between the processes: one eventfd each, rung after a state changed."""

    def __init__(self, fds: dict[str, int]) -> None:
        self.fds = fds

    @classmethod
    def create(cls, names: Iterable[str]) -> Bells:
        """Make one doorbell a name, inheritable."""
        return cls({name: os.eventfd(0, os.EFD_NONBLOCK) for name in names})

    def ring(self, prefix: str) -> None:
        """Wake every process whose doorbell's name starts with `prefix`."""
        for name, fd in self.fds.items():
            if name.startswith(prefix):
                os.eventfd_write(fd, 1)

    def wait(self, name: str, timeout_s: float, *others: int) -> None:
        """Sleep until `name` is rung, a file descriptor of `others` is readable, or time is up."""
        poller = select.poll()
        for fd in (self.fds[name], *others):
            poller.register(fd, select.POLLIN)
        if any(fd == self.fds[name] for fd, _ in poller.poll(timeout_s * 1e3)):
            try:
                os.eventfd_read(self.fds[name])
            except BlockingIOError:  # rung and read between poll and here: nothing is lost
                pass
