"""The sub-command `scale`: tables and a picture of what a detector needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hitfinder.workers.cli_app import app

if TYPE_CHECKING:
    from hitfinder.workers.scale import Plan, Site


@app.command()
def scale(
    bench: Annotated[Path, typer.Argument(help="What `bench --json` wrote on such a host.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for report and picture.")
    ] = None,
    cores: Annotated[int, typer.Option("--cores", min=1, help="Of a host.")] = 32,
    card_Gbit: Annotated[
        float, typer.Option("--card-gbit", min=0.1, help="Network card of a host.")
    ] = 25.0,
    detector_Gbit: Annotated[
        float, typer.Option("--detector-gbit", min=0.1, help="What the detector sends at most.")
    ] = 100.0,
    disk_GB: Annotated[
        float, typer.Option("--disk-gb", min=0.01, help="A second, of the shared file system.")
    ] = 5.0,
    collector_ms: Annotated[
        float, typer.Option("--collector-ms", min=1e-3, help="Core-ms a record, as measured.")
    ] = 0.17,
    packed_MB: Annotated[
        float | None,
        typer.Option("--packed-mb", min=1e-3, help="A packed 4M frame; else as in the bench."),
    ] = None,
) -> None:
    """Say how many hosts 4M and 16M at 1 kHz take, alone and ten of them, and what is full first.

    Cost is what one host was measured to take, and is taken to grow with the pixels; what stands
    at the place is assumed as given. Each plan is simulated queue by queue, with as many hosts as
    it says and with as few as the model says must drop frames.

    Example: `hitfinder-stream scale tests/bench/bench_cpu_2core_2026-11-23.json --cores 64`
    """
    from hitfinder.workers.scale import DETECTORS, Site, plan, read_cost

    cost = read_cost(bench)
    if packed_MB is not None:
        cost = replace(cost, packed_bytes=packed_MB * 1e6)
    site = Site(cores, card_Gbit, detector_Gbit, disk_GB, collector_ms)
    plans = [(plan(d, cost, site), site) for d in DETECTORS]
    ten = replace(site, n_beamlines=10)
    plans += [(plan(replace(d, name=f"ten of {d.name}"), cost, ten), ten) for d in DETECTORS]
    text = "\n".join(_lines(plans))
    print(text)
    if out is not None:
        from hitfinder.workers.scale_plot import draw_scale

        out.mkdir(parents=True, exist_ok=True)
        (out / "tables.md").write_text(f"{text}\n")
        draw_scale(cost, site, out / "hosts.png")
        print(f"{out / 'tables.md'}, {out / 'hosts.png'}")


def _lines(plans: Sequence[tuple[Plan, Site]]) -> Iterator[str]:
    from hitfinder.workers.scale_queues import simulate

    site = plans[0][1]
    yield (
        f"A host: {site.cores} cores, {site.card_Gbit:g} Gbit/s; the detector sends "
        f"{site.detector_Gbit:g} Gbit/s, the disk takes {site.disk_GB:g} GB/s, the collector "
        f"{site.collector_ms:g} core-ms a record. Nothing of a host is used beyond 70 %."
    )
    yield ""
    yield "| | hosts | one host takes, Hz | bound by | used most then | every use |"
    yield "|---|---|---|---|---|---|"
    for p, s in plans:
        use = ", ".join(f"{name} {share:.0%}" for name, share in p.use.items())
        limit_Hz = p.limits_Hz[p.hosts_bound]
        yield (
            f"| {p.detector.name} | {s.n_beamlines * p.n_hosts} | {limit_Hz:.0f} | "
            f"{p.hosts_bound} | {p.first} {p.use[p.first]:.0%} | {use} |"
        )
    yield ""
    yield "| simulated | hosts | dropped | model says | p50 / p99, ms | cores used | its bound |"
    yield "|---|---|---|---|---|---|---|"
    for p, s in plans:
        if s.n_beamlines > 1:
            continue
        limit_Hz = p.limits_Hz[p.hosts_bound]
        too_few = int(p.detector.rate_Hz / limit_Hz)
        for n_hosts in sorted({n for n in (too_few, p.n_hosts) if n}):
            done = simulate(p, s, n_hosts)
            says = max(0.0, 1 - n_hosts * limit_Hz / p.detector.rate_Hz)
            yield (
                f"| {p.detector.name} | {n_hosts} | {done.n_dropped / done.n_frames:.1%} | "
                f"{says:.1%} | {done.p50_ms:.0f} / {done.p99_ms:.0f} | {done.busy['cores']:.0%} | "
                f"{p.hosts_bound} {done.busy[p.hosts_bound]:.0%} |"
            )
