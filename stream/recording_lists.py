"""CrystFEL lists: a text file that names frames, one a line.

One rule: a list is one series, in its own order; a line that cannot be followed is named with
its number before anything is replayed. Format: `file`, `file //row`, `file group//row`; lines
that start with `#` or `;` are comments; names are relative to the list's folder.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hitfinder.stream.errors import StoreError, WireError
from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.stream.recording_files import series_in_file
from hitfinder.stream.recording_series import RecordedSeries, spans_of

_LINE = re.compile(r"(?P<file>.+?)(?:\s+(?P<group>\S*?)//(?P<row>[0-9]*))?")
# A list of MAX_FRAMES long names; a larger text is something else.
MAX_LIST_BYTES = 1 << 30

Place = tuple[Path, str, int]


def series_in_list(path: Path) -> RecordedSeries:
    """Return the series that a list names.

    Raises:
        StoreError: the list or a file it names is missing or cannot be read.
        WireError: a line is not of the format, or names a row that is not there.
    """
    lines = _lines(path)
    if not lines:
        raise WireError(f"{path}: empty list; expected lines such as `run_000001.h5 //17`")
    known: dict[tuple[Path, str], RecordedSeries] = {}
    places: dict[int, Place] = {}
    n_frames = 0
    for number, line in lines:
        try:
            found = _places(path.parent, line, known)
        except (StoreError, WireError) as error:
            raise type(error)(f"{path} line {number}: {error}") from error
        places |= {n_frames + i: place for i, place in enumerate(found) if place is not None}
        n_frames += len(found)
    if n_frames > MAX_FRAMES:
        raise WireError(f"{path}: {n_frames} frames; expected at most {MAX_FRAMES}; split it")
    return _series(path, tuple(known.values()), places, n_frames)


def _lines(path: Path) -> list[tuple[int, str]]:
    if path.stat().st_size > MAX_LIST_BYTES:
        raise WireError(f"{path}: longer than {MAX_LIST_BYTES} bytes; not a list of frames")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise WireError(
            f"{path}: neither HDF5, a capture nor a text list; give one of these"
        ) from error
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in stripped if line and line[0] not in "#;"]


def _places(
    folder: Path, line: str, known: dict[tuple[Path, str], RecordedSeries]
) -> list[Place | None]:
    """Return where the frames of one line stand; None for one whose data file is missing."""
    named = _LINE.fullmatch(line)
    if named is None:
        raise WireError(f"{line!r}; expected `file //row` or `file`")
    file = folder / named["file"]
    group = "/" + (named["group"] or "").strip("/")
    if (file, group) not in known:
        known[file, group] = _only_series(file, group)
    series = known[file, group]
    if not named["row"]:
        return [_place(series, frame) for frame in range(series.n_frames)]
    row = int(named["row"])
    if row >= series.n_frames:
        raise WireError(f"{file} has rows 0 to {series.n_frames - 1}; got row {row}")
    return [_place(series, row)]


def _only_series(file: Path, group: str) -> RecordedSeries:
    found = series_in_file(file, group)
    if len(found) > 1:
        names = ", ".join(s.spans[0].dataset for s in found)
        raise WireError(f"{file} has several stacks ({names}); expected `file group//row`")
    return found[0]


def _place(series: RecordedSeries, frame: int) -> Place | None:
    for span in series.spans:
        if 0 <= frame - span.first_frame < len(span.rows):
            return span.path, span.dataset, span.rows[frame - span.first_frame]
    return None


def _series(
    path: Path, sources: tuple[RecordedSeries, ...], places: dict[int, Place], n_frames: int
) -> RecordedSeries:
    warnings = [warning for source in sources for warning in source.warnings]
    if len(sources) > 1:
        warnings.append(f"{path.name}: the header is that of the first of {len(sources)} files")
    truths = {
        (span.path, span.dataset, row): source.truth[frame]
        for source in sources
        for span in source.spans
        for frame, row in enumerate(span.rows, span.first_frame)
        if frame in source.truth
    }
    return replace(
        sources[0],
        n_frames=n_frames,
        spans=spans_of(places),
        truth={frame: truths[place] for frame, place in places.items() if place in truths},
        warnings=tuple(warnings),
    )
