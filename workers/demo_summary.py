"""What a demo found against what was true: tables for a person, and whether it adds up.

One rule: nothing is made to look better than it is: false hits and missed hits are counted, and
where a single frame cannot tell energy or camera length the table says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from hitfinder.stream.check import check_run
from hitfinder.stream.results import Outcome, Record

# Settings of the data sets are 1 keV and 0.1 m apart: with a sigma above a third of that one
# frame alone cannot name the setting.
TELLS_EV, TELLS_M = 1000 / 3, 0.1 / 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame's verdict and its truth.

    Attributes:
        folder: the series' folder, in the demo's.
        is_hit: a crystal was in the beam.
        n_spots: reflections of at least 3 expected photons that it had.
    """

    record: Record
    folder: str
    is_hit: bool
    n_spots: int
    dataset: str

    @classmethod
    def of(cls, message: Mapping[str, Any], truth: Mapping[str, Any], folder: str) -> Self:
        """Return a published map beside a line of the simulator's truth."""
        record = msgspec.convert(message, Record)
        return cls(record, folder, truth["is_hit"], truth["n_spots"], truth["dataset"])

    @property
    def series(self) -> int:
        """Number of its series."""
        return self.record.series

    @property
    def frame(self) -> int:
        """Its number in the series."""
        return self.record.frame

    @property
    def is_found(self) -> bool:
        """Whether the daemon called it a hit."""
        return self.record.outcome is Outcome.HIT


@dataclass(frozen=True, slots=True)
class Series:
    """One series: what ended it, and its frames."""

    end: Mapping[str, Any]
    frames: tuple[Frame, ...]

    @classmethod
    def of(cls, end: Mapping[str, Any], frames: Sequence[Frame]) -> Self:
        """Return a series with those of the frames that are its own."""
        return cls(end, tuple(f for f in frames if f.series == end["series"]))

    @property
    def dataset(self) -> str:
        """Name of the data set that was shown."""
        return self.frames[0].dataset if self.frames else "?"

    def hits(self) -> list[Frame]:
        """Return the hits that were found and are hits."""
        return [f for f in self.frames if f.is_hit and f.is_found]


def print_summary(
    console: Console,
    out: Path,
    picture: Path,
    frames: Sequence[Frame],
    series: Sequence[Series],
) -> None:
    """Print hits against truth, estimates, rates, where the files are and what to do next."""
    sent, found = [f for f in frames if f.is_hit], [f for f in frames if f.is_found]
    n_right = sum(f.is_hit for f in found)
    missed = [f.n_spots for f in sent if not f.is_found]
    console.print()
    console.print(
        f"[bold]{n_right} of {len(sent)} hits found[/], {len(found) - n_right} false hits in "
        f"{len(frames) - len(sent)} blanks; {len(frames)} frames in all.",
        highlight=False,
    )
    if missed:
        console.print(
            f"The {len(missed)} missed had {min(missed)} to {max(missed)} reflections of 3 "
            "expected photons or more.",
            highlight=False,
        )
    console.print(_series_table(series))
    console.print(
        "\npixels: median over the hits found ± the median sigma of one hit; the header\n"
        "is not used. One hit tells a setting if that sigma is below a third of the\n"
        "step between settings (1000 eV, 0.1 m); else believe no single frame.\n",
        highlight=False,
    )
    console.print(_rates(frames), highlight=False)
    _say_next(console, out, picture, max(series, key=lambda s: len(s.hits())))


