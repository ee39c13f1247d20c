"""The ledger: one row per announced frame with its whole decision (design section 7).

One rule: a frame gets exactly one row, in the order in which verdicts arrive. `/ledger` is one
compound dataset, because one append then costs one write however many columns there are;
`/learned` is added when it is closed (`learned.py`). A
row's fields are the keys of a published `Record` but for the peaks, which stand in the hit
files; the same table, one dataset a column, is `/entry/hitfinder` of a hit file. Unknown is NaN
for a real number, -1 for a whole one and empty for text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.errors import StoreError
from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.stream.recovery import is_growing
from hitfinder.stream.results import OUTCOMES, Outcome, Record
from hitfinder.stream.swmr import LIBVER, Columns, create_growing, plain_text, reopen_growing

UNKNOWN_NOTE = "unknown is NaN for real numbers, -1 for whole numbers, empty for text"
_CHUNK_ROWS = 256
RESOLUTION_BIN_A = 0.5
_BLOCK_ROWS = 65536  # rows built at once for frames without a slot: 30 MB


def _text(width: int) -> np.dtype[Any]:
    dtype: np.dtype[Any] = h5py.string_dtype("utf-8", width)
    return dtype


ROW = np.dtype(
    [
        ("schema", "<i4"),
        ("seq", "<i8"),
        ("series", "<i8"),
        ("series_uid", _text(48)),
        ("frame", "<i8"),
        ("outcome", _text(8)),
        ("p_hit", "<f8"),
        ("threshold", "<f8"),
        ("p_any", "<f8"),
        ("p_spots3", "<f8"),
        ("n_peaks", "<i4"),
        ("photon_energy_eV", "<f8"),
        ("photon_energy_sigma_eV", "<f8"),
        ("clen_m", "<f8"),
        ("clen_sigma_m", "<f8"),
        ("header_photon_energy_eV", "<f8"),
        ("header_clen_m", "<f8"),
        ("mismatch", "<i1"),
        ("tells_parameters", "<i1"),
        ("d_min_A", "<f8"),
        ("model", _text(64)),
        ("mask", _text(12)),
        ("n_photons", "<i8"),
        ("background_photons_per_px", "<f8"),
        ("learned_by", "<i4"),
        ("n_learned", "<i8"),
        ("flux_scale", "<f8"),
        ("t_detector_ns", "<i8"),
        ("t_received_ns", "<i8"),
        ("t_published_ns", "<i8"),
        ("file", _text(24)),
        ("row", "<i8"),
        ("reason", _text(96)),
    ]
)
COLUMNS: tuple[str, ...] = ROW.names or ()
_TAKE = attrgetter(*COLUMNS)
_UNKNOWN: dict[str, float | int | bytes] = {"f": np.nan, "i": -1, "S": b""}


def unknown_value(column: str) -> float | int | bytes:
    """Return what stands in `column` when nothing is known."""
    return _UNKNOWN[ROW[column].kind]


def _plain(column: str, value: Any) -> float | int | bytes:
    """Return one value as its column can hold it: text cut to width, absurd numbers unknown."""
    dtype = ROW[column]
    if value is None:
        return unknown_value(column)
    if dtype.kind == "S":
        return str(value).encode("utf-8", "replace")[: dtype.itemsize]
    if dtype.kind == "i" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        return unknown_value(column)
    return float(value) if dtype.kind == "f" else int(value)


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Frames that get a row without a judgement: dropped, lost or missing, and why."""

    frames: NDArray[np.int64]
    outcome: Outcome
    reason: str


_FLAGS = ("mismatch", "tells_parameters")
_FILL = tuple(unknown_value(c) for c in COLUMNS)


def rows_of(records: Sequence[Record]) -> NDArray[np.void]:
    """Return the records as table rows, dtype `ROW`, shape (len(records),).

    Text longer than its column is cut, a whole number too large for 64 bits is unknown.
    """
    taken = [_TAKE(r) for r in records]
    try:
        rows = [tuple(map(_or_fill, t, _FILL)) for t in taken]
        return np.array(rows, ROW)
    except (OverflowError, UnicodeEncodeError):
        return np.array(
            [tuple(_plain(c, v) for c, v in zip(COLUMNS, t, strict=True)) for t in taken], ROW
        )


