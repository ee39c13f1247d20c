"""A few frames of the running series, decoded once more for eyes: the latest hits, and sums.

One rule: it may take a bounded share of one core and nothing else. The supervisor copies the
received bytes of a frame before it frees the slot, a hit and a miss a second at most and fewer
where decoding them costs more; a thread decodes and adds them up. Only frames that a worker has
decoded and judged are taken. What a browser asks for is decoded from the kept bytes when it asks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Full, Queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.image import mask_of
from hitfinder.models.learned import pixels_of
from hitfinder.stream import bslz4
from hitfinder.stream.bslz4 import Pixels
from hitfinder.stream.controls import named_mask
from hitfinder.stream.errors import WireError
from hitfinder.stream.intake import header_path
from hitfinder.stream.learned import all_learned
from hitfinder.stream.messages import Blob, unpack_start
from hitfinder.stream.pooling import pool4, pooled_shape
from hitfinder.stream.reduction import Reduction
from hitfinder.stream.results import Outcome, Record
from hitfinder.workers.geometry import OperatorGeometry, SeriesGeometry
from hitfinder.workers.powder import Powder, SeriesPixels, rings_of

log = logging.getLogger(__name__)

SAMPLED = (Outcome.HIT, Outcome.MISS)
# Of each kind, at most one a second, and not more than this share of one core for both.
PERIOD_S, CORE_SHARE = 1.0, 0.02
# Frames whose bytes are kept for a closer look, and the most bytes of each kind.
KEPT = {Outcome.HIT: 12, Outcome.MISS: 4}
KEPT_BYTES = 32 << 20
# Frames whose brightest pixels are remembered: half a minute of both kinds.
BRIGHTEST = 60
# Counts beyond this are shown as this; a pixel that does not count is shown as one more.
MOST_COUNTS, NO_COUNTS = 65534, 65535
STOP_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class SampledFrame:
    """A frame that can be looked at.

    Attributes:
        number: counts the sampled frames of this daemon, from 1.
        record: as published.
        blob: its first channel; owns its bytes.
        pixels: which count.
    """

    number: int
    record: Record
    blob: Blob
    pixels: SeriesPixels


class SampledSeries:
    """The series that frames are sampled from now.

    Args:
        key: its key in the ring.
        series: its number.
        first: its first frame's image.
        mask: names the operator's mask, as `Record.mask`.

    Raises:
        WireError: the frame does not decode.
        OSError: its header is gone, the series is over.
    """

    def __init__(
        self,
        runtime: Path,
        operator: OperatorGeometry,
        key: int,
        series: int,
        first: Blob,
        mask: str | None,
    ) -> None:
        start = unpack_start(header_path(runtime, key).read_bytes())
        self.key, self.series, self.shape, self.mask_name = key, series, first.shape, mask
        mask_file = None if mask is None else named_mask(runtime, mask)
        image = bslz4.decode(first)
        self.geometry: SeriesGeometry = operator.of_series(start, image, mask_file)
        self.pixels = SeriesPixels(self.geometry.valid)
        self.mask = mask_of(self.pixels.valid)
        self.rings = rings_of(self.shape, self.geometry.geometry.beam_center_px)
        self.powder = {outcome: Powder(self.pixels) for outcome in SAMPLED}
        self._runtime = runtime
        self._n_learned: dict[int | None, int | None] = {}

    def learn(self, record: Record) -> None:
        """Leave out the pixels that this frame's worker has found to be bad."""
        if self._n_learned.get(record.learned_by) == record.n_learned:
            return
        self._n_learned[record.learned_by] = record.n_learned
        valid = self.geometry.valid.copy()
        for learned in all_learned(self._runtime, self.key):
            if learned.shape == valid.shape:
                valid.reshape(-1)[pixels_of(learned.entries, learned.shape)] = False
        if not np.array_equal(valid, self.pixels.valid):
            self.pixels, self.mask = SeriesPixels(valid), mask_of(valid)
            for powder in self.powder.values():
                powder.know(self.pixels)


