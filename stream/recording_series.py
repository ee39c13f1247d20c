"""A recorded series: where its frames stand on disk, and its messages in the wire's order.

One rule: a frame that cannot be read is an error of that frame, handed on in its place; the
replay goes on. One frame is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import h5py

from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.messages import Frame, FrameHeader, Message, SeriesEnd, SeriesStart
from hitfinder.stream.recording_chunks import HDF5_ERRORS, ChunkReader, channels_beside
from hitfinder.stream.recovery import is_growing

Replayed = Message | WireError


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive frames of a series that stand in one data set.

    Attributes:
        path: the file.
        dataset: name of the data set in it, shape (N, ss, fs) or (ss, fs).
        first_frame: frame number of the first row.
        rows: rows of the data set, in frame order; (0,) where it is one image.
    """

    path: Path
    dataset: str
    first_frame: int
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class RecordedSeries:
    """One series of a recording.

    Attributes:
        series: id, None until `numbered`.
        n_frames: announced frames; more than the spans hold where files are missing.
        spans: where the frames stand.
        read_start: reads the header; only called when the series is played, as masks are large.
        truth: frame -> holds a crystal's pattern, where the recording knows it (simulations).
        warnings: what is odd about the recording, one sentence each.
    """

    series: int | None
    n_frames: int
    spans: tuple[Span, ...]
    read_start: Callable[[], SeriesStart]
    truth: Mapping[int, bool] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def numbered(self, series: int) -> RecordedSeries:
        """Return the same series under an id."""
        return replace(self, series=series)

    def start(self) -> SeriesStart:
        """Return the header under this series' id, with the recording's warnings."""
        start = self.read_start()
        warnings = (*self.warnings, *start.warnings)
        series = self.series or 0
        return replace(start, series=series, n_frames=self.n_frames, warnings=warnings)

    def messages(self) -> Iterator[Replayed]:
        """Yield the header, every frame that is there, and the end."""
        start = self.start()
        yield start
        yield from frames_of(self.spans, start)
        yield SeriesEnd(start.series, start.series_uid)


def dealt(
    spans: Sequence[Span], n_frames: int, is_wanted: Callable[[int], bool]
) -> Iterator[tuple[Span, ...]]:
    """Yield the wanted frames of a series in order, so many at a time, as spans of their own."""
    places = (
        (frame, (span.path, span.dataset, row))
        for span in spans
        for frame, row in enumerate(span.rows, span.first_frame)
        if is_wanted(frame)
    )
    while portion := dict(islice(places, n_frames)):
        yield spans_of(portion)


def spans_of(places: Mapping[int, tuple[Path, str, int]]) -> tuple[Span, ...]:
    """Return spans for frames that stand anywhere.

    Args:
        places: frame -> (file, data set, row).
    """
    spans: list[Span] = []
    rows: list[int] = []
    for frame, (path, dataset, row) in sorted(places.items()):
        last = spans[-1] if spans else None
        if (
            last is None
            or (last.path, last.dataset) != (path, dataset)
            or frame != last.first_frame + len(rows)
        ):
            rows = []
            spans.append(Span(path, dataset, frame, rows))
        rows.append(row)
    return tuple(spans)


def open_h5(path: Path) -> h5py.File:
    """Open a recording; a file that a killed writer left flagged opens in SWMR mode.

    Raises:
        StoreError: it is not there, or HDF5 cannot read it.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such file; check the path")
    try:
        if is_growing(path):
            return h5py.File(path, "r", libver="latest", swmr=True)
        return h5py.File(path, "r")
    except HDF5_ERRORS as error:
        raise StoreError(
            f"{path}: HDF5 cannot open it ({error}); expected a complete HDF5 file"
        ) from error


def frames_of(spans: Sequence[Span], start: SeriesStart) -> Iterator[Frame | WireError]:
    """Yield the frames that stand in spans, under the header's series id."""
    for span in spans:
        yield from _frames(span, start)


def _frames(span: Span, start: SeriesStart) -> Iterator[Frame | WireError]:
    try:
        file = open_h5(span.path)
    except StoreError as error:
        yield from _unreadable(span, start, str(error))
        return
    with file:
        try:
            channels = channels_beside(file[span.dataset])
            readers = [ChunkReader(images, name) for name, images in channels.items()]
        except (*HDF5_ERRORS, WireError) as error:
            yield from _unreadable(span, start, f"{span.path}:{span.dataset}: {error}")
            return
        for frame, row in enumerate(span.rows, span.first_frame):
            yield _frame(readers, row, FrameHeader(start.series, frame, start.series_uid))


def _unreadable(span: Span, start: SeriesStart, text: str) -> Iterator[WireError]:
    for frame in range(span.first_frame, span.first_frame + len(span.rows)):
        yield WireError(text, start.series, frame)


def _frame(readers: Sequence[ChunkReader], row: int, header: FrameHeader) -> Frame | WireError:
    try:
        return Frame(header, tuple(reader.blob(row) for reader in readers))
    except WireError as error:
        return WireError(str(error), header.series, header.frame)
