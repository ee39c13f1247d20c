"""What the operator changed while the daemon runs, and from which frame on.

One rule: a change holds for frames by their number, not by when they are judged. It begins at a
frame that the ring cannot hold yet, so of a series all frames before it have the old value and
all others the new one, whichever worker judges them and whenever it dies. Later series keep it.

The table stands in shared memory: one process writes, a row first and then their count.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any, NamedTuple

from hitfinder.stream import _kernels
from hitfinder.stream.ring import MAX_CHANGES, Ring
from hitfinder.stream.series import SeriesTable


class Change(NamedTuple):
    """One change, with all that holds from it on.

    Attributes:
        key: of the series in the ring; holds for it and for those with a larger one.
        frame: first frame of that series.
        series: its number; None if it is still to come.
        threshold: of p_hit; None as configured.
        miss_sample_fraction: part of the misses whose images are kept; None as configured.
        model: sha256 of the weights; None as configured.
        mask: sha256 of the operator's mask; None as configured.
        n_masks: times that the mask was changed.
    """

    key: int
    frame: int
    series: int | None
    threshold: float | None
    miss_sample_fraction: float | None
    model: str | None
    mask: str | None
    n_masks: int

    def values(self) -> dict[str, Any]:
        """Return what holds, and the frame that it begins with, as files tell it."""
        digests = {n: d and d[:DIGITS] for n, d in (("model", self.model), ("mask", self.mask))}
        return {
            "frame": self.frame,
            "threshold": self.threshold,
            "miss_sample_fraction": self.miss_sample_fraction,
            **digests,
        }


# Of a sha256, as records name a model or mask.
DIGITS = 12
AS_CONFIGURED = Change(0, 0, None, None, None, None, None, 0)


class Replacement(NamedTuple):
    """Another model or mask, by its sha256; None is the configured one."""

    sha256: str | None


def model_path(runtime: Path, sha256: str) -> Path:
    """Return where the daemon keeps weights that an operator has put in force."""
    return runtime / f"model_{sha256}.safetensors"


def mask_path(runtime: Path, sha256: str) -> Path:
    """Return where the daemon keeps a mask that an operator has put in force."""
    return runtime / f"mask_{sha256}.npy"


def named_mask(runtime: Path, name: str) -> Path | None:
    """Return the file of a mask as a record names it; None of one that nobody put in force."""
    return next(iter(runtime.glob(mask_path(runtime, f"{name}*").name)), None)


class Controls:
    """The changes, in whichever process."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._n_read, self._changes = 0, list[Change]()
        self._putting = threading.Lock()

    def put(
        self,
        *,
        threshold: float | None = None,
        miss_sample_fraction: float | None = None,
        model: Replacement | None = None,
        mask: Replacement | None = None,
    ) -> Change:
        """Change what is given, from the next frame on that is surely not here yet.

        Raises:
            ValueError: as many changes as are kept were made already.
        """
        with self._putting:
            n = int(self._ring.changes_made[0])
            if n >= MAX_CHANGES:
                raise ValueError(f"{n} changes were made; restart with a configuration")
            before = self.latest()
            begin = self._begin()
            if begin[:2] < before[:2]:  # a change that was put off is not overtaken
                begin = before[:3]
            change = Change(
                *begin,
                before.threshold if threshold is None else threshold,
                before.miss_sample_fraction
                if miss_sample_fraction is None
                else miss_sample_fraction,
                before.model if model is None else model.sha256,
                before.mask if mask is None else mask.sha256,
                before.n_masks + (mask is not None),
            )
            self._ring.changes[n] = _row(change)
            at = self._ring.layout.offsets["changes_made"]
            _kernels.store_u32(self._ring.memory, at, n + 1)
            return change

    def latest(self) -> Change:
        """Return the latest change, which holds all that differs from the configuration."""
        return self.all()[-1] if self.all() else AS_CONFIGURED

    def all(self) -> list[Change]:
        """Return the changes in the order in which they were made."""
        n = int(self._ring.changes_made[0])
        if n != self._n_read:
            self._changes = [_read(row) for row in self._ring.changes[:n].tolist()]
            self._n_read = n
        return self._changes

    def at(self, key: int, frame: int) -> Change:
        """Return what holds for a frame: the latest change that has begun."""
        for change in reversed(self.all()):
            if change[:2] <= (key, frame):
                return change
        return AS_CONFIGURED

    def _begin(self) -> tuple[int, int, int | None]:
        """Return key, frame and number of the series from where a change made now can hold."""
        series = SeriesTable(self._ring)
        takes = [e for e in series.open_entries() if not series.entries["ended"][e]]
        if not takes:
            return int(self._ring.control["next_key"][0]) + 1, 0, None
        newest = series.entries[takes[-1]]
        frame = int(newest["max_frame"]) + 1 + self._ring.layout.n_slots
        return int(newest["key"]), frame, int(newest["series"])


def _row(change: Change) -> tuple[int | float | bytes, ...]:
    """Return a change as `CHANGE` has it."""
    numbers = change.threshold, change.miss_sample_fraction
    return (
        change.key,
        -1 if change.series is None else change.series,
        change.frame,
        *(math.nan if number is None else number for number in numbers),
        *((digest or "").encode() for digest in (change.model, change.mask)),
        change.n_masks,
    )


def _read(row: tuple[int, int, int, float, float, bytes, bytes, int]) -> Change:
    key, series, frame, threshold, fraction, model, mask, n_masks = row
    return Change(
        key,
        frame,
        None if series < 0 else series,
        None if math.isnan(threshold) else threshold,
        None if math.isnan(fraction) else fraction,
        model.decode() or None,
        mask.decode() or None,
        n_masks,
    )
