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
from hitfinder.workers.bench_frames import BenchFrames
from hitfinder.workers.bench_stages import Stage, measure_stages
from hitfinder.workers.devices import resolve

BENCH_SCHEMA = 1
LIBRARIES = ("torch", "numpy", "pyzmq", "h5py", "hdf5plugin")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure.

    Attributes:
        frames: times each stage is measured.
        seconds: length of each of the two end-to-end measurements.
        decoders: decoder threads of the daemon.
        device: `auto`, `cpu` or `cuda[:N]`.
        json_file: where to write the table as JSON, None for nowhere.
        shape: (ss, fs) of the detector.
    """

    frames: int = 200
    seconds: float = 10.0
    decoders: int = 1
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
    frames = BenchFrames(options.shape)
    stages = measure_stages(frames, options.frames, device)
    console.print(_stage_table(stages))
    runs = measure_end_to_end(frames, options.seconds, options.decoders, device, stages[0].ms)
    console.print(_end_to_end_table(runs))
    result = {
        "schema": BENCH_SCHEMA,
        "machine": machine,
        "options": {**asdict(options), "json_file": None, "device": device},
        "frame": frames.describe(),
        "stages": [asdict(s) for s in stages],
        "end_to_end": [asdict(r) for r in runs],
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
        f"frames {options.shape[0]} x {options.shape[1]} uint16, nine data sets, one in five a "
        f"hit; {options.frames} a stage, {options.seconds:g} s end to end"
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
    for job in runs[0].core_ms_by_job:
        table.add_row(f"  {job}", *(f"{r.core_ms_by_job.get(job, 0.0):.2f}" for r in runs))
    table.add_row("x memcpy", *(f"{r.x_memcpy:.1f}" for r in runs))
    table.add_row("latency p50 (ms)", *(f"{r.latency_p50_ms:.1f}" for r in runs))
    table.add_row("latency p99 (ms)", *(f"{r.latency_p99_ms:.1f}" for r in runs))
    table.add_row("frames", *(str(r.n_frames) for r in runs))
    table.add_row("hits", *(str(r.n_hits) for r in runs))
    table.add_row("dropped", *(str(r.n_dropped) for r in runs))
    table.add_row("corrupt, lost, missing", *(str(r.n_other) for r in runs))
    return table
