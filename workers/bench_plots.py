"""The pictures of `bench`: a sweep's costs, and a soak's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hitfinder.workers.bench_soak import WARM_UP_SERIES, Soak
from hitfinder.workers.bench_sweep import JOBS, Point, told_by

MB, DPI, HEADROOM = 1e-6, 100, 1.3
# Curve -> legend.
CURVES = {
    "daemon": "whole daemon, core time",
    "hit": "judge a hit",
    "blank": "judge a blank",
    "decode": "decode, mask and pool",
}
PROCESSES = {job: job for job in JOBS}
# Beyond this ratio of the largest to the smallest an axis is logarithmic.
DECADE = 10


def draw_sweep(name: str, points: Sequence[Point], path: Path) -> None:
    """Draw costs in memcpys over what was swept: stages and daemon, and the daemon by process."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    numbers = [p.value for p in points if not isinstance(p.value, str)]
    is_wide = len(numbers) == len(points) and min(numbers) > 0
    is_wide = is_wide and max(numbers) >= DECADE * min(numbers)
    at = numbers if is_wide else list(range(len(points)))
    told = [told_by(p) for p in points]
    titles = ("cost of a frame", "whole daemon, by process")
    for axes, title, curves in zip(
        figure.subplots(1, 2), titles, (CURVES, PROCESSES), strict=True
    ):
        for key, label in curves.items():
            known = [(x, t[key]) for x, t in zip(at, told, strict=True) if key in t]
            axes.plot(*zip(*known, strict=True), "o-", label=label)
        axes.set(title=title, ylabel="memcpys of the same frame")
        axes.set_xlabel({"photons": "photons a pixel", "spots": "spots of a hit"}.get(name, name))
        if is_wide:
            axes.set_xscale("log")
        axes.set_xticks(at, [str(p.value) for p in points])
        axes.minorticks_off()
        _finish(axes)
    figure.savefig(path, dpi=DPI)


def draw_soak(soak: Soak, path: Path) -> None:
    """Draw what each process held over the frames."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    memory, handles = figure.subplots(1, 2)
    n = [r.n_frames for r in soak.readings]
    for job in sorted(soak.readings[0].jobs):
        held = [r.jobs[job] for r in soak.readings if job in r.jobs]
        if len(held) == len(n):
            memory.plot(n, [MB * (h.private_bytes + h.shared_bytes) for h in held], label=job)
            handles.plot(n, [h.handles for h in held], label=job)
    memory.plot(n, [MB * r.total.pss_bytes for r in soak.readings], "k:", label="PSS of all")
    memory.set(ylabel="MB", title="memory: own data and the ring, by process")
    handles.set(ylabel="handles", title="open files, sockets and pipes")
    for axes in (memory, handles):
        axes.set_xlabel("frames published")
        if len(n) > WARM_UP_SERIES:
            axes.axvline(n[WARM_UP_SERIES], color="grey", lw=0.8, ls="--")
        _finish(axes)
    figure.savefig(path, dpi=DPI)


def _finish(axes: Axes) -> None:
    """Begin at zero, and leave room for the legend above the curves."""
    axes.set_ylim(0, HEADROOM * axes.get_ylim()[1])
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", ncols=2)
