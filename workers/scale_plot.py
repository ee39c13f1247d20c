"""The picture of `scale`: hosts a detector takes, by the cores of a host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from hitfinder.workers.scale import DETECTORS, HostCost, Site, plan

CORES = (4, 8, 16, 32, 64, 128)
PACKED_MB = (0.1, 0.25, 0.5, 1, 2, 4, 8)
DPI = 100


def draw_scale(cost: HostCost, site: Site, path: Path) -> None:
    """Draw the hosts that are needed over cores of a host, and over the bytes of a frame."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_cores, by_bytes = figure.subplots(1, 2)
    for detector in DETECTORS:
        plans = [plan(detector, cost, replace(site, cores=n)) for n in CORES]
        by_cores.plot(CORES, [p.n_hosts for p in plans], "o-", label=detector.name)
        for n, p in zip(CORES, plans, strict=True):
            by_cores.annotate(p.hosts_bound, (n, p.n_hosts), fontsize=7, rotation=30)
        bright = [replace(cost, packed_bytes=mb * 1e6) for mb in PACKED_MB]
        plans = [plan(detector, one, site) for one in bright]
        by_bytes.plot(PACKED_MB, [p.n_hosts for p in plans], "o-", label=detector.name)
        for mb, p in zip(PACKED_MB, plans, strict=True):
            shown = p.first if p.use[p.first] > 1 else p.hosts_bound
            note = f"{shown} full" if p.use[p.first] > 1 else shown
            by_bytes.annotate(note, (mb, p.n_hosts), fontsize=7, rotation=30)
    by_cores.set(
        xlabel="cores of a host", title=f"packed 4M frame of {cost.packed_bytes * 1e-6:.2f} MB"
    )
    by_bytes.set(xlabel="MB of a packed 4M frame", title=f"{site.cores} cores a host")
    for axes in (by_cores, by_bytes):
        axes.set(xscale="log", yscale="log", ylabel="hosts")
        axes.set_ylim(0.8, 2 * axes.get_ylim()[1])
        axes.margins(x=0.15)
        axes.grid(alpha=0.3)
        axes.legend()
    by_cores.set_xticks(CORES, [str(n) for n in CORES])
    by_bytes.set_xticks(PACKED_MB, [str(mb) for mb in PACKED_MB])
    figure.savefig(path, dpi=DPI)
