"""Making the files of a killed writer readable again.

One rule: never touch a file whose writer lives; the writer of a folder holds a lock that dies
with it. A killed SWMR writer leaves the superblock's consistency flags set, and plain readers
(CrystFEL, DIALS) refuse the file until they are cleared (HDF5 file format specification 3.0,
"Superblock" version 3; checksum: Bob Jenkins' lookup3, as named there). Columns are appended
after images, so a kill between them leaves datasets of unequal length: all are cut to the
shortest, which loses only rows that were never flushed.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

import h5py
import numpy as np

from hitfinder.stream.errors import StoreError
from hitfinder.stream.swmr import LIBVER

LOCK_NAME = ".writer"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# signature, version, sizes of offsets and lengths, flags; base, extension, end of file, root
_SUPERBLOCK = struct.Struct("<8sBBBBQQQQ")
_END_OF_FILE = 28  # byte at which the end-of-file address stands
# Open for writing, and in SWMR mode as well; other bits mean that the superblock is damaged.
_FLAGS = (1, 5)
_MASK = 0xFFFFFFFF


class WriterLock:
    """The claim of a living process on a series folder: an flock, gone when it dies."""

    def __init__(self, folder: Path) -> None:
        """Take the folder.

        Raises:
            StoreError: another living process writes it.
        """
        self._path = folder / LOCK_NAME
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise StoreError(
                f"{folder.name}: another process is writing this series; stop it first"
            ) from error
        os.truncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Give the folder up and take the lock file away."""
        if self._fd >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def is_being_written(folder: Path) -> bool:
    """Return whether a living process holds the folder's lock."""
    try:
        fd = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)  # who looks may not write
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def lookup3(key: bytes, initial: int = 0) -> int:
    """Return Bob Jenkins' lookup3 hash (hashlittle) of `key`, as HDF5's metadata checksum."""
    a = b = c = (0xDEADBEEF + len(key) + initial) & _MASK
    while len(key) > 12:
        x, y, z = struct.unpack_from("<III", key)
        a, b, c = _mix(a + x & _MASK, b + y & _MASK, c + z & _MASK)
        key = key[12:]
    if not key:
        return c
    x, y, z = struct.unpack("<III", key.ljust(12, b"\0"))
    return _final(a + x & _MASK, b + y & _MASK, c + z & _MASK)


def _rotate(x: int, k: int) -> int:
    return (x << k | x >> (32 - k)) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for k in (4, 6, 8, 16, 19, 4):
        a = (a - c & _MASK) ^ _rotate(c, k)
        c = c + b & _MASK
        a, b, c = b, c, a  # the next step does the same to the next of the three
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for k in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _rotate(b, k) & _MASK
        a, b, c = b, c, a
    return b


def is_cut_short(path: Path) -> bool:
    """Return whether a file was not closed: flagged as being written, or shorter than it says."""
    is_flagged, is_short = _state_of(path)
    return is_flagged or is_short


def is_growing(path: Path) -> bool:
    """Return whether a file is to be read as one that its writer has open, or had when it died.

    Only such a file: in SWMR mode HDF5 reads damaged metadata again and again, practically for
    ever, in case that somebody is just writing it.
    """
    is_flagged, is_short = _state_of(path)
    return is_flagged and not is_short


def _state_of(path: Path) -> tuple[bool, bool]:
    """Return (flagged as being written, shorter than it says); not HDF5 is neither."""
    with path.open("rb") as file:
        head = file.read(_SUPERBLOCK.size)
        n_bytes = os.fstat(file.fileno()).st_size
    if len(head) < _SUPERBLOCK.size or head[:8] != _SIGNATURE or head[8] < 3:
        return False, False
    end: int = struct.unpack_from("<Q", head, _END_OF_FILE)[0]
    return head[11] in _FLAGS, end > n_bytes


