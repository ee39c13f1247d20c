"""`bench`: what a frame costs on this machine, stage by stage and end to end.

One rule: a cost is told as a ratio to a memcpy of the same frame measured in the same minutes,
since milliseconds alone say more about the machine and its other users than about the program.
Stages in `bench_stages.py`, the whole daemon in `bench_end_to_end.py`, both point by point in
`bench_sweep.py`, memory over many frames in `bench_soak.py`.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console

from hitfinder import __version__
from hitfinder.sim.physics import Detector
from hitfinder.workers.bench_end_to_end import DaemonSettings, LoadedDaemon
from hitfinder.workers.bench_frames import BenchFrames, FrameMix
from hitfinder.workers.bench_plots import draw_soak, draw_sweep
from hitfinder.workers.bench_profile import profile_of
from hitfinder.workers.bench_soak import soak
from hitfinder.workers.bench_stages import measure_stages
from hitfinder.workers.bench_sweep import SweepName, sweep
from hitfinder.workers.bench_tables import (
    end_to_end_table,
    frames_line,
    profile_table,
    soak_line,
    soak_table,
    stage_table,
    sweep_table,
)
from hitfinder.workers.devices import resolve
from hitfinder.workers.terminal import live_line

BENCH_SCHEMA = 3
LIBRARIES = ("torch", "numpy", "pyzmq", "h5py", "hdf5plugin")
# A latency is of interest where frames do not queue: half of what the daemon can take.
RELAXED = 0.5
SOAK_SHAPE, SOAK_SERIES = (256, 256), 100
# Columns of a table that no terminal shows.
TABLE_WIDTH = 132


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        frames: times each stage is measured.
        seconds: length of each end-to-end measurement.
        mix: what the frames are like.
        settings: of the daemon.
        sweep: what to go through point by point, None for one point in full.
        soak_frames: small frames to send while memory is read, instead of all other measurements.
        device: `auto`, `cpu` or `cuda[:N]`.
        json_file: where to write the figures, None for nowhere; a sweep's or soak's picture goes
            beside it.
        shape: (ss, fs) of the detector.
    """

    frames: int = 200
    seconds: float = 10.0
    mix: FrameMix = field(default_factory=FrameMix)
    settings: DaemonSettings = field(default_factory=DaemonSettings)
    sweep: SweepName | None = None
    soak_frames: int | None = None
    device: str = "auto"
    json_file: Path | None = None
    shape: tuple[int, int] = Detector().shape


def bench(options: BenchOptions, to: TextIO) -> dict[str, Any]:
    """Measure, print tables, write JSON and picture; returns what the JSON holds.

    Raises:
        ConfigError: no such device, or a sweep that it cannot do.
        DaemonError: the daemon did not run.
    """
    device = resolve([options.device])[0]
    console = Console(file=to, width=None if to.isatty() else TABLE_WIDTH)
    machine = describe_machine(device)
    console.print(_headline(machine), highlight=False, soft_wrap=True)
    picture = options.json_file and options.json_file.with_suffix(".png")
    if options.soak_frames is not None:
        measured = _soak(options, device, console, picture)
    elif options.sweep is not None:
        measured = _sweep(options.sweep, options, device, console, picture)
    else:
        measured = _one_point(options, device, console)
    result = {
        "schema": BENCH_SCHEMA,
        "machine": machine,
        "options": {**asdict(options), "json_file": None, "device": device},
        **measured,
    }
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(result, indent=2) + "\n")
        console.print(f"written to {options.json_file}")
    return result


def _one_point(options: BenchOptions, device: str, console: Console) -> dict[str, Any]:
    frames = BenchFrames(options.shape, options.mix)
    console.print(frames_line(frames.describe()), highlight=False, soft_wrap=True)
    stages = measure_stages(frames, options.frames, device)
    console.print(stage_table(stages))
    with LoadedDaemon(frames, options.settings, device) as daemon:
        flat_out = daemon.flat_out(options.seconds)
        relaxed = daemon.paced(RELAXED * flat_out.frames_per_s, options.seconds)
    console.print(end_to_end_table([flat_out, relaxed]))
    profile = profile_of(stages, flat_out)
    console.print(profile_table(profile, flat_out))
    return {
        "frame": frames.describe(),
        "stages": [asdict(s) for s in stages],
        "end_to_end": [asdict(flat_out), asdict(relaxed)],
        "profile": [asdict(line) for line in profile],
    }


def _sweep(
    name: SweepName, options: BenchOptions, device: str, console: Console, picture: Path | None
) -> dict[str, Any]:
    o = options
    points = sweep(name, o.shape, o.mix, o.settings, o.frames, o.seconds, device)
    console.print(frames_line(points[0].frame), highlight=False, soft_wrap=True)
    console.print(sweep_table(name, points))
    if picture is not None:
        draw_sweep(name, points, picture)
    return {"points": [asdict(p) for p in points]}


def _soak(
    options: BenchOptions, device: str, console: Console, picture: Path | None
) -> dict[str, Any]:
    n = options.soak_frames or 0
    frames = BenchFrames(SOAK_SHAPE, options.mix)
    console.print(frames_line(frames.describe()), highlight=False, soft_wrap=True)
    with live_line() as show:
        found = soak(
            frames,
            n,
            SOAK_SERIES,
            options.settings,
            device,
            lambda r: show(f"soak: {r.n_frames} of {n} frames"),
        )
    console.print(soak_table(found))
    console.print(soak_line(found), highlight=False, soft_wrap=True)
    if picture is not None and found.readings:
        draw_soak(found, picture)
    return {"soak": asdict(found)}


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


def _headline(machine: dict[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return f"{machine['cpu']}, {machine['cores']} cores{gpu}, load {machine['load_1min']} before"
