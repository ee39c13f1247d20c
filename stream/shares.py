"""Shares: what each host of a run left of a series whose frames were dealt over several hosts.

    OUT/hosts/NN/series_5_UID/     a share: a series' folder like any other, but nothing is missing
    OUT/series_5_UID/              all shares joined (`joining.py`)

One rule: what belongs together is told by what stands in the folders, so a collector that was
killed finds everything. A unique id tells; without one (stream V1) the number does, and that the
shares' frames were received at about the same time, since numbers begin anew. No two are of one
daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from hitfinder.stream.check import repair_folder, series_folders
from hitfinder.stream.errors import StoreError
from hitfinder.stream.messages import SeriesStart, unpack_start
from hitfinder.stream.recovery import is_being_written
from hitfinder.stream.summary import SeriesSummary, read_summary

HOSTS = "hosts"
"""Folder of a run in which each daemon has its own."""
JOINING = "joining"
"""Folder beside theirs, of what is not joined yet to its end."""
# Without a unique id shares further apart than this are different series of the same number: a
# detector takes minutes to initialize, and a host that died is back within less.
APART_S = 30.0
_BLOCK_ROWS = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """One host's part of a series, closed.

    Attributes:
        folder: the share's.
        start: the header, or what stood in for it, without its large arrays.
        summary: as its daemon wrote it, or a repair.
        was_killed: its daemon died before the series was over.
        span_ns: when its first and last frame were received; None if none was.
    """

    folder: Path
    start: SeriesStart
    summary: SeriesSummary
    was_killed: bool
    span_ns: tuple[int, int] | None

    @property
    def host(self) -> str:
        """Name of the daemon's folder."""
        return self.folder.parent.name

    @property
    def name(self) -> str:
        """How a joined series names it."""
        return f"{self.host}/{self.folder.name}"


def open_shares(out: Path, joined: Iterable[str] = ()) -> list[Path]:
    """Return the folders of a run's shares that are not in `joined`, by host and name.

    Args:
        joined: names as `Share.name`.
    """
    known = set(joined)
    hosts = [h for h in sorted((out / HOSTS).glob("*")) if h.name != JOINING]
    folders = [f for host in hosts for f in series_folders(host)]
    return [f for f in folders if f"{f.parent.name}/{f.name}" not in known]


def joined_shares(out: Path) -> set[str]:
    """Return the names of all shares that stand in a joined series of this run.

    Raises:
        StoreError: a summary cannot be read.
    """
    found: set[str] = set()
    for path in out.glob("series_*/summary.json"):
        found.update(read_summary(path).extra.get("shares", ()))
    return found


def read_share(folder: Path) -> Share | None:
    """Read a share, after mending it if its writer was killed; None while somebody writes it.

    Raises:
        StoreError: it is damaged.
    """
    if is_being_written(folder):
        return None
    repair_folder(folder)
    summary = read_summary(folder / "summary.json")
    try:
        with h5py.File(folder / "ledger.h5", "r") as file:
            ledger = file["ledger"]
            start = unpack_start(ledger.attrs["start"].tobytes())
            first, last = 0, 0
            for begin in range(0, len(ledger), _BLOCK_ROWS):
                times = ledger.fields("t_received_ns")[begin : begin + _BLOCK_ROWS]
                times = times[times > 0]
                if len(times):
                    first = min(first or int(times.min()), int(times.min()))
                    last = max(last, int(times.max()))
    except (OSError, KeyError) as error:
        raise StoreError(f"{folder.name}/ledger.h5: cannot be read ({error})") from error
    return Share(
        folder,
        start,
        summary,
        was_killed="killed" in summary.reason,
        span_ns=(first, last) if first else None,
    )


def grouped(shares: Sequence[Share]) -> list[list[Share]]:
    """Return the shares of each series, oldest series first; those without any frame go along."""
    groups: list[list[Share]] = []
    for share in sorted(shares, key=_begin_ns):
        mine = next((g for g in reversed(groups) if _belong(g, share)), None)
        if mine is None:
            groups.append([share])
        else:
            mine.append(share)
    return groups


def _begin_ns(share: Share) -> int:
    if share.span_ns is not None:
        return share.span_ns[0]
    return int((share.folder / "summary.json").stat().st_mtime_ns)


def _belong(group: Sequence[Share], share: Share) -> bool:
    first = group[0].start
    # A daemon has one share of a series; who dies and comes back writes as another.
    if first.series != share.start.series or share.host in {s.host for s in group}:
        return False
    uids = {s.start.series_uid for s in (*group, share)} - {None}
    if len(uids) > 1:
        return False
    if len(uids) == 1 and None not in {first.series_uid, share.start.series_uid}:
        return True
    ends = [s.span_ns[1] if s.span_ns is not None else _begin_ns(s) for s in group]
    return _begin_ns(share) - max(ends) < APART_S * 1e9