def clear_flags(path: Path) -> bool:
    """Clear the consistency flags of a dead writer's file; return whether it was cut short.

    A killed writer may have written more than the superblock says, one on a full disk less: the
    end-of-file address and the file's length are made equal.

    Raises:
        StoreError: not an HDF5 file with a version 3 superblock, or a damaged superblock.
    """
    with path.open("r+b") as file:
        head = bytearray(file.read(_SUPERBLOCK.size + 4))
        _check_superblock(path, bytes(head))
        end = struct.unpack_from("<Q", head, _END_OF_FILE)[0]
        n_bytes = os.fstat(file.fileno()).st_size
        if head[11] == 0 and end <= n_bytes:
            return False
        head[11] = 0
        struct.pack_into("<Q", head, _END_OF_FILE, max(end, n_bytes))
        struct.pack_into("<I", head, _SUPERBLOCK.size, lookup3(bytes(head[: _SUPERBLOCK.size])))
        if end > n_bytes:
            file.truncate(end)
        file.seek(0)
        file.write(head)
    return True


def _check_superblock(path: Path, head: bytes) -> None:
    if len(head) < _SUPERBLOCK.size + 4 or head[:8] != _SIGNATURE:
        raise StoreError(f"{path.name}: not an HDF5 file")
    if head[8] != 3 or head[9] != 8:
        raise StoreError(
            f"{path.name}: superblock version {head[8]}, {head[9]}-byte addresses; expected "
            "version 3, 8 bytes: this program did not write it"
        )
    said = struct.unpack_from("<I", head, _SUPERBLOCK.size)[0]
    found = lookup3(head[: _SUPERBLOCK.size])
    if said != found:
        raise StoreError(f"{path.name}: superblock checksum {said:#x}, expected {found:#x}")


def row_counts(file: h5py.File) -> dict[str, int]:
    """Return the number of rows of every dataset that has one row a frame, by its path."""
    entry = file["entry"]
    return {
        f"/entry/{group}/{name}": entry[group][name].shape[0]
        for group in ("data", "result", "hitfinder")
        for name in entry[group]
    }


def align_rows(path: Path) -> int:
    """Cut a dead writer's hit file to its whole rows; return how many it keeps.

    A row is whole when every dataset has it and its frame number was written.
    """
    with h5py.File(path, "r") as file:
        counts = row_counts(file)
        n_rows = min(counts.values())
        unwritten = np.flatnonzero(file["entry/hitfinder/frame"][:n_rows] < 0)
    if len(unwritten):
        n_rows = int(unwritten[0])
    _cut(path, [name for name, n in counts.items() if n != n_rows], n_rows)
    return n_rows


def align_ledger(path: Path) -> int:
    """Cut a dead writer's ledger to the rows that were written; return how many it keeps."""
    with h5py.File(path, "r") as file:
        outcomes = file["ledger"].fields("outcome")[:]
    unwritten = np.flatnonzero(outcomes == b"")
    n_rows = int(unwritten[0]) if len(unwritten) else len(outcomes)
    _cut(path, ["/ledger"] if len(unwritten) else [], n_rows)
    return n_rows


def _cut(path: Path, datasets: list[str], n_rows: int) -> None:
    if datasets:
        with h5py.File(path, "r+", libver=LIBVER) as file:
            for name in datasets:
                file[name].resize(n_rows, axis=0)


def recover_files(folder: Path) -> list[str]:
    """Make every file in a dead writer's folder readable; return what was done, a line each.

    The caller holds the folder's `WriterLock`.

    Raises:
        StoreError: a file is damaged beyond its flags.
    """
    done = []
    for part in sorted(folder.glob("*.part")):
        part.unlink()
        done.append(f"{part.name}: removed, it was never finished")
    for path in sorted(folder.glob("*.h5")):
        if path.name == "master.h5" or not clear_flags(path):
            continue
        n_rows = align_ledger(path) if path.name == "ledger.h5" else align_rows(path)
        done.append(f"{path.name}: cleared its killed writer's flag, {n_rows} whole rows")
    return done
