"""What the operator changed while the daemon runs, and from which frame on.

One rule: a change holds for frames by their number, not by when they are judged. It begins at a
frame that the ring cannot hold yet, so of a series all frames before it have the old value and
all others the new one, whichever worker judges them and whenever it dies. Later series keep it.

The table stands in shared memory: one process writes, a row first and then their count.
"""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

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
    """

    key: int
    frame: int
    series: int | None
    threshold: float | None
    miss_sample_fraction: float | None


class Controls:
    """The changes, in whichever process."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._n_read, self._changes = 0, list[Change]()
        self._putting = threading.Lock()

    def put(
        self, *, threshold: float | None = None, miss_sample_fraction: float | None = None
    ) -> Change:
        """Change what is given, from the next frame on that is surely not here yet.

        Raises:
            ValueError: as many changes as are kept were made already.
        """
        with self._putting:
            n = int(self._ring.changes_made[0])
            if n >= MAX_CHANGES:
                raise ValueError(f"{n} changes were made; restart with a configuration")
            before = self.all()[-1] if self.all() else Change(0, 0, None, None, None)
            begin = self._begin()
            if begin[:2] < before[:2]:  # a change that was put off is not overtaken
                begin = before[:3]
            if threshold is None:
                threshold = before.threshold
            if miss_sample_fraction is None:
                miss_sample_fraction = before.miss_sample_fraction
            change = Change(*begin, threshold, miss_sample_fraction)
            row = self._ring.changes[n]
            row["key"], row["frame"] = change.key, change.frame
            row["series"] = -1 if change.series is None else change.series
            row["threshold"] = math.nan if threshold is None else threshold
            row["miss_sample_fraction"] = (
                math.nan if miss_sample_fraction is None else miss_sample_fraction
            )
            at = self._ring.layout.offsets["changes_made"]
            _kernels.store_u32(self._ring.memory, at, n + 1)
            return change

    def all(self) -> list[Change]:
        """Return the changes in the order in which they were made."""
        n = int(self._ring.changes_made[0])
        if n != self._n_read:
            self._changes = [_read(row) for row in self._ring.changes[:n].tolist()]
            self._n_read = n
        return self._changes

    def at(self, key: int, frame: int) -> Change | None:
        """Return what holds for a frame, None if all is as configured."""
        for change in reversed(self.all()):
            if change[:2] <= (key, frame):
                return change
        return None

    def _begin(self) -> tuple[int, int, int | None]:
        """Return key, frame and number of the series from where a change made now can hold."""
        series = SeriesTable(self._ring)
        takes = [e for e in series.open_entries() if not series.entries["ended"][e]]
        if not takes:
            return int(self._ring.control["next_key"][0]) + 1, 0, None
        newest = series.entries[takes[-1]]
        frame = int(newest["max_frame"]) + 1 + self._ring.layout.n_slots
        return int(newest["key"]), frame, int(newest["series"])


def _read(row: tuple[int, int, int, float, float]) -> Change:
    key, series, frame, *values = row
    threshold, fraction = (None if math.isnan(v) else v for v in values)
    return Change(key, frame, None if series < 0 else series, threshold, fraction)
