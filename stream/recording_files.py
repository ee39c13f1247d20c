"""The series that one HDF5 file holds: a master with its data files, or stacks of images.

One rule: a data file that is not there is named and its frames left out, but they stay
announced, so they come out as missing. Layouts: DECTRIS FileWriter and NXmx masters
(`/entry/data/data_000001`...), CXI, a stack in any place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.messages import MAX_FRAMES, SeriesStart
from hitfinder.stream.recording_chunks import (
    HDF5_ERRORS,
    OURS,
    SUPPORTED,
    channels_beside,
    pixel_type,
)
from hitfinder.stream.recording_header import as_number, read_header
from hitfinder.stream.recording_series import RecordedSeries, Span, open_h5
from hitfinder.stream.recording_virtual import virtual_spans

_DATA_FILE = re.compile(r"data_\d+")
_SPECIFIC = "/entry/instrument/detector/detectorSpecific/"
# Where the images stand in the layouts met; the first that is there is the one.
KNOWN_PLACES = (
    "/entry/data/data",
    "/entry_1/data_1/data",
    "/entry_1/instrument_1/detector_1/data",
    "/data/data",
    "/data",
)


def series_in_file(path: Path, inside: str = "/") -> tuple[RecordedSeries, ...]:
    """Return the series of one HDF5 file, unnumbered unless the file says its id.

    Args:
        path: the file.
        inside: look only in this group, or at this data set.

    Raises:
        StoreError: the file cannot be opened, or none of its data files.
        WireError: no data set in it can be frames of a detector.
    """
    with open_h5(path) as file:
        try:
            if inside != "/":
                return tuple(_stack(path, images) for images in _stacks_in(file, inside))
            data = file.get("/entry/data")
            names = sorted(n for n in data if _DATA_FILE.fullmatch(n)) if _is_group(data) else []
            if names:
                return (_linked(path, file, names),)
            return tuple(_stack(path, images) for images in _stacks(file))
        except HDF5_ERRORS as error:
            raise StoreError(
                f"{path}: HDF5 cannot read its structure ({error}); the file is damaged or cut off"
            ) from error


def _is_group(found: object) -> bool:
    return isinstance(found, h5py.Group)


def _is_images(found: object) -> bool:
    return (
        isinstance(found, h5py.Dataset)
        and found.ndim in (2, 3)
        and min(found.shape[-2:]) > 0
        and pixel_type(found.dtype) is not None
    )


def _stacks(file: h5py.File) -> list[h5py.Dataset]:
    for place in KNOWN_PLACES:
        found = file.get(place)
        if _is_images(found):
            return [found]
    return _stacks_in(file, "/")


def _stacks_in(file: h5py.File, inside: str) -> list[h5py.Dataset]:
    """Return all three-axis data sets below a group; of two-axis ones only a single one."""
    root = file.get(inside)
    if isinstance(root, h5py.Dataset):
        if _is_images(root):
            return [root]
    elif root is not None:
        found: list[h5py.Dataset] = []
        root.visititems(lambda _name, item: found.append(item) if _is_images(item) else None)
        stacks = [item for item in found if item.ndim == 3]
        if stacks or len(found) == 1:
            return stacks or found
    raise WireError(
        f"{file.filename}: no image data set found below {inside}; expected (N, ss, fs) or one "
        f"(ss, fs) of {SUPPORTED}, such as {', '.join(KNOWN_PLACES[:2])}"
    )


def _stack(path: Path, images: h5py.Dataset) -> RecordedSeries:
    """Return the series of one data set."""
    n_frames = int(images.shape[0]) if images.ndim == 3 else 1
    _check_count(path, n_frames)
    name = str(images.name)
    series, series_uid = _identity(images.file)
    spans: tuple[Span, ...]
    warnings: tuple[str, ...]
    spans, warnings = (Span(path, name, 0, range(n_frames)),), ()
    if images.is_virtual and images.ndim == 3:
        spans, warnings = virtual_spans(path, images)
    return RecordedSeries(
        series=series,
        n_frames=n_frames,
        spans=spans,
        warnings=warnings,
        read_start=_start_reader(path, images, name, n_frames, series_uid),
        truth=_truth(images, n_frames),
    )


def _start_reader(
    path: Path, images: h5py.Dataset, name: str, n_frames: int, series_uid: str | None
) -> Callable[[], SeriesStart]:
    """Return what reads the header that a file gives for its data set `name`."""
    layout = SeriesStart(
        series=0,
        series_uid=series_uid,
        n_frames=n_frames,
        shape=(int(images.shape[-2]), int(images.shape[-1])),
        dtype=pixel_type(images.dtype),
        channels=tuple(channels_beside(images)),
        header={"recording": str(path)},
    )
    return partial(_read_start, path, name, layout)


def _read_start(path: Path, name: str, layout: SeriesStart) -> SeriesStart:
    try:
        with open_h5(path) as file:
            return read_header(file, name, layout)
    except (StoreError, *HDF5_ERRORS) as error:
        return replace(layout, warnings=(str(error),))


def _check_count(path: Path, n_frames: int) -> None:
    if n_frames > MAX_FRAMES:
        raise WireError(f"{path}: {n_frames} frames; expected at most {MAX_FRAMES} in a series")


def _truth(images: h5py.Dataset, n_frames: int) -> Mapping[int, bool]:
    """Return what a simulated recording says of its frames: `kind` beside them, or `peak`."""
    kind = images.parent.get("kind")
    if isinstance(kind, h5py.Dataset) and kind.shape == (n_frames,) and kind.dtype.kind in "uib":
        return {frame: bool(value) for frame, value in enumerate(kind[()])}
    for holder in (images, images.parent, images.file):
        peak = as_number(holder.attrs.get("peak"))
        if peak is not None:
            return dict.fromkeys(range(n_frames), bool(peak))
    return {}


def _identity(file: h5py.File) -> tuple[int | None, str | None]:
    """Return the series id and unique id that a file of a run of ours, or a master, keeps."""
    group = file.get(OURS)
    if _is_group(group) and "series" in group.attrs:
        uid = group.attrs.get("series_uid")
        return int(group.attrs["series"]), uid if isinstance(uid, str) and uid else None
    found = file.get(_SPECIFIC + "series_id")
    if isinstance(found, h5py.Dataset) and found.dtype.kind in "ui" and found.size == 1:
        return int(found[()].item()), None
    return None, None


@dataclass(frozen=True, slots=True)
class _DataFile:
    name: str  # in the master
    path: Path
    dataset: str
    n_rows: int | None  # None: the file is not there


def _linked(path: Path, file: h5py.File, names: list[str]) -> RecordedSeries:
    """Return the series of a master: the data sets `names` under /entry/data, in order."""
    files = [_data_file(path, file, name) for name in names]
    there = [f for f in files if f.n_rows is not None]
    if not there:
        raise StoreError(
            f"{path}: none of its {len(files)} data files is there or readable (first "
            f"{files[0].path}); put them beside the master"
        )
    n_most = max(f.n_rows or 0 for f in there)
    spans: list[Span] = []
    warnings: list[str] = []
    first = 0
    for f in files:
        if f.n_rows is None:
            warnings.append(
                f"{path.name}: {f.name}, {f.path}, is missing; its frames are left out"
            )
        else:
            spans.append(Span(f.path, f.dataset, first, range(f.n_rows)))
        first += n_most if f.n_rows is None else f.n_rows
    last = spans[-1].first_frame + len(spans[-1].rows)
    announced = _announced(file, there[0])
    n_frames = first if announced is None else max(announced, last)
    if announced is not None and announced < last:
        warnings.append(f"{path.name}: {announced} frames announced, {last} in its files")
    _check_count(path, n_frames)
    master_name = f"/entry/data/{there[0].name}"
    images = file[master_name]
    series, series_uid = _identity(file)
    if series is None:
        series, series_uid = _identity(images.file)
    return RecordedSeries(
        series=series,
        n_frames=n_frames,
        spans=tuple(spans),
        read_start=_start_reader(path, images, master_name, n_frames, series_uid),
        warnings=tuple(warnings),
    )


def _data_file(path: Path, file: h5py.File, name: str) -> _DataFile:
    group = file["/entry/data"]
    link = group.get(name, getlink=True)
    target = path.parent / link.filename if isinstance(link, h5py.ExternalLink) else path
    dataset = getattr(link, "path", f"/entry/data/{name}")
    try:
        images = group[name]
    except HDF5_ERRORS:
        return _DataFile(name, target, dataset, None)
    if not _is_images(images):
        raise WireError(
            f"{path}: /entry/data/{name} is not a stack of frames; expected (N, ss, fs) of "
            f"{SUPPORTED}"
        )
    n_rows = int(images.shape[0]) if images.ndim == 3 else 1
    return _DataFile(name, Path(images.file.filename), str(images.name), n_rows)


def _announced(file: h5py.File, first: _DataFile) -> int | None:
    """Return nimages times ntrigger; None for a run of ours, which holds a selection."""
    with open_h5(first.path) as data:
        if OURS in data:
            return None
    counts = [file.get(_SPECIFIC + name) for name in ("nimages", "ntrigger")]
    if not all(isinstance(c, h5py.Dataset) and c.dtype.kind in "ui" for c in counts):
        return None
    n_images, n_triggers = (int(np.asarray(c[()]).ravel()[0]) for c in counts)
    mode = file.get(_SPECIFIC + "trigger_mode")
    if isinstance(mode, h5py.Dataset) and mode[()] in (b"exte", b"inte", "exte", "inte"):
        n_images = 1
    return n_images * n_triggers or None