def _series_table(series: Sequence[Series]) -> Table:
    title = "\n[bold]series by series[/]"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    for name in ("data\nset", "\nhits", "false\nhits", "header\neV", "pixels\neV"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("header\nm", justify="right", no_wrap=True)
    table.add_column("pixels\nm", justify="right", no_wrap=True)
    table.add_column("one hit\ntells", no_wrap=True)
    for s in series:
        hits, n_sent = s.hits(), sum(f.is_hit for f in s.frames)
        energy = _median(hits, "photon_energy_eV"), _median(hits, "photon_energy_sigma_eV")
        clen = _median(hits, "clen_m"), _median(hits, "clen_sigma_m")
        table.add_row(
            s.dataset,
            f"{len(hits)} of {n_sent}",
            str(sum(f.is_found for f in s.frames) - len(hits)),
            _shown(_median(s.frames, "header_photon_energy_eV"), ".0f"),
            f"{_shown(energy[0], '.0f')} ± {_shown(energy[1], '.0f'):>4}",
            _shown(_median(s.frames, "header_clen_m"), ".3f"),
            f"{_shown(clen[0], '.3f')} ± {_shown(clen[1], '.3f')}",
            _tells(energy[1], clen[1]),
        )
    return table


def _median(frames: Sequence[Frame], name: str) -> float | None:
    values = [v for f in frames if (v := getattr(f.record, name)) is not None]
    return median(values) if values else None


def _shown(value: float | None, value_format: str) -> str:
    return "?" if value is None else f"{value:{value_format}}"


def _tells(energy_sigma_eV: float | None, clen_sigma_m: float | None) -> str:
    told = []
    if energy_sigma_eV is not None and energy_sigma_eV < TELLS_EV:
        told.append("energy")
    if clen_sigma_m is not None and clen_sigma_m < TELLS_M:
        told.append("clen")
    return ", ".join(told) or "neither"


def _rates(frames: Sequence[Frame]) -> str:
    received_ns = [f.record.t_received_ns for f in frames if f.record.t_received_ns is not None]
    published_ns = [f.record.t_published_ns or 0 for f in frames if f.record.t_received_ns]
    latencies_ms = (np.array(published_ns) - np.array(received_ns)) * 1e-6
    p50_ms, p99_ms = np.percentile(latencies_ms, (50, 99))
    span_s = (max(received_ns) - min(received_ns)) * 1e-9
    return (
        f"{len(frames) / max(span_s, 1e-9):.1f} frames/s, pauses between series included; from "
        f"reception to publication\n{p50_ms:.0f} ms (p50), {p99_ms:.0f} ms (p99: a series' first "
        "frames wait for its tables)."
    )


def _say_next(console: Console, out: Path, picture: Path, best: Series) -> None:
    folder = out / str(best.end["folder"])
    console.print("\n[bold]Look at[/]", highlight=False)
    for path, what in (
        (picture, "hits with their spots circled, hit rate, scores"),
        (folder / "hits_000001.h5", "images as received, peaks, verdicts"),
        (folder / "ledger.h5", "one row a frame, hit or not"),
        (folder / "summary.json", "counts, alarms, versions"),
        (out / "daemon.log", "what the daemon said"),
    ):
        console.print(f"  {path}   {what}", highlight=False, soft_wrap=True)
    console.print("[bold]Next[/]", highlight=False)
    for line in (
        f"cd {folder} && indexamajig -i hits.lst -g detector.geom --peaks=cxi -o hits.stream",
        f"hitfinder-stream replay {folder} --out demo-out-again   # judge what was kept again",
        f"hitfinder-stream check {out}   # files against ledgers",
        "hitfinder-stream bench   # what a frame costs on this machine",
    ):
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def unaccounted(
    out: Path,
    n_sent: int,
    frames: Sequence[Frame],
    series: Sequence[Series],
    statuses: Mapping[str, int],
) -> list[str]:
    """Return a sentence for everything that does not add up; none if all does."""
    problems = [f"{who} ended with status {n}" for who, n in statuses.items() if n != 0]
    if len({(f.series, f.frame) for f in frames}) != n_sent or len(frames) != n_sent:
        problems.append(f"{n_sent} frames sent, {len(frames)} verdicts published")
    judged = (Outcome.HIT, Outcome.MISS)
    n_other = sum(f.record.outcome not in judged for f in frames)
    if n_other:
        problems.append(f"{n_other} frames are neither hit nor miss")
    for s in series:
        if not s.end["balanced"] or s.end["announced"] != len(s.frames):
            problems.append(f"series {s.end['series']} does not balance: {dict(s.end)}")
    return [*problems, *check_run(out).problems]
