"""Captured wire messages in a file: what arrived, when, part by part, unread.

The one rule: a record is whole or it is not there, so a killed capture reads up to its last
whole message. All numbers little-endian:

    file    8 bytes "HFWIRE1\\n", then records
    record  4 bytes "MSG\\n", uint32 n_parts, uint64 t_received_ns, n_parts x uint64 length, parts
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from hitfinder.stream.errors import StoreError, WireError

MAGIC = b"HFWIRE1\n"
# A detector's message has at most 9 parts; room for what a foreign sender may do.
MAX_PARTS = 1024

_MARK = b"MSG\n"
_HEAD = struct.Struct("<4sIQ")


class CaptureWriter:
    """Writes messages as they come; each is handed to the system at once, so a kill keeps them.

    Args:
        path: a file that must not exist yet.

    Raises:
        StoreError: it exists or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = open(path, "xb")
            self._file.write(MAGIC)
            self._file.flush()
        except OSError as error:
            raise StoreError(f"capture file {path} cannot be made: {error}") from error

    def write(self, parts: Sequence[bytes | memoryview], t_received_ns: int) -> None:
        """Append one message.

        Args:
            parts: the ZMQ parts as received, 1 to `MAX_PARTS`.
            t_received_ns: arrival, in ns since the epoch.

        Raises:
            WireError: no part or too many.
            StoreError: the file cannot be written, e.g. the disk is full.
        """
        if not 0 < len(parts) <= MAX_PARTS:
            raise WireError(f"message of {len(parts)} parts; captured are 1 to {MAX_PARTS}")
        views = [memoryview(part).cast("B") for part in parts]
        try:
            self._file.write(_HEAD.pack(_MARK, len(views), t_received_ns))
            self._file.write(struct.pack(f"<{len(views)}Q", *map(len, views)))
            for view in views:
                self._file.write(view)
            self._file.flush()
        except OSError as error:
            raise StoreError(f"capture file {self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_capture(path: Path, *, strict: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (t_received_ns, parts) of each whole message of a capture file.

    A length beyond the end of the file counts as truncation, and is never allocated.

    Args:
        path: a file that a `CaptureWriter` made.
        strict: raise where the file ends within a record, instead of stopping there.

    Raises:
        WireError: not a capture file, a damaged record, or (strict) a truncated one.
        StoreError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            yield from _records(file, path, strict)
    except OSError as error:
        raise StoreError(f"capture file {path} cannot be read: {error}") from error


def _records(file: BinaryIO, path: Path, strict: bool) -> Iterator[tuple[int, list[bytes]]]:
    start = file.read(len(MAGIC))
    if not MAGIC.startswith(start):
        raise WireError(f"{path} starts with {start!r}; a capture file starts with {MAGIC!r}")
    size = os.fstat(file.fileno()).st_size
    at = file.tell()
    try:
        if start != MAGIC:
            raise EOFError
        while file.tell() < size:
            at = file.tell()
            yield _record(file, path, size)
    except EOFError:
        if strict:
            raise WireError(f"{path} ends within the record at byte {at} of {size}") from None


def _record(file: BinaryIO, path: Path, size: int) -> tuple[int, list[bytes]]:
    at = file.tell()
    mark, n_parts, t_received_ns = _HEAD.unpack(_read(file, _HEAD.size, size))
    if mark != _MARK or not 0 < n_parts <= MAX_PARTS:
        raise WireError(f"{path}: no record at byte {at}: mark {mark!r}, {n_parts} parts")
    lengths = struct.unpack(f"<{n_parts}Q", _read(file, 8 * n_parts, size))
    return t_received_ns, [_read(file, n, size) for n in lengths]


def _read(file: BinaryIO, n: int, size: int) -> bytes:
    """Return `n` bytes. Asked first: a read of n bytes allocates them before it reads.

    Raises:
        EOFError: the file is shorter.
    """
    if n > size - file.tell():
        raise EOFError
    read = file.read(n)
    if len(read) != n:
        raise EOFError
    return read
