"""Costs point by point over one property of the frames or one setting of the daemon.

One rule: at a point everything else is as the options say, and each figure is a multiple of the
memcpy of that point's frame in that point's minute, so points of different minutes compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hitfinder.workers.bench_end_to_end import DaemonSettings, EndToEnd, LoadedDaemon
from hitfinder.workers.bench_frames import BenchFrames, FrameMix
from hitfinder.workers.bench_stages import SLOTS, Stage, measure_stages
from hitfinder.workers.config import ConfigError
from hitfinder.workers.terminal import progressed

SweepName = Literal["photons", "hit-fraction", "spots", "dtype", "decoders", "batch", "slots"]

# Property -> field of FrameMix or DaemonSettings, and its values.
OF_FRAMES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "photons": ("photons_per_px", (0.002, 0.005, 0.02, 0.05, 0.2, 0.5, 2.0, 5.0)),
    "hit-fraction": ("hit_fraction", (0.0, 0.2, 0.5, 1.0)),
    "spots": ("n_spots", (10, 30, 100, 300, 1000)),
    "dtype": ("dtype", ("uint8", "uint16", "uint32")),
}
OF_DAEMON: dict[str, tuple[str, tuple[Any, ...]]] = {
    "decoders": ("decoders", (1, 2)),
    "batch": ("batch", (1, 2, 4, 8, 16)),
    "slots": ("slots", (8, 16, 64, 256)),
}
JOBS = ("worker", "receiver", "sink", "supervisor")


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep.

    Attributes:
        value: of what is swept.
        frame: `BenchFrames.describe`.
        stages: each alone, one thread.
        run: the whole daemon, fed as fast as it takes frames.
    """

    value: float | int | str
    frame: dict[str, Any]
    stages: list[Stage]
    run: EndToEnd


def sweep(
    name: SweepName,
    shape: tuple[int, int],
    mix: FrameMix,
    settings: DaemonSettings,
    n: int,
    seconds: float,
    device: str,
) -> list[Point]:
    """Measure every point of a sweep, with a progress bar on a terminal.

    Args:
        name: what is swept.
        shape: (ss, fs) of the detector.
        mix: frames, but for what is swept.
        settings: of the daemon, but for what is swept.
        n: times each stage is measured.
        seconds: length of each end-to-end run.
        device: `cpu` or `cuda:N`.

    Raises:
        ConfigError: batches on a CPU, which judges frames one by one.
        DaemonError: the daemon did not run.
    """
    if name == "batch" and device == "cpu":
        raise ConfigError("--sweep batch: a CPU judges frames one by one; give --device cuda")
    if name in OF_FRAMES:
        return _over_frames(name, shape, mix, settings, n, seconds, device)
    frames = BenchFrames(shape, mix, SLOTS)
    stages = measure_stages(frames, n, device)
    field, values = OF_DAEMON[name]
    return [
        _point(value, frames, stages, replace(settings, **{field: value}), seconds, device)
        for value in _shown(values, name)
    ]


def told_by(point: Point) -> dict[str, float]:
    """Return what a point says, in memcpys: stages by a short name, the daemon, its processes."""
    short = {"decode, mask and pool": "decode", "judge a blank": "blank", "judge a hit": "hit"}
    told = {
        word: s.x_memcpy
        for s in point.stages
        for begin, word in short.items()
        if s.stage.startswith(begin)
    }
    told["daemon"] = point.run.x_memcpy
    return told | {p.process: p.x_memcpy for p in point.run.processes if p.process in JOBS}


def _over_frames(
    name: str,
    shape: tuple[int, int],
    mix: FrameMix,
    settings: DaemonSettings,
    n: int,
    seconds: float,
    device: str,
) -> list[Point]:
    field, values = OF_FRAMES[name]
    points = []
    for value in _shown(values, name):
        frames = BenchFrames(shape, replace(mix, **{field: value}), SLOTS)
        stages = measure_stages(frames, n, device)
        points.append(_point(value, frames, stages, settings, seconds, device))
    return points


def _point(
    value: float | int | str,
    frames: BenchFrames,
    stages: list[Stage],
    settings: DaemonSettings,
    seconds: float,
    device: str,
) -> Point:
    with LoadedDaemon(frames, settings, device) as daemon:
        return Point(value, frames.describe(), stages, daemon.flat_out(seconds))


def _shown(values: Sequence[Any], name: str) -> Iterable[Any]:
    return progressed(values, f"sweep over {name}")