class FrameSamples:
    """Takes frames from the publisher, keeps the latest, adds them up in its own thread.

    Args:
        runtime: folder of what the processes share.
        operator: the operator's geometry.

    Attributes:
        series: what the frames are of; None before the first.
    """

    def __init__(self, runtime: Path, operator: OperatorGeometry) -> None:
        self.series: SampledSeries | None = None
        self._runtime, self._operator = runtime, operator
        self._queue: Queue[tuple[int, Record, Blob] | None] = Queue(maxsize=2)
        self._kept = {outcome: deque[SampledFrame]() for outcome in SAMPLED}
        self._brightest: deque[tuple[str, int, int]] = deque(maxlen=BRIGHTEST)
        self._not_before_s = dict.fromkeys(SAMPLED, 0.0)
        self._n_kept = 0
        self._reduction: Reduction | None = None
        self._looking = threading.Lock()
        self._looked_at: tuple[int, Pixels] | None = None
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        try:
            self._queue.put(None, timeout=STOP_S)
        except Full:
            log.warning("sampled frames are still being decoded; left")
        self._thread.join(STOP_S)

    # The publisher's side ---------------------------------------------------------------

    def wants(self, outcome: Outcome) -> bool:
        """Say whether a frame of this outcome is due."""
        due_s = self._not_before_s.get(outcome)
        return due_s is not None and time.monotonic() >= due_s and not self._queue.full()

    def take(self, key: int, record: Record, blob: Blob) -> None:
        """Copy a frame; its slot may then be freed."""
        self._not_before_s[record.outcome] = time.monotonic() + PERIOD_S
        own = replace(blob, payload=memoryview(bytes(blob.payload)))
        try:
            self._queue.put_nowait((key, record, own))
        except Full:  # the next one will do
            pass

    # The thread's side ------------------------------------------------------------------

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None:
            key, record, blob = taken
            try:
                # What a new series takes, some 50 ms, is not held against its frames.
                series = self._series_of(key, record, blob)
                began_s = time.thread_time()
                self._add(series, record, blob)
            except (WireError, OSError) as error:
                log.info("frame %d is not shown: %s", record.frame, error)
                continue
            pause_s = len(SAMPLED) * (time.thread_time() - began_s) / CORE_SHARE
            due_s = time.monotonic() + pause_s
            self._not_before_s[record.outcome] = max(self._not_before_s[record.outcome], due_s)

    def _series_of(self, key: int, record: Record, blob: Blob) -> SampledSeries:
        series = self.series
        if series is not None:
            if (series.key, series.shape, series.mask_name) == (key, blob.shape, record.mask):
                return series
        return SampledSeries(self._runtime, self._operator, key, record.series, blob, record.mask)

    def _add(self, series: SampledSeries, record: Record, blob: Blob) -> None:
        series.learn(record)
        reduced = self._reduction
        if reduced is None or reduced.dtype != blob.dtype or series is not self.series:
            reduced = self._reduction = Reduction(blob.shape, blob.dtype)
        reduced.take(blob, series.mask)
        series.powder[record.outcome].add(reduced.sums)
        brightest = int(reduced.maxima.max(initial=0))
        self._brightest.append((blob.dtype, reduced.n_saturated, brightest))
        self.series = series
        self._n_kept += 1
        self._keep(SampledFrame(self._n_kept, record, blob, series.pixels))

    def _keep(self, frame: SampledFrame) -> None:
        mine, most = self._kept[frame.record.outcome], KEPT[frame.record.outcome]
        mine.append(frame)
        while len(mine) > 1 and (
            len(mine) > most or sum(len(f.blob.payload) for f in mine) > KEPT_BYTES
        ):
            mine.popleft()

    # The page's side --------------------------------------------------------------------

    def latest(self, outcome: Outcome) -> list[SampledFrame]:
        """Return the frames that can be looked at, newest first."""
        return list(self._kept[outcome])[::-1]

    def frame(self, number: int) -> SampledFrame | None:
        """Return a kept frame, None if it is kept no longer."""
        kept = (frame for outcome in SAMPLED for frame in self.latest(outcome))
        return next((frame for frame in kept if frame.number == number), None)

    def pooled(self, frame: SampledFrame) -> NDArray[np.uint16]:
        """Return a frame's 4 x 4 sums, `pooled_shape`; `NO_COUNTS` where no pixel counts."""
        sums, maxima = (np.empty(pooled_shape(frame.blob.shape), np.uint32) for _ in range(2))
        pool4(self._image(frame), frame.pixels.valid.view(np.uint8), sums, maxima)
        return _shown(sums, frame.pixels.n_valid == 0)

    def crop(self, frame: SampledFrame, ss: int, fs: int, side_px: int) -> NDArray[np.uint16]:
        """Return the counts of a square at full resolution, cut at the detector's edge.

        Args:
            ss, fs: its first pixel, 0 or more.
        """
        part = slice(ss, ss + side_px), slice(fs, fs + side_px)
        return _shown(self._image(frame)[part], ~frame.pixels.valid[part])

    def brightest(self) -> dict[str, Any]:
        """Return what the latest sampled frames say of full counters."""
        found = list(self._brightest)
        dtype = found[-1][0] if found else None
        alike = [(n, most) for kind, n, most in found if kind == dtype]
        return {
            "dtype": dtype,
            "n_frames": len(alike),
            "n_saturated_frames": sum(n > 0 for n, _ in alike),
            "most_counts": max((most for _, most in alike), default=None),
            "most_counts_median": int(np.median([m for _, m in alike])) if alike else None,
        }

    def _image(self, frame: SampledFrame) -> Pixels:
        """Decode a kept frame; one at a time, and the latest is kept decoded."""
        with self._looking:
            if self._looked_at is None or self._looked_at[0] != frame.number:
                self._looked_at = frame.number, bslz4.decode(frame.blob)
            return self._looked_at[1]


def _shown(counts: NDArray[Any], unknown: NDArray[np.bool_]) -> NDArray[np.uint16]:
    shown: NDArray[np.uint16] = np.minimum(counts, MOST_COUNTS).astype("<u2")
    shown[unknown] = NO_COUNTS
    return shown
