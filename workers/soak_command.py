"""The sub-command `soak`."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hitfinder.workers.cli_app import app
from hitfinder.workers.config import ConfigError


@app.command()
def soak(
    out: Annotated[Path, typer.Option("--out", help="The run's folder; must not exist.")],
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="At least so long.")] = 60.0,
    kills: Annotated[int, typer.Option("--kills", min=0, help="At least so many kill -9.")] = 0,
    victims: Annotated[
        str, typer.Option("--victims", help="Of receiver, worker, sink, supervisor.")
    ] = "receiver,worker,sink",
    kill_every: Annotated[
        float, typer.Option("--kill-every", min=1.5, help="Seconds between kills, in the mean.")
    ] = 10.0,
    max_rate: Annotated[
        float, typer.Option("--max-rate", min=5, help="Images a second; a series has half to all.")
    ] = 100.0,
    faults: Annotated[
        bool, typer.Option("--faults/--no-faults", help="Whether the detector has bad days.")
    ] = True,
    device: Annotated[str, typer.Option("--device", help="As of run.")] = "cpu",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bad days.")] = 0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Write NAME.json and NAME.md.")
    ] = None,
) -> None:
    """Run the daemon under changing rate, detector faults and kills; account for every frame.

    Exit status 1 if anything did not add up: a frame without or with two verdicts, less than 99 %
    of the frames that left whole judged, a file that cannot be read, a process left behind, memory
    or file handles that grew.

    Example: `hitfinder-stream soak --out soak --seconds 3600 --kills 100 --report soak_report`
    """
    from hitfinder.workers.soak import VICTIMS, Soak, SoakOptions
    from hitfinder.workers.soak_account import as_markdown

    logging.getLogger("hitfinder.sim").setLevel(logging.WARNING)
    if out.exists():
        raise ConfigError(f"--out {out}: is there already; a soak counts all that it finds")
    named = tuple(victims.split(","))
    if not set(named) <= set(VICTIMS):
        raise ConfigError(f"--victims {victims!r}: expected some of {', '.join(VICTIMS)}")
    options = SoakOptions(
        out=out,
        seconds=seconds,
        kills=kills,
        victims=named,
        kill_every_s=kill_every,
        max_rate_Hz=max_rate,
        has_faults=faults,
        device=device,
        seed=seed,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, frame: stop.set())
    account = Soak(options, stop).run()
    text = as_markdown(account, shlex.join(["hitfinder-stream", *sys.argv[1:]]))
    if report is not None:
        report.with_suffix(".md").write_text(text)
        figures = {**account.figures, "problems": account.problems, "kills_at": account.kills}
        report.with_suffix(".json").write_bytes(
            msgspec.json.format(msgspec.json.encode(figures), indent=1) + b"\n"
        )
    print(text)
    raise typer.Exit(1 if account.problems else 0)
