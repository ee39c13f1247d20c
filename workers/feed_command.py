"""The sub-command `feed`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from hitfinder import HitfinderError
from hitfinder.workers.cli_app import app, check_endpoint
from hitfinder.workers.config import ConfigError


@app.command()
def feed(
    run: Annotated[Path, typer.Argument(help="The folder that the daemon writes to (--out).")],
    results: Annotated[
        str, typer.Option("--results", help="Where the daemon publishes.")
    ] = "tcp://127.0.0.1:5557",
    bind: Annotated[
        str, typer.Option("--bind", help="Where CrystFEL asks.")
    ] = "tcp://127.0.0.1:5558",
    keep: Annotated[
        int, typer.Option("--keep", min=1, help="Hits that may wait to be asked for.")
    ] = 100,
    key: Annotated[
        Path | None, typer.Option("--key", help="Our NAME.key_secret, for an encrypted topic.")
    ] = None,
    server_key: Annotated[
        Path | None, typer.Option("--server-key", help="The server's NAME.key.")
    ] = None,
) -> None:
    """Hand hits to CrystFEL while the run goes on, one to each process that asks.

    Start indexamajig with what this prints. Hits that nobody asks for in time are passed over and
    counted; all of them are in the files.

    Example: `hitfinder-stream feed /data/run12`
    """
    import zmq

    from hitfinder.workers.curve import keys_of
    from hitfinder.workers.feed import GEOM_NAME, Feed
    from hitfinder.workers.terminal import live_line

    for endpoint in (results, bind.replace(":*", ":1")):
        check_endpoint(endpoint)
    if not run.is_dir():
        raise ConfigError(f"run {run}: no such folder; give what `run` was given as --out")
    try:
        hits = Feed(run, results, bind, keep, keys_of(key, server_key))
    except zmq.ZMQError as error:
        raise HitfinderError(f"--bind {bind}: {error}; name another port") from error
    print(
        f"indexamajig --zmq-input={hits.endpoint} --zmq-request=next --data-format=msgpack "
        f"--peaks=msgpack -g {run / GEOM_NAME} -o live.stream\n"
        f"{GEOM_NAME} is written with the first hit.",
        flush=True,
    )
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, frame: signals.append(n))
    try:
        with live_line() as show:
            counts = hits.serve(
                lambda: bool(signals),
                lambda c: show(
                    f"{c.fed} hits fed, {c.waiting} wait, {c.passed_over} passed over, "
                    f"{c.asking} processes ask"
                ),
            )
    finally:
        hits.close()
    print(
        f"{counts.fed} hits fed, {counts.passed_over} passed over, {counts.waiting} not asked "
        f"for, {counts.unreadable} not readable"
    )
