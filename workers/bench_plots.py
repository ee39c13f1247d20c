"""The pictures of `bench`: a sweep's costs, and a soak's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hitfinder.workers.bench_soak import WARM_UP_SERIES, Soak
from hitfinder.workers.bench_sweep import Point, told_by

MB = 1e-6
# Curve -> legend.
CURVES = {
    "daemon": "whole daemon, core time",
    "hit": "judge a hit",
    "blank": "judge a blank",
    "decode": "decode, mask and pool",
}
# Beyond this ratio of the largest to the smallest an axis is logarithmic.
DECADE = 10


def draw_sweep(name: str, points: Sequence[Point], path: Path) -> None:
    """Draw costs in memcpys, and the rate, over what was swept."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    costs, rates = figure.subplots(1, 2)
    numbers = [p.value for p in points if not isinstance(p.value, str)]
    is_wide = len(numbers) == len(points) and min(numbers) > 0
    is_wide = is_wide and max(numbers) >= DECADE * min(numbers)
    at = numbers if is_wide else list(range(len(points)))
    told = [told_by(p) for p in points]
    for key, label in CURVES.items():
        known = [(x, t[key]) for x, t in zip(at, told, strict=True) if key in t]
        costs.plot(*zip(*known, strict=True), "o-", label=label)
    costs.set(ylabel="memcpys of the same frame", title="cost of a frame")
    costs.set_ylim(bottom=0)
    costs.legend(loc="upper left")
    rates.plot(at, [p.run.frames_per_s for p in points], "o-", color="black")
    rates.set(ylabel="frames/s", title="rate beside the sender, as fast as taken")
    rates.set_ylim(bottom=0)
    for axes in (costs, rates):
        axes.set_xlabel({"photons": "photons a pixel", "spots": "spots of a hit"}.get(name, name))
        axes.grid(alpha=0.3)
        if is_wide:
            axes.set_xscale("log")
        axes.set_xticks(at, [str(p.value) for p in points])
        axes.minorticks_off()
    figure.savefig(path, dpi=100)


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
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="center right")
        if len(n) > WARM_UP_SERIES:
            axes.axvline(n[WARM_UP_SERIES], color="grey", lw=0.8, ls="--")
    figure.savefig(path, dpi=100)
