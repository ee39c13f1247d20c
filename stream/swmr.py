"""Files that grow while others read them: HDF5 in single-writer, multiple-reader mode.

One rule: under its final name a file is always one that readers can open. It is built as
`NAME.part`, switched to SWMR and only then renamed, so a kill leaves either nothing or a file
whose rows up to the last flush can be read (HDF5 user guide, "SWMR"; superblock version 3).
Appends go through h5py's low-level ids: one shared selection for all datasets of equal shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5s, h5t
from numpy.typing import NDArray

# The oldest format that SWMR allows; HDF5 1.10 and everything newer reads it.
LIBVER = ("v110", "v110")


def create_growing(path: Path, build: Callable[[h5py.File], None]) -> h5py.File:
    """Return a new file in SWMR mode, standing complete under `path`.

    Args:
        path: final name; must not exist.
        build: makes every group, dataset and attribute: none can be added once SWMR is on.
    """
    part = path.with_name(path.name + ".part")
    file = h5py.File(part, "w", libver=LIBVER)
    build(file)
    file.swmr_mode = True
    file.flush()
    part.rename(path)
    return file


def reopen_growing(path: Path) -> h5py.File:
    """Return an intact file of `create_growing`, open for appending in SWMR mode."""
    file = h5py.File(path, "r+", libver=LIBVER)
    file.swmr_mode = True
    return file


class Columns:
    """Datasets of one shape (N, ...) that grow together along the first axis."""

    def __init__(self, datasets: Sequence[h5py.Dataset]) -> None:
        shape = datasets[0].shape
        self.n_rows: int = shape[0]
        self._tail: tuple[int, ...] = shape[1:]
        self._targets = [(d.id, h5t.py_create(d.dtype)) for d in datasets]
        # Reused: making and dropping HDF5 objects costs more than a short write.
        self._memory, self._place = h5s.create_simple((0,)), h5s.create_simple(shape)

    def write(self, first: int, arrays: Sequence[NDArray[Any]]) -> None:
        """Write rows from row `first` on, which is the end: what lies behind it is cut off.

        Args:
            first: row of the first; below the present end only after a write that failed.
            arrays: one per dataset, all of one shape (k, ...) no wider than the datasets, with
                the datasets' dtypes; what is right of a narrower array keeps the fill value.
        """
        shape = arrays[0].shape
        grown = (first + shape[0], *self._tail)
        memory, place = self._memory, self._place
        memory.set_extent_simple(shape)
        place.set_extent_simple(grown)
        if 0 not in shape:
            place.select_hyperslab((first, *(0 for _ in self._tail)), shape)
        for (dataset, dtype), array in zip(self._targets, arrays, strict=True):
            dataset.set_extent(grown)
            if 0 not in shape:
                dataset.write(memory, place, np.ascontiguousarray(array), dtype)
        self.n_rows = grown[0]


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Write `path` as a whole: under a temporary name in the same folder, then renamed.

    Where `write` fails nothing stays behind.
    """
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def plain_text(value: str) -> str:
    """Return text as HDF5 can hold it: no NUL, no half of a surrogate pair."""
    return value.replace("\0", " ").encode("utf-8", "replace").decode()
