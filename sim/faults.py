"""What can go wrong between a detector and a receiver, made on purpose and written down.

Its one rule: message in, messages out, no I/O; every fault is drawn from the seed, the series
and the frame alone, and recorded, so a test knows exactly what it must find. Kinds after the
protocol note, sections 5, 6 and 12. What ends or changes a whole series befalls the first, third,
fifth ... that is armed; the one after it is whole, so that one sees the receiver recover.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from hitfinder import HitfinderError

CORRUPT_BYTES = 8
# Images that an aborting detector still had in its queue.
ABORT_QUEUE = 4
FRAME_FAULTS = ("drop", "duplicate", "corrupt", "truncate")
CUTS = ("cancel", "abort", "rearm", "initialize")
FLAGS = ("shape", "depth", "no-header", "no-end")
GRAMMAR = (
    "drop:P,duplicate:P,corrupt:P,truncate:P,reorder:N,gap:A-B,late:N,thief:N,promise:N,"
    "disconnect:N,interleave:N,cancel:N|abort:N|rearm:N|initialize:N,shape,depth,no-header,no-end"
)


class FaultsError(HitfinderError):
    """A `--faults` text that does not follow the grammar."""


@dataclass(frozen=True, slots=True)
class WireMessage:
    """One message on its way out.

    Attributes:
        kind: which of the three.
        series: number.
        parts: the parts of the ZMQ message.
        frame: number of an image, -1 otherwise.
        blob: an image's first channel, packed; it stands somewhere in `parts`.
    """

    kind: Literal["start", "image", "end"]
    series: int
    parts: Sequence[bytes]
    frame: int = -1
    blob: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, and how often. Probabilities are per image and exclude each other.

    Attributes:
        drop: the image never leaves.
        duplicate: it leaves twice.
        corrupt: the first 8 bytes of its blob are inverted; with a 12-byte header that makes
            the announced size absurd.
        truncate: the second half of its pixel part (V1) or message (V2) is missing.
        reorder: images leave in random order within groups of that many; 0 for in order.
        gap: images of these numbers, first and last, never leave.
        late: the receiver joins before this frame: header and earlier images never leave.
        thief: so many receivers are connected and get each message in turn; only the first's
            messages leave. 0 or 1: nobody else.
        promise: the header announces so many images, whatever is sent; None for the truth.
        disconnect: the connection is closed and opened again before this frame.
        cut: what ends every other series, and before which frame: `cancel` sends the end,
            `abort` too, but what was in the detector's queue is gone, `rearm` sends none,
            `initialize` sends it and series numbers begin again.
        interleave: from this frame on, every other series leaves between the next one's.
        shape: every other series has images of half the rows.
        depth: every other series has pixels of another depth.
        no_header: the start message is not sent.
        no_end: the end message is not sent.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    reorder: int = 0
    gap: tuple[int, int] | None = None
    late: int = 0
    thief: int = 0
    promise: int | None = None
    disconnect: int | None = None
    cut: tuple[str, int] | None = None
    interleave: int | None = None
    shape: bool = False
    depth: bool = False
    no_header: bool = False
    no_end: bool = False


@dataclass(frozen=True, slots=True)
class AppliedFault:
    """One fault that was made; `frame` is -1 for header and end."""

    series: int
    frame: int
    kind: str


def parse_faults(spec: str) -> Faults:
    """Read the `--faults` grammar, e.g. `drop:0.01,reorder:4,no-end`.

    Raises:
        FaultsError: unknown word, missing or odd number, probabilities above 1 together.
    """
    values: dict[str, Any] = {}
    for word in filter(None, (w.strip() for w in spec.split(","))):
        name, _, number = word.partition(":")
        if name in FLAGS and not number:
            values[name.replace("-", "_")] = True
            continue
        key, read = _READERS.get(name, ("", None))
        if read is None or key in values:
            raise FaultsError(f"fault {word!r}; expected words of {GRAMMAR}, each once")
        try:
            values[key] = read(number)
        except ValueError as reason:
            raise FaultsError(
                f"fault {word!r}: {number!r} is no number for it; see {GRAMMAR}"
            ) from reason
    faults = Faults(**values)
    rates = [getattr(faults, kind) for kind in FRAME_FAULTS]
    if not (min(rates) >= 0 and sum(rates) <= 1):
        raise FaultsError(f"faults {spec!r}: probabilities are 0 to 1, at most 1 together")
    return faults


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    pair = _natural(first), _natural(last)
    if pair[0] > pair[1]:
        raise ValueError(text)
    return pair


def _cut(kind: str) -> Callable[[str], tuple[str, int]]:
    return lambda text: (kind, _natural(text))


_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    **{name: (name, float) for name in FRAME_FAULTS},
    **{
        name: (name, _natural)
        for name in ("reorder", "late", "thief", "promise", "disconnect", "interleave")
    },
    **{name: ("cut", _cut(name)) for name in CUTS},
    "gap": ("gap", _range),
}


@dataclass(slots=True)
class FaultInjector:
    """Turns one message into those that really leave, and remembers what it did.

    Attributes:
        applied: the faults made so far, in order.
        n_series: headers that came by so far.
    """

    faults: Faults
    seed: int = 0
    applied: list[AppliedFault] = field(default_factory=list)
    n_series: int = 0
    _held: list[WireMessage] = field(default_factory=list)
    _queued: deque[WireMessage] = field(default_factory=deque)
    _between: deque[WireMessage] = field(default_factory=deque)
    _n_dealt: int = 0

    @property
    def is_struck(self) -> bool:
        """Say whether the present series is one of those that are cut or held up."""
        return self.n_series % 2 == 1

    @property
    def cut(self) -> tuple[str, int] | None:
        """Return what ends the present series, and before which frame."""
        return self.faults.cut if self.is_struck else None

    def feed(self, message: WireMessage) -> list[WireMessage]:
        """Return the messages to send now, in order; some may be held back for a while."""
        self.n_series += message.kind == "start"
        leaving = [message]
        steps = (
            self._lose,
            self._damage,
            self._reorder,
            self._abort,
            self._interleave,
            self._mute,
        )
        for step in steps:
            leaving = [after for before in leaving for after in step(before)]
        return [m for m in leaving if self._is_dealt_here(m)]

    def _note(self, message: WireMessage, kind: str) -> None:
        self.applied.append(AppliedFault(message.series, message.frame, kind))

    def _unless(self, message: WireMessage, kind: str | None) -> list[WireMessage]:
        if kind is None:
            return [message]
        self._note(message, kind)
        return []

    def _lose(self, message: WireMessage) -> list[WireMessage]:
        gap, frame = self.faults.gap, message.frame
        if message.kind != "image":
            return [message]
        if frame < self.faults.late:
            return self._unless(message, "late")
        is_gap = gap is not None and gap[0] <= frame <= gap[1]
        return self._unless(message, "gap" if is_gap else None)

    def _mute(self, message: WireMessage) -> list[WireMessage]:
        """Lose header and end, last of all: they have told the other steps where a series ends."""
        f, kind = self.faults, None
        if message.kind == "start":
            kind = "no-header" if f.no_header else "late" if f.late else None
        elif message.kind == "end":
            is_rearmed = self.cut is not None and self.cut[0] == "rearm"
            kind = "rearm" if is_rearmed else "no-end" if f.no_end else None
        return self._unless(message, kind)

    def _damage(self, message: WireMessage) -> list[WireMessage]:
        kind = self._draw(message) if message.kind == "image" else None
        if kind is None:
            return [message]
        self._note(message, kind)
        if kind == "drop":
            return []
        if kind == "duplicate":
            return [message, message]
        damage = _corrupt if kind == "corrupt" else _truncate
        return [replace(message, parts=damage(message))]

    def _draw(self, message: WireMessage) -> str | None:
        """Return which fault this image gets: decided by seed, series and frame alone."""
        rates = {kind: getattr(self.faults, kind) for kind in FRAME_FAULTS}
        if not any(rates.values()):
            return None
        u = np.random.default_rng([self.seed, message.series, message.frame]).random()
        for kind, rate in rates.items():
            u -= rate
            if u < 0:
                return kind
        return None

    def _reorder(self, message: WireMessage) -> list[WireMessage]:
        if message.kind != "image":
            # A series that was cut short without an end must not leak into the next one.
            return [*self._release(), message]
        self._held.append(message)
        return self._release() if len(self._held) >= self.faults.reorder else []

    def _release(self) -> list[WireMessage]:
        """Let the held images go, shuffled if asked, and note which left out of order."""
        held, self._held = self._held, []
        if self.faults.reorder < 2 or len(held) < 2:
            return held
        rng = np.random.default_rng([self.seed, held[0].series, held[0].frame, 1])
        shuffled = [held[k] for k in rng.permutation(len(held))]
        for before, after in zip(held, shuffled, strict=True):
            if before.frame != after.frame:
                self._note(after, "reorder")
        return shuffled

    def _abort(self, message: WireMessage) -> list[WireMessage]:
        """Hold the latest images as a detector's queue does, and lose them at the end."""
        if self.cut is None or self.cut[0] != "abort" or message.kind == "start":
            return [message]
        if message.kind == "end":
            for lost in self._queued:
                self._note(lost, "abort")
            self._queued.clear()
            return [message]
        self._queued.append(message)
        return [self._queued.popleft()] if len(self._queued) > ABORT_QUEUE else []

    def _interleave(self, message: WireMessage) -> list[WireMessage]:
        """Keep the rest of a series, and let it leave between the messages of the next."""
        first = self.faults.interleave
        if first is None:
            return [message]
        if self.is_struck and message.kind != "start":
            if message.kind == "end" or message.frame >= first:
                self._note(message, "interleave")
                self._between.append(message)
                return []
        elif message.kind == "end":
            rest = list(self._between)
            self._between.clear()
            return [*rest, message]
        elif message.kind == "image" and self._between:
            return [message, self._between.popleft()]
        return [message]

    def _is_dealt_here(self, message: WireMessage) -> bool:
        """Say whether this receiver is the one whose turn it is."""
        n = self._n_dealt
        self._n_dealt += 1
        is_ours = self.faults.thief < 2 or n % self.faults.thief == 0
        if not is_ours:
            self._note(message, "thief")
        return is_ours


def _corrupt(message: WireMessage) -> list[bytes]:
    """Invert the first bytes of the blob, wherever the message holds it."""
    parts = list(message.parts)
    for k, part in enumerate(parts):
        at = part.find(message.blob)
        if at >= 0:
            damaged = bytes(b ^ 0xFF for b in part[at : at + CORRUPT_BYTES])
            parts[k] = part[:at] + damaged + part[at + CORRUPT_BYTES :]
            return parts
    raise FaultsError(f"frame {message.frame}: its blob is not in the message")


def _truncate(message: WireMessage) -> list[bytes]:
    """Cut the longest part, the one with the pixels, in half."""
    parts = list(message.parts)
    longest = max(range(len(parts)), key=lambda k: len(parts[k]))
    parts[longest] = parts[longest][: len(parts[longest]) // 2]
    return parts
