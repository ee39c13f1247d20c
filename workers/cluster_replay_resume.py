"""What an earlier replay into the same folder has done of a series, so that it is not done again.

One rule: a series' folder says which recording it is of, by the files' names, sizes and times; two
recordings with the same header are never taken for one another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.check import image_files
from hitfinder.stream.hitfile import read_frames
from hitfinder.stream.learned import IN_FOLDER, LearnedList, all_learned
from hitfinder.stream.ledger import read_ledger
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.recording_series import RecordedSeries
from hitfinder.stream.recovery import WriterLock, is_growing, recover_files
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import new_folder
from hitfinder.workers.config import Config, ConfigError

NAME = "recording.json"
# Parts of the configuration that verdicts rest on.
JUDGED_BY = ("gate", "geometry")


@dataclass(frozen=True, slots=True, eq=False)
class Earlier:
    """What is done of a series.

    Attributes:
        folder: its own.
        is_finished: nothing is left to do.
        frames: int64 (n,), those that have a verdict.
        outcomes: theirs.
        learned: the lists of learned pixels that verdicts rest on.
    """

    folder: Path
    is_finished: bool
    frames: NDArray[np.int64]
    outcomes: tuple[Outcome, ...]
    learned: tuple[LearnedList, ...] = ()


def begin_folder(out: Path, start: SeriesStart, recorded: RecordedSeries) -> Path:
    """Make the folder of a series and write in it which recording it is of."""
    folder = new_folder(out, start)
    (folder / NAME).write_bytes(msgspec.json.format(msgspec.json.encode(_identity(recorded))))
    return folder


def earlier(out: Path, recorded: RecordedSeries) -> Earlier | None:
    """Return what an earlier replay has done of a series; None if it never began.

    Raises:
        StoreError: a living process writes it, or what is there is damaged.
    """
    folder = _folder(out, recorded)
    return None if folder is None else _read(folder)


def require_same(out: Path, recorded: RecordedSeries, config: Config) -> None:
    """Refuse to go on with a series that was judged otherwise.

    Raises:
        ConfigError: its gate or geometry was another one.
    """
    folder = _folder(out, recorded)
    ledger = None if folder is None else folder / "ledger.h5"
    if ledger is None or not ledger.exists():
        return
    try:
        with h5py.File(ledger, "r", libver="latest", swmr=is_growing(ledger)) as file:
            before = json.loads(json.loads(file["ledger"].attrs["provenance"])["config"])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{ledger} does not say what it was judged by ({error}); give another --out"
        ) from error
    now = json.loads(config.as_json())
    for part in JUDGED_BY:
        if before.get(part) != now[part]:
            raise ConfigError(
                f"{ledger.parent}: judged with [{part}] {before.get(part)}, now it is "
                f"{now[part]}; give another --out"
            )


def _folder(out: Path, recorded: RecordedSeries) -> Path | None:
    identity = _identity(recorded)
    for path in sorted(out.glob(f"series_{recorded.series}_*/{NAME}")):
        if json.loads(path.read_bytes()) == identity:
            return path.parent
    return None


def _identity(recorded: RecordedSeries) -> dict[str, Any]:
    """Return what tells a recorded series from every other."""
    digest, sizes = hashlib.sha256(), dict[Path, str]()
    for span in recorded.spans:
        path = span.path.resolve()
        if path not in sizes:
            stat = path.stat()
            sizes[path] = f"{path} {stat.st_size} {stat.st_mtime_ns}"
        digest.update(f"{sizes[path]} {span.dataset} {span.first_frame}".encode())
        digest.update(np.asarray(span.rows, np.int64).tobytes())
    files = [str(path) for path in sizes]
    return {"files": files, "n_frames": recorded.n_frames, "sha256": digest.hexdigest()}


def _read(folder: Path) -> Earlier:
    ledger = folder / "ledger.h5"
    if not ledger.exists():
        return Earlier(folder, False, np.zeros(0, np.int64), ())
    if not (folder / "summary.json").exists():
        lock = WriterLock(folder)
        try:
            recover_files(folder)
        finally:
            lock.release()
    rows = read_ledger(ledger)
    done = dict(zip(rows["frame"].tolist(), rows["outcome"].tolist(), strict=True))
    for frame, outcome in _stored(folder):
        done.setdefault(frame, outcome.value.encode())
    return Earlier(
        folder,
        (folder / "summary.json").exists(),
        np.array(list(done), np.int64),
        tuple(Outcome(outcome.decode()) for outcome in done.values()),
        tuple(all_learned(folder, IN_FOLDER)),
    )


def _stored(folder: Path) -> Iterator[tuple[int, Outcome]]:
    """Yield the frames in image files; a killed writer may not have reached the ledger."""
    for kind, outcome in (("hits", Outcome.HIT), ("misses", Outcome.MISS)):
        for path in image_files(folder, kind):
            for frame in read_frames(path).tolist():
                yield frame, outcome
