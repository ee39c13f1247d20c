"""Read CBOR without copying byte strings: plain values, and views into the message.

The one rule: whatever the bytes, either values come back or a `WireError`; depth and number of
items are bounded, and no length word is believed before the bytes are there. A general decoder
copies each image (protocol note, section 4.3). Format: RFC 8949, sections 3 and 5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from hitfinder.stream.errors import WireError

# The deepest real message nests 7 levels; user_data may add some. Far below Python's own limit.
MAX_DEPTH = 64
# A full start message has about 150 items. Bounds the time that hostile bytes can take.
MAX_ITEMS = 1 << 16
SELF_DESCRIBE = 55799

_FLOATS = {25: ">e", 26: ">f", 27: ">d"}
_SIMPLE = {20: False, 21: True}


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value with the CBOR tag that stood before it."""

    tag: int
    value: Any


def read_map(message: memoryview, into: dict[Any, Any]) -> None:
    """Fill `into` with the one map that a message must be.

    Entries are stored as they are read, so after an error `into` holds what stood before it.

    Args:
        message: the whole message, as a byte view. Byte strings come back as slices of it
            (those of indefinite length as a view of their joined copy).
        into: receives text -> value; arrays are lists, tags are `Tagged`.

    Raises:
        WireError: not CBOR, not a map, a map key twice, bytes after the end, or over the bounds.
    """
    reader = _Reader(message)
    major, _, argument = reader.head()
    while major == 6 and argument == SELF_DESCRIBE:
        major, _, argument = reader.head()
    if major != 5:
        raise WireError(f"CBOR item of major type {major}; expected a map (5)")
    reader.pairs(into, argument, 1)
    if reader.left:
        raise WireError(f"{reader.left} bytes after the end of the CBOR map; expected none")


class _Reader:
    """A position in the message. Each method consumes what it returns."""

    __slots__ = ("_at", "_end", "_n_items", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._end = len(view)
        self._at = 0
        self._n_items = 0

    @property
    def left(self) -> int:
        return self._end - self._at

    def head(self) -> tuple[int, int, int | None]:
        """Return major type, additional information and argument (None: indefinite)."""
        self._n_items += 1
        if self._n_items > MAX_ITEMS:
            raise WireError(f"more than {MAX_ITEMS} CBOR items in one message")
        if self._at >= self._end:
            raise WireError(f"CBOR ends at offset {self._at}, where an item is expected")
        initial = self._view[self._at]
        self._at += 1
        major, info = initial >> 5, initial & 31
        if info < 24:
            return major, info, info
        if info < 28:
            return major, info, int.from_bytes(self.take(1 << (info - 24)), "big")
        if info == 31 and major in (2, 3, 4, 5):
            return major, info, None
        raise WireError(f"CBOR byte {initial:#04x} at offset {self._at - 1} is not allowed")

    def take(self, n: int) -> memoryview:
        start = self._at
        if n > self._end - start:
            raise WireError(f"CBOR needs {n} bytes at offset {start}; {self.left} are left")
        self._at = start + n
        return self._view[start : start + n]

    def item(self, depth: int) -> Any:
        """Return the next data item, which stands `depth` levels deep."""
        if depth > MAX_DEPTH:
            raise WireError(f"CBOR nested deeper than {MAX_DEPTH} levels")
        major, info, argument = self.head()
        if major == 3:
            return self._text(argument)
        if major == 2:
            return self._bytes(argument)
        if major == 4:
            return self._array(argument, depth)
        if major == 5:
            pairs: dict[Any, Any] = {}
            self.pairs(pairs, argument, depth + 1)
            return pairs
        # The other major types have no indefinite form, see `head`.
        number = 0 if argument is None else argument
        if major == 0:
            return number
        if major == 1:
            return -1 - number
        if major == 6:
            return Tagged(number, self.item(depth + 1))
        return _simple(info, number)

    def pairs(self, into: dict[Any, Any], n: int | None, depth: int) -> None:
        """Read `n` key-value pairs (None: up to the break) into `into`."""
        n_read = 0
        while n_read != n:
            if n is None and self._skip_break():
                return
            key = self.item(depth)
            if not isinstance(key, str | int | float | None):
                raise WireError(f"CBOR map key is a {type(key).__name__}; expected text")
            if key in into:
                raise WireError(f"CBOR map has the key {key!r:.80} twice")
            into[key] = self.item(depth)
            n_read += 1

    def _array(self, n: int | None, depth: int) -> list[Any]:
        values: list[Any] = []
        while len(values) != n:
            if n is None and self._skip_break():
                break
            values.append(self.item(depth + 1))
        return values

    def _bytes(self, n: int | None) -> memoryview:
        return self._joined(2) if n is None else self.take(n)

    def _text(self, n: int | None) -> str:
        try:
            return str(self._joined(3) if n is None else self.take(n), "utf-8")
        except UnicodeDecodeError:
            raise WireError(f"CBOR text before offset {self._at} is not UTF-8") from None

    def _joined(self, major: int) -> memoryview:
        """Return the chunks of an indefinite string; each must be a definite one of its kind."""
        chunks = []
        while not self._skip_break():
            kind, _, n = self.head()
            if kind != major or n is None:
                raise WireError(f"CBOR string chunk of major type {kind}; expected {major}")
            chunks.append(self.take(n))
        return memoryview(b"".join(chunks))

    def _skip_break(self) -> bool:
        if self.left and self._view[self._at] == 0xFF:
            self._at += 1
            return True
        return False


def _simple(info: int, number: int) -> Any:
    """Return a float, a truth value, or None for null and every value without a meaning."""
    if info in _FLOATS:
        return struct.unpack(_FLOATS[info], number.to_bytes(1 << (info - 24), "big"))[0]
    if info == 24 and number < 32:
        raise WireError(f"CBOR simple value {number} in two bytes is not allowed")
    return _SIMPLE.get(number)
