"""Recorded runs as the messages a detector would have sent: what `replay` reads.

One rule: a recording takes the same path as the wire, so it yields the wire's message types, and
what is wrong with one frame is handed on in its place, never raised. Kinds: DECTRIS/NXmx
masters and our own runs, stacks (CXI or any HDF5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path

from hitfinder.stream.recording_files import series_in_file
from hitfinder.stream.recording_series import RecordedSeries, Replayed


class Kind(StrEnum):
    """What a recording is stored as."""

    HDF5 = "hdf5"


@dataclass(frozen=True, slots=True)
class Recording:
    """One path that can be replayed.

    Attributes:
        kind: what it is stored as.
        path: the file or folder.
        n_frames: frames it announces, for a progress bar; None if only playing it can tell.
        truth: (series, frame) -> holds a crystal's pattern, where the recording knows it.
        warnings: what is odd about it, one sentence each.
        play: yields its messages, from the start each time.
    """

    kind: Kind
    path: Path
    n_frames: int | None
    truth: Mapping[tuple[int, int], bool]
    warnings: tuple[str, ...]
    play: Callable[[], Iterator[Replayed]]

    def messages(self) -> Iterator[Replayed]:
        """Yield its messages in the wire's order; a bad one as the `WireError` it is."""
        return self.play()


def open_recordings(paths: Sequence[Path]) -> tuple[Recording, ...]:
    """Open recordings to be replayed one after the other.

    Series keep the id that their file states; the others get 1, 2, 3... in order, and so does a
    second series of the same id.

    Raises:
        StoreError: a path is missing or cannot be read.
        WireError: a file holds no frames of a detector.
    """
    ids = _SeriesIds()
    return tuple(_recording(Kind.HDF5, path, series_in_file(path), ids) for path in paths)


def open_recording(path: Path) -> Recording:
    """Open one recording; see `open_recordings`."""
    return open_recordings([path])[0]


class _SeriesIds:
    """Deals series ids, each once."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self, stated: int | None) -> int:
        series = stated if stated is not None and stated not in self._taken else None
        if series is None:
            series = next(n for n in count(1) if n not in self._taken)
        self._taken.add(series)
        return series


def _recording(
    kind: Kind, path: Path, found: Sequence[RecordedSeries], ids: _SeriesIds
) -> Recording:
    numbered = tuple(s.numbered(ids.take(s.series)) for s in found)
    return Recording(
        kind=kind,
        path=path,
        n_frames=sum(s.n_frames for s in numbered),
        truth={(s.series or 0, f): hit for s in numbered for f, hit in s.truth.items()},
        warnings=tuple(w for s in numbered for w in s.warnings),
        play=lambda: (message for s in numbered for message in s.messages()),
    )
