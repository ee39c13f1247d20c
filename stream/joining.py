"""The shares of a series joined into one series' folder, as if one host had had all its frames.

One rule: all or nothing: the folder is made apart and moved to its place when it is complete, so a
collector that is killed leaves the shares, from which the next one makes it again. Images are not
copied: the hosts' files, whose names differ, are linked into it (hard links). What no host has is
`lost` where a host died during the series, and `missing` otherwise: each announced frame has its
row.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.check import image_files
from hitfinder.stream.errors import StoreError
from hitfinder.stream.joined_estimate import joined_estimate
from hitfinder.stream.learned import LearnedList
from hitfinder.stream.ledger import Ledger, Unjudged
from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.stream.shares import HOSTS, JOINING, Share
from hitfinder.stream.sink import header_alarms

_BLOCK_ROWS = 65536  # whole rows in memory at once: 30 MB
_JUDGED = (b"hit", b"miss")
_NOT_COPIED = ("n_announced", "summary", "unknown")


@dataclass(frozen=True, slots=True)
class Death:
    """A host that died.

    Attributes:
        host: name of its daemon's folder.
        node: where it ran, as a person knows it.
        noticed_ns: when it was noticed, Unix time; None if nobody saw it.
    """

    host: str
    node: str = ""
    noticed_ns: int | None = None

    def __str__(self) -> str:
        """Return who died, and where."""
        return f"{self.host} on {self.node} died" if self.node else f"{self.host} died"


def join(out: Path, shares: Sequence[Share], deaths: Iterable[Death] = ()) -> Path:
    """Join the shares of one series; returns its folder.

    Shares that come when their series is joined already stand beside it, as what they are: nothing
    is missing of them.

    Args:
        out: the run's folder.
        shares: all of one series, at least one.
        deaths: of hosts during the series, beside those whose shares tell it.

    Raises:
        StoreError: a share is damaged, or the disk refuses (hard links must be possible).
    """
    head = max(shares, key=_knows)
    name = min(shares, key=lambda s: (len(s.folder.name), s.folder.name)).folder.name
    folder = _free(out / name)
    is_late = folder.name != name and head.start.series_uid is not None
    part = out / HOSTS / JOINING / folder.name
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        _link_files(part, head, shares)
        n_announced = None if is_late else head.start.n_frames
        n_twice = _write_ledger(part, head, shares, n_announced)
        died = [] if is_late else _all_deaths(shares, deaths)
        tail = [] if is_late else _tail(part, head, died, n_hosts=len(shares))
        _close(part, head, shares, died, tail, n_twice)
        part.rename(folder)
    except StoreError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StoreError(
            f"{name}: its shares cannot be joined ({error}); {out} must be one file system, with "
            "room and hard links"
        ) from error
    return folder


def _free(folder: Path) -> Path:
    """Return the name, with `-2`, `-3` ... if it is taken."""
    n, free = 1, folder
    while free.exists():
        n += 1
        free = folder.with_name(f"{folder.name}-{n}")
    return free


def _knows(share: Share) -> tuple[bool, bool, int]:
    """Rank a share by what it knows of the series: the header, the images' layout, frames."""
    has_layout = (share.folder / "detector.geom").exists()
    return share.start.n_frames is not None, has_layout, sum(share.summary.counts.values())


def _all_deaths(shares: Sequence[Share], deaths: Iterable[Death]) -> list[Death]:
    said = {death.host: death for death in deaths}
    for share in shares:
        if share.was_killed:
            said.setdefault(share.host, Death(share.host))
    return [said[host] for host in sorted(said)]


def _link_files(part: Path, head: Share, shares: Sequence[Share]) -> None:
    for name in ("master.h5", "detector.geom"):
        if (head.folder / name).exists():
            shutil.copyfile(head.folder / name, part / name)
    for share in shares:
        for path in image_files(share.folder):
            os.link(path, part / path.name)


def _write_ledger(
    part: Path, head: Share, shares: Sequence[Share], n_announced: int | None
) -> int:
    """Write the ledger's rows; return how many frames came to two hosts.

    Of a frame's rows the one whose image is stored wins, then one with a judgement.
    """
    with h5py.File(head.folder / "ledger.h5", "r") as file:
        attributes = {k: v for k, v in file["ledger"].attrs.items() if k not in _NOT_COPIED}
    attributes["n_announced"] = -1 if n_announced is None else n_announced
    attributes |= {"shares": json.dumps([s.name for s in shares])}
    ledger = Ledger.create(part / "ledger.h5", attributes)
    n_rows = 0
    try:
        for rank in range(3):
            for share in shares:
                for rows in _blocks(share.folder / "ledger.h5"):
                    rows = rows[_rank(rows) == rank]
                    n_rows += len(rows)
                    ledger.append(_fresh(ledger, rows))
        return n_rows - len(ledger)
    finally:
        ledger.close()


