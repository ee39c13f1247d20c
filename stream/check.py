"""Does a run add up? `hitfinder-stream check RUN` reconciles what is on disk.

One rule: each check is a small generator of sentences, one per thing that is wrong; silence is
success. With `repair` the files of killed writers are made readable and the master, lists and
summary they lack are written first; a folder whose writer lives is never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.apart import apart
from hitfinder.stream.errors import StoreError
from hitfinder.stream.hitfile import MAX_PEAKS, read_frames
from hitfinder.stream.learned import IN_FOLDER, all_learned
from hitfinder.stream.ledger import Unjudged, outcome_counts, read_ledger
from hitfinder.stream.lists import read_list
from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.stream.recovery import is_being_written, is_cut_short, is_growing, row_counts
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.stream.summary import read_summary

# What h5py, msgspec and numpy raise for content that cannot be.
_OF_DAMAGE: tuple[type[Exception], ...] = (OSError, RuntimeError, LookupError, ValueError)
_OF_DAMAGE += (TypeError, AttributeError, ArithmeticError, MemoryError, msgspec.MsgspecError)
_SHOWN = 5  # frames or rows named in one sentence


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_run` found.

    Attributes:
        folders: the series looked at, by name.
        repairs: what was mended, one sentence each.
        problems: what is wrong now, one sentence each; empty if the run adds up.
    """

    folders: tuple[str, ...]
    repairs: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        """Return one line per repair and problem, and a verdict."""
        lines = [
            *(f"repaired: {r}" for r in self.repairs),
            *(f"wrong: {p}" for p in self.problems),
        ]
        verdict = "adds up" if self.ok else f"{len(self.problems)} problems"
        return "\n".join([*lines, f"{len(self.folders)} series checked: {verdict}"])


def check_run(path: Path, repair: bool = False) -> CheckReport:
    """Check a series folder, or every `series_*` in a folder of runs.

    Args:
        path: a series folder or the folder given as `--out`.
        repair: mend what killed writers left, before checking.
    """
    folders = series_folders(path)
    repairs: list[str] = []
    problems = [] if folders else [f"{path.name}: no series folder in it"]
    for folder in folders:
        try:
            if repair:
                repairs += [f"{folder.name}/{done}" for done in repair_folder(folder)]
            problems += [f"{folder.name}/{problem}" for problem in check_series(folder)]
        except StoreError as error:
            problems.append(str(error))
    return CheckReport(tuple(f.name for f in folders), tuple(repairs), tuple(problems))


def series_folders(path: Path) -> list[Path]:
    """Return the folder of a series by itself, or the series' folders of a run, by name."""
    folders = [path] if (path / "ledger.h5").exists() else sorted(path.glob("series_*"))
    return [f for f in folders if f.is_dir()]


def repair_folder(folder: Path) -> list[str]:
    """Finish what a killed writer began; return what was done, nothing if nothing was amiss.

    Frames announced and without a verdict become `missing`: nobody is left to judge them.

    Raises:
        StoreError: a living process writes the folder, it holds nothing to carry on from, or what
            it holds is damaged.
    """
    with _damage_named(folder):
        cut_short = any(is_cut_short(file) for file in folder.glob("*.h5"))
    if (folder / "summary.json").exists() and not cut_short and not list(folder.glob("*.part")):
        return []
    return _apart(folder, _repaired)


