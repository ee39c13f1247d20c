"""The tables that `bench` prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from hitfinder.workers.bench_end_to_end import EndToEnd
from hitfinder.workers.bench_profile import ProfileLine
from hitfinder.workers.bench_soak import WARM_UP_SERIES, Soak
from hitfinder.workers.bench_stages import Stage
from hitfinder.workers.bench_sweep import JOBS, Point, told_by
from hitfinder.workers.held import Held

MB = 1e-6
SOAK_ROWS = 10


def frames_line(frame: dict[str, Any]) -> str:
    """Say what frames are measured."""
    water, spots = frame["photons_per_px"], frame["n_spots"]
    return (
        f"\nframes {frame['shape'][0]} x {frame['shape'][1]} {frame['dtype']}, nine data sets, "
        f"{frame['hits']} of {frame['pool']} hits{'' if spots is None else f' of {spots} spots'}, "
        f"{frame['n_bytes_packed_mean'] * MB:.3g} MB packed, "
        f"{'water as it is' if water is None else f'water of {water:g} photons a pixel'}"
    )


def stage_table(stages: Sequence[Stage]) -> Table:
    """Return what each stage costs."""
    table = _table("one frame, one thread, by stage (medians)", "stage")
    for name in ("ms", "frames/s", "x memcpy"):
        table.add_column(name, justify="right")
    for s in stages:
        table.add_row(s.stage, f"{s.ms:.3f}", f"{s.frames_per_s:.0f}", f"{s.x_memcpy:.2f}")
    return table


def end_to_end_table(runs: Sequence[EndToEnd]) -> Table:
    """Return what the whole daemon costs and how fast it is, a column a run."""
    table = _table("whole daemon, the sender on the same machine", "")
    for r in runs:
        table.add_column(r.name, justify="right")
    rows: dict[str, Callable[[EndToEnd], str]] = {
        "frames/s": lambda r: f"{r.frames_per_s:.0f}",
        "core-ms a frame": lambda r: f"{r.core_ms:.2f}",
        "memcpy beside it (ms)": lambda r: f"{r.memcpy_ms:.2f}",
        "x memcpy": lambda r: f"{r.x_memcpy:.1f}",
        "latency p50 (ms)": lambda r: f"{r.latency_p50_ms:.1f}",
        "latency p99 (ms)": lambda r: f"{r.latency_p99_ms:.1f}",
        "latency p99.9 (ms)": lambda r: f"{r.latency_p999_ms:.1f}",
        "frames": lambda r: str(r.n_frames),
        "hits": lambda r: str(r.n_hits),
        "dropped": lambda r: str(r.n_dropped),
        "corrupt, lost, missing": lambda r: str(r.n_other),
    }
    for name, cell in rows.items():
        table.add_row(name, *map(cell, runs))
    return table


def profile_table(profile: Sequence[ProfileLine], run: EndToEnd) -> Table:
    """Return where a run's core time goes."""
    table = _table(f"where a frame's core time goes, {run.name}", "process, stage")
    for name in ("ms", "x memcpy", "page faults", "switches"):
        table.add_column(name, justify="right")
    by_process = {p.process: p for p in run.processes}
    for line in profile:
        figures = (f"{line.x_memcpy * run.memcpy_ms:.2f}", f"{line.x_memcpy:.2f}")
        if line.stage:
            table.add_row(f"  {line.stage}", *figures)
        else:
            p = by_process[line.process]
            table.add_row(line.process, *figures, f"{p.minor_faults:.0f}", f"{p.switches:.1f}")
    return table


def sweep_table(name: str, points: Sequence[Point]) -> Table:
    """Return a sweep, a row a point: stages and daemon in memcpys of the frame beside them."""
    table = _table(f"sweep over {name}: multiples of a memcpy of the same frame", name)
    columns = ("MB packed", "decode", "blank", "hit", "daemon", *JOBS, "core-ms", "frames/s")
    for column in columns:
        table.add_column(column, justify="right")
    for p in points:
        told = told_by(p)
        cells = [f"{told[c]:.2f}" if c in told else "" for c in columns[1:-2]]
        packed = f"{p.frame['n_bytes_packed_mean'] * MB:.2f}"
        run = (f"{p.run.core_ms:.1f}", f"{p.run.frames_per_s:.0f}")
        table.add_row(str(p.value), packed, *cells, *run)
    return table


def soak_table(soak: Soak) -> Table:
    """Return what was held at some of the readings, evenly."""
    table = _table("what the daemon held", "frames")
    for column in ("s", "PSS", "private", "shared", "handles", "threads"):
        table.add_column(column, justify="right")
    every = max(len(soak.readings) // SOAK_ROWS, 1)
    for reading in soak.readings[every - 1 :: every]:
        t: Held = reading.total
        sizes = (f"{n * MB:.1f} MB" for n in (t.pss_bytes, t.private_bytes, t.shared_bytes))
        counts = (str(t.handles), str(t.threads))
        table.add_row(str(reading.n_frames), f"{reading.at_s:.0f}", *sizes, *counts)
    return table


def soak_line(soak: Soak) -> str:
    """Say how many frames passed, how they were judged, and what grew."""
    counts = ", ".join(f"{n} {name}" for name, n in soak.counts.items())
    grown = soak.grown_bytes_per_frame
    return (
        f"{soak.n_frames} frames in {soak.n_series} series, {soak.seconds:.0f} s: {counts}; "
        + (
            "too few to say what grows"
            if grown is None
            else f"{grown:+.2f} bytes a frame from series {WARM_UP_SERIES} on"
        )
    )


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    return table
