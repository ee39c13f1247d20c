"""Inputs that are almost right: seeds, broken in one to four places.

One rule: all is drawn from the generator, so an input is known by its seed and number.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

Parts = list[bytes]

# Numbers at which sizes, counts and offsets go wrong.
EDGES = (0, 1, 2, 7, 8, 11, 12, 15, 16, 127, 128, 255, 256, 8191, 8192, 65535, 65536)
EDGES += ((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
MOST_BYTES = 1 << 18


def mutated(seeds: Sequence[Parts], rng: random.Random) -> Parts:
    """Return a seed with one to four changes; now and then parts are left out or doubled."""
    parts = list(rng.choice(seeds))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(parts))
        if rng.random() < 0.03:
            parts = rng.choice((parts[:at] + parts[at + 1 :], [*parts, parts[at]])) or [b""]
            rng.shuffle(parts)
        else:
            other = rng.choice(rng.choice(seeds))
            parts[at] = rng.choice(CHANGES)(parts[at], other, rng)[:MOST_BYTES]
    return parts


def _place(content: bytes, rng: random.Random) -> int:
    """Return an offset; headers stand at the start, so that is where most is changed."""
    reach = min(len(content), 64) if rng.random() < 0.5 else len(content)
    return rng.randrange(reach + 1)


def _flip(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]


def _cut(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _drop(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.randint(1, 16) :]


def _splice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)] + other[_place(other, rng) :]


def _repeat(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    at, n = _place(content, rng), rng.randint(1, 32)
    return content[:at] + content[at : at + n] * rng.choice((2, 3, 50)) + content[at + n :]


def _number(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    """Overwrite with a number at the edge of what fits."""
    at, (code, width) = (
        _place(content, rng),
        rng.choice(((">Q", 8), (">I", 4), ("<I", 4), (">H", 2))),
    )
    value = (rng.choice(EDGES) + rng.randint(-1, 1)) % (1 << 8 * width)
    return content[:at] + struct.pack(code, value) + content[at + width :]


def _digits(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    """Put another number where a text has one."""
    places = [i for i, byte in enumerate(content[:4096]) if 48 <= byte <= 57]
    if not places:
        return content
    at = rng.choice(places)
    said = rng.choice((str(rng.choice(EDGES)), "-1", "1e308", "NaN", "null", '"x"', "[]", "{}"))
    return content[:at] + said.encode() + content[at + 1 :]


CHANGES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _drop,
    _splice,
    _repeat,
    _number,
    _number,
    _digits,
)
