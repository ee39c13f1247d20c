"""Opens recorded series in the ring, as far as they are not done.

One rule: what is done is read from what stands already: in the ring, where this replay has begun
the series, else in the series' folder. The folder's name is written last and makes it valid.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.intake import Intake, header_path
from hitfinder.stream.learned import all_learned, save_learned
from hitfinder.stream.messages import SeriesStart, unpack_start
from hitfinder.stream.recording_series import RecordedSeries
from hitfinder.stream.results import OUTCOMES
from hitfinder.stream.ring import MAX_SERIES, Seen
from hitfinder.workers.cluster_replay_resume import Earlier, begin_folder, earlier
from hitfinder.workers.cluster_replay_series import PlayedSeries

log = logging.getLogger(__name__)


class Opener:
    """Opens series for one replay.

    Args:
        intake: of the ring.
        out: where the series' folders are.
    """

    def __init__(self, intake: Intake, out: Path) -> None:
        self._intake, self._out = intake, out
        self._ring, self._table = intake.ring, intake.series

    @property
    def has_room(self) -> bool:
        """Say whether another series can be opened now."""
        return len(self._table.open_entries()) < MAX_SERIES

    def open(
        self, recorded: RecordedSeries, n_lanes: int, portion_frames: int
    ) -> PlayedSeries | None:
        """Open a series; None if nothing of it is to be done, or it cannot be: then counted.

        Args:
            n_lanes: actors that it is dealt to.
            portion_frames: frames dealt together, at most.
        """
        entry = self._begun(recorded)
        if entry is not None and self._ring.series["folder"][entry]:
            header = header_path(self._intake.runtime, self._key(entry))
            start = unpack_start(header.read_bytes())
        else:
            try:
                before = earlier(self._out, recorded)
                if before is not None and before.is_finished:
                    log.info("series %s is done: %s", recorded.series, before.folder)
                    self._less_to_do(recorded.n_frames)
                    return None
                start = recorded.start()
            except (StoreError, WireError) as error:
                self._intake.malformed(WireError(f"series {recorded.series} left out: {error}"))
                self._less_to_do(recorded.n_frames)
                return None
            entry = self._begin(entry, recorded, start, before)
        series = PlayedSeries(self._ring, recorded, start, entry, n_lanes, portion_frames)
        for one in all_learned(self._intake.runtime, series.key):
            if one.worker < n_lanes:
                series.lanes[one.worker].learned[one.shape] = one
        return series

    def _begun(self, recorded: RecordedSeries) -> int | None:
        """Return the entry of a series that this replay has open."""
        numbers = self._ring.series["series"]
        mine = [e for e in self._table.open_entries() if numbers[e] == recorded.series]
        return mine[0] if mine else None

    def _begin(
        self,
        entry: int | None,
        recorded: RecordedSeries,
        start: SeriesStart,
        before: Earlier | None,
    ) -> int:
        """Open a series, or finish what a killed predecessor began of opening it."""
        if entry is None:
            entry = self._intake.begin(start)
            if entry is None:
                raise AssertionError("a series was opened without room for it")
        series, key = self._ring.series, self._key(entry)
        if before is None:
            folder = begin_folder(self._out, start, recorded)
        else:
            folder = before.folder
            self._table.forget(entry)
            for frame in before.frames.tolist():
                self._table.mark(entry, frame, Seen.RECEIVED)
            for outcome, n in Counter(before.outcomes).items():
                series["counts"][entry, OUTCOMES.index(outcome)] = n
            for one in before.learned:
                save_learned(self._intake.runtime, key, replace(one))
            log.info(
                "series %d goes on at %d frames: %s", start.series, len(before.frames), folder
            )
            self._less_to_do(len(before.frames))
        series["folder"][entry] = folder.name.encode()
        return entry

    def _less_to_do(self, n_frames: int) -> None:
        self._ring.control["source_total"] -= n_frames

    def _key(self, entry: int) -> int:
        return int(self._ring.series["key"][entry])
