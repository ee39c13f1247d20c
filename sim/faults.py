"""What can go wrong between a detector and a receiver, made on purpose and written down.

Its one rule: message in, messages out, no I/O; every fault is drawn from the seed, the series
and the frame alone, and recorded, so a test knows exactly what it must find. Kinds after the
protocol note, sections 5, 6 and 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from hitfinder import HitfinderError

CORRUPT_BYTES = 8
GRAMMAR = "drop:P,duplicate:P,corrupt:P,truncate:P,reorder:N,no-header,no-end"
FRAME_FAULTS = ("drop", "duplicate", "corrupt", "truncate")


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


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong. Probabilities are per image and exclude each other.

    Attributes:
        drop: the image never leaves.
        duplicate: it leaves twice.
        corrupt: the first 8 bytes of its blob are inverted; with a 12-byte header that makes
            the announced size absurd.
        truncate: the second half of its pixel part (V1) or message (V2) is missing.
        reorder: images leave in random order within groups of that many; 0 for in order.
        no_header: the start message is not sent.
        no_end: the end message is not sent.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    truncate: float = 0.0
    reorder: int = 0
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
    values: dict[str, float | int | bool] = {}
    for word in filter(None, (w.strip() for w in spec.split(","))):
        name, _, number = word.partition(":")
        try:
            if name in FRAME_FAULTS:
                values[name] = float(number)
            elif name == "reorder":
                values[name] = int(number)
            elif name in ("no-header", "no-end") and not number:
                values[name.replace("-", "_")] = True
            else:
                raise FaultsError(f"fault {word!r}; expected words of {GRAMMAR}")
        except ValueError as reason:
            raise FaultsError(
                f"fault {word!r}: {number!r} is no number; see {GRAMMAR}"
            ) from reason
    faults = Faults(**values)  # type: ignore[arg-type]
    rates = [faults.drop, faults.duplicate, faults.corrupt, faults.truncate]
    if not (min(rates) >= 0 and sum(rates) <= 1 and faults.reorder >= 0):
        raise FaultsError(f"faults {spec!r}: probabilities are 0 to 1, at most 1 together")
    return faults


@dataclass(slots=True)
class FaultInjector:
    """Turns one message into those that really leave, and remembers what it did.

    Attributes:
        applied: the faults made so far, in order.
    """

    faults: Faults
    seed: int = 0
    applied: list[AppliedFault] = field(default_factory=list)
    _held: list[WireMessage] = field(default_factory=list)

    def feed(self, message: WireMessage) -> list[WireMessage]:
        """Return the messages to send now, in order; images may be held back to reorder."""
        if message.kind == "start":
            # A series that was cut short without an end must not leak into the next one.
            held, self._held = self._held, []
            return held + self._unless(message, self.faults.no_header, "no-header")
        if message.kind == "end":
            return self._release(message.series) + self._unless(
                message, self.faults.no_end, "no-end"
            )
        self._held += self._image(message)
        return self._release(message.series) if len(self._held) >= self.faults.reorder else []

    def _unless(self, message: WireMessage, is_lost: bool, kind: str) -> list[WireMessage]:
        if not is_lost:
            return [message]
        self.applied.append(AppliedFault(message.series, -1, kind))
        return []

    def _image(self, message: WireMessage) -> list[WireMessage]:
        kind = self._draw(message)
        if kind is None:
            return [message]
        self.applied.append(AppliedFault(message.series, message.frame, kind))
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

    def _release(self, series: int) -> list[WireMessage]:
        """Let the held images go, shuffled if asked, and note which left out of order."""
        held, self._held = self._held, []
        if self.faults.reorder < 2 or len(held) < 2:
            return held
        rng = np.random.default_rng([self.seed, series, held[0].frame, 1])
        shuffled = [held[k] for k in rng.permutation(len(held))]
        moved = [b for a, b in zip(held, shuffled, strict=True) if a.frame != b.frame]
        self.applied += [AppliedFault(m.series, m.frame, "reorder") for m in moved]
        return shuffled


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
