"""A run as a report reads it: all its series, or one series' folder alone.

One rule: a series that cannot be read is named and the others are still read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.check import require_harmless, series_folders
from hitfinder.stream.errors import StoreError
from hitfinder.workers.config import ConfigError
from hitfinder.workers.report_series import FRAME, StoredSeries, read_series
from hitfinder.workers.terminal import progressed


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What was read of a run.

    Attributes:
        path: its folder, resolved.
        series: by time of their first frame.
        frames: dtype `FRAME`, of all series.
        unread: a sentence for each series that could not be read.
    """

    path: Path
    series: Sequence[StoredSeries]
    frames: NDArray[np.void]
    unread: Sequence[str]

    @property
    def name(self) -> str:
        """What the page is called: the run's folder, and the series' if it is one alone."""
        is_series = (self.path / "ledger.h5").exists()
        return f"{self.path.parent.name}/{self.path.name}" if is_series else self.path.name


def read_run(path: Path) -> Run:
    """Read a run's folder, or one series'.

    Raises:
        ConfigError: no such folder, or no series in it.
    """
    if not path.is_dir():
        raise ConfigError(f"run {path}: no such folder; give what `run` was given as --out")
    path = path.resolve()
    folders = series_folders(path)
    if not folders:
        raise ConfigError(f"run {path}: no series in it; expected series_*/ledger.h5")
    series: list[StoredSeries] = []
    unread = []
    for folder in progressed(folders, "series"):
        try:
            require_harmless(folder)
            series.append(read_series(folder, len(series)))
        except StoreError as error:
            unread.append(str(error))
    frames = np.concatenate([np.zeros(0, FRAME), *(one.frames for one in series)])
    return Run(path, series, frames, unread)