def record_of(row: np.void) -> Record:
    """Return a row, dtype `ROW`, as the record that it was made of, without its peaks."""
    said: dict[str, Any] = {}
    for name, fill in zip(COLUMNS, _FILL, strict=True):
        value = row[name].item() if ROW[name].kind != "S" else bytes(row[name])
        is_unknown = value != value or value == fill
        said[name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        if is_unknown:
            said[name] = None
        elif name in _FLAGS:
            said[name] = bool(value)
    return Record(**{**said, "outcome": Outcome(said["outcome"])})


def _or_fill(value: Any, fill: Any) -> Any:
    return fill if value is None else value


class Ledger:
    """`ledger.h5`, open for appending; knows which frames have their row and where they lie."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file, self._path = file, path  # a file that was renamed tells its old name
        self._rows = Columns([file["ledger"]])
        self._seen = bytearray()
        self._places: dict[int, tuple[str, int]] = {}
        self.counts: Counter[str] = Counter()
        self.resolutions: Counter[float] = Counter()
        """Hits by resolution: lower edge of a bin of `RESOLUTION_BIN_A` -> hits."""

    @classmethod
    def create(cls, path: Path, attributes: Mapping[str, Any]) -> Ledger:
        """Start an empty ledger; `attributes` say what holds for all its rows."""

        def build(file: h5py.File) -> None:
            file.create_dataset("ledger", (0,), ROW, maxshape=(None,), chunks=(_CHUNK_ROWS,))
            said = {k: plain_text(v) if isinstance(v, str) else v for k, v in attributes.items()}
            file["ledger"].attrs.update({"unknown": UNKNOWN_NOTE, **said})

        return cls(create_growing(path, build), path)

    @classmethod
    def reopen(cls, path: Path) -> Ledger:
        """Carry on with a ledger whose writer is dead and whose flag is cleared."""
        rows = read_ledger(path)
        ledger = cls(reopen_growing(path), path)
        ledger._note(rows)
        return ledger

    def __contains__(self, frame: int) -> bool:
        return 0 <= frame < len(self._seen) and self._seen[frame] != 0

    def __len__(self) -> int:
        return self._rows.n_rows

    def place(self, frame: int) -> tuple[str | None, int | None]:
        """Return (file, row) of a frame's stored image, (None, None) if none is stored."""
        return self._places.get(frame, (None, None))

    def append(self, rows: NDArray[np.void]) -> None:
        """Add rows of dtype `ROW`; the caller has made sure that none of their frames is in."""
        if len(rows):
            self._grow(rows["frame"])
            self._rows.write(len(self), [rows])
            self._note(rows)

    def append_unjudged(self, template: Record, unjudged: Unjudged) -> int:
        """Add a row for each frame that has none yet; return how many were added.

        Args:
            template: what holds for all of them (series, header values); no image is stored.
            unjudged: its frames in any order; a frame named twice gets one row.
        """
        frames = np.asarray(unjudged.frames, np.int64)
        self._grow(frames)
        wanted = np.zeros(len(self._seen), bool)
        wanted[frames] = True
        fresh = np.flatnonzero(wanted & (np.frombuffer(self._seen, np.uint8) == 0))
        row = rows_of([template])
        row["outcome"] = _plain("outcome", unjudged.outcome.value)
        row["reason"] = _plain("reason", unjudged.reason)
        for start in range(0, len(fresh), _BLOCK_ROWS):
            block = fresh[start : start + _BLOCK_ROWS]
            rows = np.repeat(row, len(block))
            rows["frame"] = block
            self.append(rows)
        return len(fresh)

    def flush(self) -> None:
        """Hand everything appended to the operating system: it survives this process."""
        self._file.flush()

    def close(self, attributes: Mapping[str, str] | None = None) -> None:
        """Close the file; it then opens without SWMR.

        Args:
            attributes: what became known while it grew; none can be added before.
        """
        self._file.close()
        if attributes:
            with h5py.File(self._path, "r+", libver=LIBVER) as file:
                file["ledger"].attrs.update({k: plain_text(v) for k, v in attributes.items()})

    def _grow(self, frames: NDArray[np.int64]) -> None:
        if not len(frames):
            return
        check_frame(int(frames.min()))
        high = int(frames.max())
        check_frame(high)
        if high >= len(self._seen):
            self._seen.extend(bytes(max(high + 1, 2 * len(self._seen)) - len(self._seen)))

    def _note(self, rows: NDArray[np.void]) -> None:
        frames = rows["frame"]
        self._grow(frames)
        np.frombuffer(self._seen, np.uint8)[frames] = 1
        for outcome, n in Counter(rows["outcome"].tolist()).items():
            self.counts[outcome.decode()] += n
        d_A = rows["d_min_A"][np.isfinite(rows["d_min_A"])]
        self.resolutions.update((np.floor(d_A / RESOLUTION_BIN_A) * RESOLUTION_BIN_A).tolist())
        for i in np.flatnonzero(rows["row"] >= 0).tolist():
            self._places[int(frames[i])] = (rows["file"][i].decode(), int(rows["row"][i]))


def check_frame(frame: int) -> None:
    """Refuse a frame number that would make the ledger's memory grow without bound.

    Raises:
        StoreError: it is negative or not below `MAX_FRAMES`.
    """
    if not 0 <= frame < MAX_FRAMES:
        raise StoreError(
            f"frame {frame}: expected 0 to {MAX_FRAMES - 1}; the receiver must refuse it"
        )


def read_ledger(path: Path) -> NDArray[np.void]:
    """Return a ledger's rows, dtype `ROW`, in order of arrival; works while it grows.

    Raises:
        StoreError: no ledger there, or its writer was killed in the middle of creating it.
    """
    try:
        with h5py.File(path, "r", libver="latest", swmr=is_growing(path)) as file:
            rows: NDArray[np.void] = file["ledger"][:]
    except (OSError, KeyError) as error:
        raise StoreError(f"{path.name}: cannot be read ({error}); run check --repair") from error
    return rows


def outcome_counts(rows: NDArray[np.void]) -> dict[str, int]:
    """Return how many rows have each of the six outcomes, zeros included."""
    names, counts = np.unique(rows["outcome"], return_counts=True)
    found = {n.decode(): int(c) for n, c in zip(names, counts, strict=True)}
    return {o.value: found.get(o.value, 0) for o in OUTCOMES}
