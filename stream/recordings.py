"""Recorded runs as the messages a detector would have sent: what `replay` reads.

One rule: a recording takes the same path as the wire, so it yields the wire's message types, and
what is wrong with one frame is handed on in its place, never raised. Kinds: DECTRIS/NXmx
masters and our own runs, stacks (CXI or any HDF5), images one a file, CrystFEL lists, captures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count, groupby
from pathlib import Path

import h5py

from hitfinder.stream.capture import MAGIC, read_capture
from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.recording_files import series_in_file
from hitfinder.stream.recording_images import (
    HDF5_SUFFIXES,
    is_single_image,
    joined,
    recorded_files,
)
from hitfinder.stream.recording_lists import series_in_list
from hitfinder.stream.recording_series import RecordedSeries, Replayed
from hitfinder.stream.wire import Protocol, WireDecoder


class Kind(StrEnum):
    """What a recording is stored as."""

    HDF5 = "hdf5"  # a master with its data files, or stacks of images
    IMAGES = "images"  # files of one image each
    LIST = "list"  # a CrystFEL list
    CAPTURE = "capture"  # wire messages as they came


@dataclass(frozen=True, slots=True)
class Recording:
    """One path that can be replayed.

    Attributes:
        kind: what it is stored as.
        path: the file or folder.
        series: its series where frames can be read one by one; none of a capture.
        n_frames: frames it announces, for a progress bar; None if only playing it can tell.
        truth: (series, frame) -> holds a crystal's pattern, where the recording knows it.
        warnings: what is odd about it, one sentence each.
        play: yields its messages, from the start each time.
    """

    kind: Kind
    path: Path
    series: tuple[RecordedSeries, ...]
    n_frames: int | None
    truth: Mapping[tuple[int, int], bool]
    warnings: tuple[str, ...]
    play: Callable[[], Iterator[Replayed]]

    def messages(self) -> Iterator[Replayed]:
        """Yield its messages in the wire's order; a bad one as the `WireError` it is."""
        return self.play()


def open_recordings(
    paths: Sequence[Path],
    protocol: Protocol = "auto",
    lenient: bool = False,
    opening: Callable[[Path], None] = lambda _path: None,
) -> tuple[Recording, ...]:
    """Open recordings to be replayed one after the other.

    Series keep the id that their file states; the others get 1, 2, 3... in order, and so does a
    second series of the same id. Captured messages keep their ids.

    Args:
        paths: files, folders or lists; files of one image each are joined to series.
        protocol: of captured messages; see `wire.decode`.
        lenient: of captured messages; see `wire.decode`.
        opening: told each file before it is opened, which HDF5 may never come back from.

    Raises:
        StoreError: a path is missing or cannot be read.
        WireError: a file holds no frames of a detector.
    """
    ids = _SeriesIds()
    parts = _with_images_joined([part for path in paths for part in _parts(path, opening)])
    return tuple(
        _captured(part.path, protocol, lenient)
        if part.kind is Kind.CAPTURE
        else _recording(part, ids)
        for part in parts
    )


def open_recording(path: Path) -> Recording:
    """Open one recording; see `open_recordings`."""
    return open_recordings([path])[0]


@dataclass(frozen=True, slots=True)
class _Part:
    """What one file, list or folder of images turned out to hold."""

    kind: Kind
    path: Path
    series: tuple[RecordedSeries, ...]
    warnings: tuple[str, ...] = ()


def _parts(path: Path, opening: Callable[[Path], None]) -> list[_Part]:
    if path.is_dir():
        return _folder_parts(path, opening)
    if not path.is_file():
        raise StoreError(f"{path}: no such file or folder; check the path")
    opening(path)
    if h5py.is_hdf5(path) or path.suffix.lower() in HDF5_SUFFIXES:
        return [_file_part(path)]
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            return [_Part(Kind.CAPTURE, path, ())]
    return [_Part(Kind.LIST, path, (series_in_list(path),))]


def _file_part(path: Path) -> _Part:
    found = series_in_file(path)
    return _Part(Kind.IMAGES if is_single_image(found) else Kind.HDF5, path, found)


def _folder_parts(folder: Path, opening: Callable[[Path], None]) -> list[_Part]:
    """Return what the files of a folder hold; one that holds no frames becomes a warning."""
    parts: list[_Part] = []
    warnings: list[str] = []
    for path in recorded_files(folder):
        opening(path)
        try:
            parts.append(_file_part(path))
        except (StoreError, WireError) as error:
            warnings.append(f"left out: {error}")
    if not parts:
        raise StoreError(f"{folder}: none of its files holds frames; {warnings[0]}")
    parts[0] = replace(parts[0], warnings=tuple(warnings))
    return parts


def _with_images_joined(parts: Sequence[_Part]) -> Iterator[_Part]:
    """Yield the parts with runs of one-image files joined to series."""
    for kind, run in groupby(parts, key=lambda part: part.kind):
        if kind is not Kind.IMAGES:
            yield from run
            continue
        images = list(run)
        yield _Part(
            kind,
            images[0].path.parent,
            joined([series for part in images for series in part.series]),
            tuple(warning for part in images for warning in part.warnings),
        )


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


def _recording(part: _Part, ids: _SeriesIds) -> Recording:
    numbered = tuple(s.numbered(ids.take(s.series)) for s in part.series)
    return Recording(
        kind=part.kind,
        path=part.path,
        series=numbered,
        n_frames=sum(s.n_frames for s in numbered),
        truth={(s.series or 0, f): hit for s in numbered for f, hit in s.truth.items()},
        warnings=part.warnings + tuple(w for s in numbered for w in s.warnings),
        play=lambda: (message for s in numbered for message in s.messages()),
    )


def _captured(path: Path, protocol: Protocol, lenient: bool) -> Recording:
    return Recording(
        kind=Kind.CAPTURE,
        path=path,
        series=(),
        n_frames=None,
        truth={},
        warnings=(),
        play=lambda: _captured_messages(path, protocol, lenient),
    )


def _captured_messages(path: Path, protocol: Protocol, lenient: bool) -> Iterator[Replayed]:
    decoder = WireDecoder(protocol, lenient)
    try:
        for _t_received_ns, parts in read_capture(path):
            yield decoder.decode(parts)
    except WireError as damaged:  # the file itself: nothing can be read after it
        yield damaged
