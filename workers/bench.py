"""`bench`: what a frame costs on this machine, stage by stage and end to end.

One rule: a cost is told as a ratio to a memcpy of the same frame measured in the same minutes,
since milliseconds alone say more about the machine and its other users than about the program.
Stages in `bench_stages.py`, the whole daemon in `bench_end_to_end.py`.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.table import Table

from hitfinder import __version__
from hitfinder.sim.physics import Detector
from hitfinder.workers.bench_end_to_end import EndToEnd, measure_end_to_end
from hitfinder.workers.bench_frames import HIT_FRACTION, BenchFrames, FrameMix, PixelType
from hitfinder.workers.bench_profile import ProfileLine, profile_of
from hitfinder.workers.bench_stages import Stage, measure_stages
from hitfinder.workers.devices import resolve

BENCH_SCHEMA = 2
LIBRARIES = ("torch", "numpy", "pyzmq", "h5py", "hdf5plugin")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        frames: times each stage is measured.
        seconds: length of each of the two end-to-end measurements.
        decoders: decoder threads of the daemon.
        photons_per_px: mean of the water, each measured by itself; None for the data sets' own.
        hit_fraction: share of frames with a crystal.
        dtype: pixel type.
        device: `auto`, `cpu` or `cuda[:N]`.
        json_file: where to write the table as JSON, None for nowhere.
        shape: (ss, fs) of the detector.
    """

    frames: int = 200
    seconds: float = 10.0
    decoders: int = 1
    photons_per_px: tuple[float | None, ...] = (None,)
    hit_fraction: float = HIT_FRACTION
    dtype: PixelType = "uint16"
    device: str = "auto"
    json_file: Path | None = None
    shape: tuple[int, int] = Detector().shape


def bench(options: BenchOptions, to: TextIO) -> dict[str, Any]:
    """Measure, print a table, write JSON; returns what the JSON holds.

    Raises:
        ConfigError: no such device.
        DaemonError: the daemon did not run.
    """
    device = resolve([options.device])[0]
    console = Console(file=to)
    machine = describe_machine(device)
    console.print(_headline(options, machine), highlight=False, soft_wrap=True)
    measured = []
    for photons_per_px in options.photons_per_px:
        mix = FrameMix(options.hit_fraction, photons_per_px, options.dtype)
        frames = BenchFrames(options.shape, mix)
        console.print(_frames_line(frames.describe()), highlight=False, soft_wrap=True)
        stages = measure_stages(frames, options.frames, device)
        console.print(_stage_table(stages))
        runs = measure_end_to_end(frames, options.seconds, options.decoders, device)
        console.print(_end_to_end_table(runs))
        profile = profile_of(stages, runs[0])
        console.print(_profile_table(profile, runs[0]))
        measured.append(
            {
                "frame": frames.describe(),
                "stages": [asdict(s) for s in stages],
                "end_to_end": [asdict(r) for r in runs],
                "profile": [asdict(line) for line in profile],
            }
        )
    result = {
        "schema": BENCH_SCHEMA,
        "machine": machine,
        "options": {**asdict(options), "json_file": None, "device": device},
        "measured": measured,
    }
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(result, indent=2) + "\n")
        console.print(f"written to {options.json_file}")
    return result


def describe_machine(device: str) -> dict[str, Any]:
    """Return what a figure needs beside it to be compared with another machine's."""
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_1min": round(os.getloadavg()[0], 2),
        "gpu": gpu,
        "system": platform.platform(),
        "python": platform.python_version(),
        "hitfinder_stream": __version__,
        **{name: version_of(name) for name in LIBRARIES},
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()


def _headline(options: BenchOptions, machine: dict[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{gpu}, load {machine['load_1min']} before\n"
        f"{options.frames} frames a stage, {options.seconds:g} s end to end"
    )


def _frames_line(frame: dict[str, Any]) -> str:
    water = frame["photons_per_px"]
    return (
        f"\nframes {frame['shape'][0]} x {frame['shape'][1]} {frame['dtype']}, nine data sets, "
        f"{frame['hits']} of {frame['pool']} hits, {frame['n_bytes_packed_mean'] / 1e6:.2f} MB "
        f"packed, {'water as it is' if water is None else f'{water:g} photons a pixel'}"
    )


def _stage_table(stages: Sequence[Stage]) -> Table:
    table = Table(title="one frame, one thread, by stage (medians)", title_justify="left")
    table.add_column("stage")
    for name in ("ms", "frames/s", "x memcpy"):
        table.add_column(name, justify="right")
    for s in stages:
        table.add_row(s.stage, f"{s.ms:.3f}", f"{s.frames_per_s:.0f}", f"{s.x_memcpy:.2f}")
    return table


def _end_to_end_table(runs: Sequence[EndToEnd]) -> Table:
    title = "whole daemon, the sender on the same machine"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for r in runs:
        table.add_column(r.name, justify="right")
    table.add_row("frames/s", *(f"{r.frames_per_s:.0f}" for r in runs))
    table.add_row("core-ms a frame", *(f"{r.core_ms:.2f}" for r in runs))
    table.add_row("memcpy beside it (ms)", *(f"{r.memcpy_ms:.2f}" for r in runs))
    table.add_row("x memcpy", *(f"{r.x_memcpy:.1f}" for r in runs))
    table.add_row("latency p50 (ms)", *(f"{r.latency_p50_ms:.1f}" for r in runs))
    table.add_row("latency p99 (ms)", *(f"{r.latency_p99_ms:.1f}" for r in runs))
    table.add_row("frames", *(str(r.n_frames) for r in runs))
    table.add_row("hits", *(str(r.n_hits) for r in runs))
    table.add_row("dropped", *(str(r.n_dropped) for r in runs))
    table.add_row("corrupt, lost, missing", *(str(r.n_other) for r in runs))
    return table


def _profile_table(profile: Sequence[ProfileLine], run: EndToEnd) -> Table:
    title = f"where a frame's core time goes, {run.name}"
    table = Table(title=title, title_justify="left")
    table.add_column("process, stage")
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