def _repaired(folder: Path) -> list[str]:
    series = SeriesFolder.resume(folder)
    n_announced = min(series.n_announced or 0, MAX_FRAMES)
    reason = "no verdict when the writer was killed"
    series.close(
        {},
        [Unjudged(np.arange(n_announced), Outcome.MISSING, reason)],
        "its writer was killed; finished by a repair",
        learned=all_learned(folder, IN_FOLDER),
    )
    return [*series.recovered, "master.h5, lists, summary.json: written from what was stored"]


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into a StoreError."""
    try:
        yield
    except _OF_DAMAGE as error:
        raise StoreError(f"{folder.name}: a file is damaged ({error})") from error


def check_series(folder: Path) -> list[str]:
    """Return a sentence for everything that is wrong with one series folder.

    Raises:
        StoreError: a file is damaged.
    """
    return _apart(folder, _checked)


def require_harmless(folder: Path) -> None:
    """Have all that others are about to read of a folder read once where it can do no harm.

    Raises:
        StoreError: reading it has no end, or ends the process.
    """

    def read() -> list[str]:
        for path in sorted(folder.glob("*.h5")):
            with suppress(*_OF_DAMAGE):  # which the reader will name
                _read_file(path)
        return []

    apart(folder, read)


def _apart(folder: Path, work: Callable[[Path], Iterable[str]]) -> list[str]:
    def named() -> list[str]:
        with _damage_named(folder):
            return list(work(folder))

    return apart(folder, named)


def _checked(folder: Path) -> Iterator[str]:
    if is_being_written(folder):
        yield "still being written; check again when the series has ended"
        return
    unreadable = list(_check_readable(folder))
    yield from unreadable
    if unreadable:
        return
    for path in sorted(folder.glob("*.h5")):
        _read_file(path)
    rows = read_ledger(folder / "ledger.h5")
    yield from _check_ledger(folder, rows)
    for path in image_files(folder):
        yield from _check_rows(path)
    yield from _check_places(folder, rows)
    yield from _check_lists(folder)
    yield from _check_master(folder)
    yield from _check_summary(folder, rows)


def image_files(folder: Path, kind: str = "*") -> list[Path]:
    """Return the `hits` files, the `misses` files or, by default, both."""
    kinds = ("hits", "misses") if kind == "*" else (kind,)
    return [p for k in kinds for p in sorted(folder.glob(f"{k}_*.h5"))]


def _check_readable(folder: Path) -> Iterator[str]:
    for part in sorted(folder.glob("*.part")):
        yield f"{part.name}: never finished; run check --repair"
    for name in ("ledger.h5", "master.h5"):
        if not (folder / name).exists():
            yield f"{name}: not there; run check --repair"
    for path in sorted(folder.glob("*.h5")):
        if is_cut_short(path):
            yield f"{path.name}: its writer was killed; run check --repair"
            continue
        try:
            h5py.File(path, "r").close()
        except OSError as error:
            yield f"{path.name}: not readable ({error})"


def _read_file(path: Path) -> None:
    """Read every attribute and, but for the images, every dataset."""
    with h5py.File(path, "r", libver="latest", swmr=is_growing(path)) as file:
        file.visititems(_read_object)


def _read_object(name: str, found: h5py.Group | h5py.Dataset) -> None:
    dict(found.attrs)
    if isinstance(found, h5py.Dataset) and not name.startswith("entry/data/"):
        found[()]


def _named(numbers: NDArray[np.int64]) -> str:
    shown = ", ".join(str(n) for n in numbers[:_SHOWN].tolist())
    return shown + (f" ... ({len(numbers)} in all)" if len(numbers) > _SHOWN else "")


def _check_ledger(folder: Path, rows: NDArray[np.void]) -> Iterator[str]:
    """Every announced frame has exactly one row, with one of the six outcomes."""
    with h5py.File(folder / "ledger.h5", "r") as file:
        n_announced = int(file["ledger"].attrs["n_announced"])
    frames, n_times = np.unique(rows["frame"], return_counts=True)
    if (n_times > 1).any():
        yield f"ledger.h5: more than one row for frames {_named(frames[n_times > 1])}"
    if n_announced >= 0:
        without = np.setdiff1d(np.arange(min(n_announced, MAX_FRAMES)), frames)
        if len(without):
            yield f"ledger.h5: no row for announced frames {_named(without)}"
    known = np.isin(rows["outcome"], [o.value.encode() for o in OUTCOMES])
    if not known.all():
        yield f"ledger.h5: no known outcome for frames {_named(rows['frame'][~known])}"
    hits = rows["outcome"] == Outcome.HIT.value.encode()
    lost = rows["frame"][hits & (rows["row"] < 0)]
    if len(lost):
        yield f"ledger.h5: hits without a stored image: frames {_named(lost)}"


def _check_rows(path: Path) -> Iterator[str]:
    """Images, peaks and columns of a file are row-aligned, every row has its image."""
    with h5py.File(path, "r") as file:
        counts = row_counts(file)
        n_rows = counts["/entry/data/data"]
        for name, n in counts.items():
            if n != n_rows:
                yield f"{path.name}: {name} has {n} rows, the images {n_rows}"
        n_chunks = file["entry/data/data"].id.get_num_chunks()
        if n_chunks != n_rows:
            yield f"{path.name}: {n_rows} rows, but {n_chunks} images"
        n_peaks = file["entry/result/nPeaks"][:]
        if ((n_peaks < 0) | (n_peaks > MAX_PEAKS)).any():
            yield f"{path.name}: nPeaks outside 0 to {MAX_PEAKS}"


def _check_places(folder: Path, rows: NDArray[np.void]) -> Iterator[str]:
    """The ledger and the files agree on which frame lies where."""
    stored = rows[rows["row"] >= 0]
    with h5py.File(folder / "ledger.h5", "r") as file:
        # A frame that two hosts got has two images, and its row names one.
        twice = set(stored["frame"].tolist()) if "shares" in file["ledger"].attrs else set()
    said = {(r["file"].decode(), int(r["row"])): int(r["frame"]) for r in stored}
    for path in image_files(folder):
        for i, frame in enumerate(read_frames(path).tolist()):
            claimed = said.pop((path.name, i), None)
            if claimed is None and frame in twice:
                continue
            if claimed is None:
                yield f"{path.name}: row {i} (frame {frame}) has no ledger row"
            elif claimed != frame:
                yield f"{path.name}: row {i} is frame {frame}, the ledger says {claimed}"
    for (name, row), frame in said.items():
        yield f"ledger.h5: frame {frame} is said to lie in {name} row {row}, which is not there"


def _check_lists(folder: Path) -> Iterator[str]:
    """The lists name every row of the files, in order, and nothing else."""
    for kind in ("hits", "misses"):
        path = folder / f"{kind}.lst"
        if not path.exists():
            yield f"{path.name}: not there; run check --repair"
            continue
        wanted = [(p.name, i) for p in image_files(folder, kind) for i in range(_n_rows(p))]
        try:
            found = read_list(path)
        except ValueError as error:
            yield f"{path.name}: not a list of `file //row` ({error})"
            continue
        if found != wanted:
            yield f"{path.name}: {len(found)} lines do not match the files' {len(wanted)} rows"


def _n_rows(path: Path) -> int:
    with h5py.File(path, "r") as file:
        return int(file["entry/data/data"].shape[0])


def _check_master(folder: Path) -> Iterator[str]:
    """The master names every hit file that exists and none that does not."""
    with h5py.File(folder / "master.h5", "r") as file:
        data = file["entry/data"]
        links = [data.get(name, getlink=True) for name in data]
        linked = [link.filename for link in links if isinstance(link, h5py.ExternalLink)]
        n_stacked = data["data"].shape[0] if "data" in data else 0
    there = [p.name for p in image_files(folder, "hits")]
    for name in sorted(set(linked) - set(there)):
        yield f"master.h5: names {name}, which is not there"
    for name in sorted(set(there) - set(linked)):
        yield f"master.h5: does not name {name}"
    n_images = sum(_n_rows(folder / name) for name in there)
    if n_stacked > n_images:
        yield f"master.h5: shows {n_stacked} images, the files hold {n_images}"


def _check_summary(folder: Path, rows: NDArray[np.void]) -> Iterator[str]:
    """The summary's counts are the ledger's."""
    path = folder / "summary.json"
    if not path.exists():
        yield "summary.json: not there, the series never ended; run check --repair"
        return
    summary = read_summary(path)
    counts = outcome_counts(rows)
    for outcome, n in counts.items():
        if summary.counts.get(outcome) != n:
            said = summary.counts.get(outcome)
            yield f"summary.json: {said} frames {outcome}, the ledger has {n}"
        if summary.reported.get(outcome, n) != n:
            said = summary.reported[outcome]
            yield f"summary.json: {said} frames published as {outcome}, the ledger has {n}"
    files = {f.name: f.n_rows for f in summary.files}
    if files != {p.name: _n_rows(p) for p in image_files(folder)}:
        yield "summary.json: its files and rows are not those of the folder"