def _blocks(path: Path) -> Iterable[NDArray[np.void]]:
    with h5py.File(path, "r") as file:
        for begin in range(0, len(file["ledger"]), _BLOCK_ROWS):
            yield file["ledger"][begin : begin + _BLOCK_ROWS]


def _rank(rows: NDArray[np.void]) -> NDArray[np.int64]:
    is_judged = np.isin(rows["outcome"], _JUDGED)
    return np.where(rows["row"] >= 0, 0, np.where(is_judged, 1, 2))


def _fresh(ledger: Ledger, rows: NDArray[np.void]) -> NDArray[np.void]:
    _, first = np.unique(rows["frame"], return_index=True)
    keep = [i for i in np.sort(first).tolist() if int(rows["frame"][i]) not in ledger]
    return rows[keep]


def _close(
    part: Path,
    head: Share,
    shares: Sequence[Share],
    deaths: Sequence[Death],
    tail: Sequence[Unjudged],
    n_twice: int,
) -> None:
    series = SeriesFolder.resume(part)
    n_lost = sum(len(t.frames) for t in tail if t.outcome is Outcome.LOST)
    posterior = joined_estimate([s.summary.extra.get("posterior") for s in shares])
    extra: dict[str, Any] = {
        name: sum(s.summary.extra.get(name) or 0 for s in shares)
        for name in ("n_duplicate", "n_late")
    }
    extra["n_duplicate"] += n_twice
    extra["posterior"] = posterior
    extra["changes"] = [c for s in shares for c in s.summary.extra.get("changes") or ()] or None
    extra["shares"] = [s.name for s in shares]
    extra["hosts"] = {s.name: s.summary.counts for s in shares}
    sentences = [f"{death}: {n_lost} frames that no host has are counted lost" for death in deaths]
    reasons = Counter(s.summary.reason for s in shares if not s.was_killed)
    series.close(
        {},
        tail,
        reasons.most_common(1)[0][0] if reasons else "every host died",
        extra=extra,
        alarms=[*header_alarms(posterior), *sentences],
        learned=[one for share in shares for one in _learned(share, head)],
    )


def _received(ledger: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    with h5py.File(ledger, "r") as file:
        rows = file["ledger"].fields(("frame", "t_received_ns"))[:]
    return rows["frame"], rows["t_received_ns"]


def _tail(part: Path, head: Share, deaths: Sequence[Death], n_hosts: int) -> list[Unjudged]:
    """Return the frames that no host has.

    A dead host had been dealt some of those below the highest number that was seen when its death
    was noticed, and what was dealt to it in the last round: which gap is whose nobody can tell.
    """
    frames, received_ns = _received(part / "ledger.h5")
    n_seen = int(frames.max(initial=-1)) + 1
    first = 0 if head.start.n_frames is not None else int(frames.min(initial=n_seen))
    n_frames = min(max(head.start.n_frames or 0, n_seen), MAX_FRAMES)
    absent = np.setdiff1d(np.arange(first, n_frames), frames)
    noticed = [d.noticed_ns for d in deaths]
    ends = [t for t in noticed if t is not None]
    before = frames if len(ends) < len(noticed) else frames[received_ns <= max(ends, default=0)]
    reach = int(before.max(initial=-1)) + 1 + n_hosts if deaths else 0
    why = " or ".join(str(death) for death in deaths)
    return [
        Unjudged(absent[absent < reach], Outcome.LOST, why),
        Unjudged(absent[absent >= reach], Outcome.MISSING, "announced, not received"),
    ]


def _learned(share: Share, head: Share) -> Iterable[LearnedList]:
    """Yield what the workers of a host learned; of images of unknown shape nothing is."""
    if head.start.shape is None:
        return
    with h5py.File(share.folder / "ledger.h5", "r") as file:
        for name, entries in file.get("learned", {}).items():
            worker = int(name.removeprefix("worker"))
            yield LearnedList(worker, head.start.shape, entries[:])
