"""Neighbouring fields of a row in shared memory, read or written in one go as Python values.

One rule: what `numpy` lays out, `struct` moves. numpy hands out a scalar a field and takes a
microsecond for it; a slot has fifty fields, and every process reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from mmap import mmap
from typing import Any

import numpy as np

_LETTERS = {"u1": "B", "i1": "b", "b1": "?", "u4": "I", "i4": "i", "u8": "Q", "i8": "q", "f8": "d"}


class Packed:
    """The way between some fields of a row and a tuple.

    Args:
        row: a structured type, of whole numbers, truth values, float64 and bytes.
        names: fields in the order of the row. Those left out between them are passed over when
            read and become zero when written.
    """

    def __init__(self, row: np.dtype[Any], names: Sequence[str]) -> None:
        fields: dict[str, Any] = dict(row.fields or {})
        letters = "="
        self.names = tuple(names)
        self._offset = at = fields[names[0]][1]
        for name in names:
            dtype, offset = fields[name][:2]
            letter = f"{dtype.itemsize}s" if dtype.kind == "S" else _LETTERS[dtype.str[1:]]
            letters += f"{offset - at}x{letter}"
            at = offset + dtype.itemsize
        self._struct = struct.Struct(letters)

    def read(self, memory: mmap, row_at: int) -> tuple[Any, ...]:
        """Return the fields' values of the row at byte `row_at`; bytes with their padding."""
        return self._struct.unpack_from(memory, row_at + self._offset)

    def write(self, memory: mmap, row_at: int, *values: Any) -> None:
        """Put all fields' values into the row at byte `row_at`; bytes are cut to their width.

        Raises:
            struct.error: too many or too few values, or one that its field cannot hold.
        """
        self._struct.pack_into(memory, row_at + self._offset, *values)
