"""What a worker's frames have taught it, kept beyond a series and beyond its own death.

One rule: a list stands in the runtime folder before a verdict that rests on it leaves the worker.
Live, the next series on the same detector starts from the hot pixels of the last. A recorded
series is judged from its own frames alone: its verdicts do not depend on what else is replayed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.learned import Entries, hot_before, no_entries
from hitfinder.stream.learned import (
    LearnedList,
    save_entries,
    save_learned,
    saved_entries,
    saved_learned,
)


class Knowledge:
    """The lists of one worker.

    Args:
        runtime: folder that the daemon's processes share.
        worker: number of this worker.
        is_live: series follow one another on a detector.
    """

    def __init__(self, runtime: Path, worker: int, *, is_live: bool) -> None:
        self._runtime, self._worker, self._is_live = runtime, worker, is_live

    def of_series(self, key: int, valid: NDArray[np.bool_]) -> Entries:
        """Return what is known when a worker begins, or takes over, a series.

        Args:
            key: of the series.
            valid: bool (ss, fs), its stated mask: a detector is known by it.
        """
        begun = saved_learned(self._runtime, key, self._worker, (valid.shape[0], valid.shape[1]))
        if begun is not None:
            return begun
        before = saved_entries(self._of_detector(valid)) if self._is_live else None
        return no_entries() if before is None else hot_before(before)

    def keep(self, key: int, valid: NDArray[np.bool_], entries: Entries) -> None:
        """Keep what a series has taught so far."""
        shape = (valid.shape[0], valid.shape[1])
        save_learned(self._runtime, key, LearnedList(self._worker, shape, entries))
        if self._is_live:
            save_entries(self._of_detector(valid), entries)

    def _of_detector(self, valid: NDArray[np.bool_]) -> Path:
        digest = hashlib.sha256(np.packbits(valid).tobytes())
        digest.update(repr(valid.shape).encode())
        return self._runtime / f"detector_{digest.hexdigest()[:16]}_{self._worker}.npy"
