"""The sub-commands beside the daemon: subscribe, capture, check, simulate, bench, train."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from hitfinder.workers.cli_app import app, check_endpoint
from hitfinder.workers.config import ConfigError


@app.command()
def subscribe(
    endpoint: Annotated[str, typer.Argument(help="Results endpoint, tcp://HOST:PORT.")],
    topic: Annotated[str, typer.Option("--topic", help="result., series. or status")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after N.")] = None,
) -> None:
    """Print what a running daemon publishes.

    Example: `hitfinder-stream subscribe tcp://127.0.0.1:5557 --topic result.hit --json`
    """
    from hitfinder.workers.subscribe import subscribe as print_topic

    check_endpoint(endpoint)
    try:
        print_topic(endpoint, topic, as_json=as_json, count=count)
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(0) from None


@app.command()
def capture(
    out: Annotated[Path, typer.Option("--out", help="File to write; must not exist.")],
    source: Annotated[list[str], typer.Option("--source", help="Detector endpoint.")],
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after N.")] = None,
) -> None:
    """Record a detector's wire messages, to be replayed with `replay FILE`.

    Example: `hitfinder-stream capture --source tcp://10.42.41.10:31001 --out run12.wire`
    """
    from hitfinder.workers.capturing import capture as record

    for endpoint in source:
        check_endpoint(endpoint)
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, frame: signals.append(n))
    print(f"ready source={','.join(source)} out={out}", flush=True)
    n = record(source, out, max_messages=count, stopping=lambda: bool(signals))
    print(f"{n} messages in {out}")


@app.command()
def check(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder; none checks this host.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend files of dead writers.")] = False,
) -> None:
    """Reconcile a run's files with its ledger, or say whether this host can run the daemon.

    Example: `hitfinder-stream check /data/run12 --repair`
    """
    if run is None:
        from hitfinder.workers.host import check_host

        raise typer.Exit(check_host(print))
    from hitfinder.stream.check import check_run

    if not run.is_dir():
        raise ConfigError(f"run {run}: no such folder")
    report = check_run(run, repair=repair)
    print(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def bench(
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames a stage.")] = 200,
    seconds: Annotated[float, typer.Option("--seconds", help="End-to-end duration.")] = 10.0,
    decoders: Annotated[int, typer.Option("--decoders", min=1, help="Decoder threads.")] = 1,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table here.")] = None,
) -> None:
    """Measure what a frame costs on this machine, stage by stage and end to end.

    Example: `hitfinder-stream bench --seconds 20 --json bench.json`
    """
    from hitfinder.workers.bench import BenchOptions
    from hitfinder.workers.bench import bench as measure

    measure(BenchOptions(frames, seconds, decoders, device, json_file), to=sys.stdout)
