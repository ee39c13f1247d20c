"""`hitfinder-stream`: one program, a sub-command a job.

Exit status 0 done, 1 failed, 2 wrong usage or configuration. Sub-commands import what they need
when they run, so `--help` and `version` do not wait for torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hitfinder import HitfinderError, __version__
from hitfinder.workers import (  # noqa: F401  (they register their sub-commands)
    commands,
    dataset_command,
    export_command,
    feed_command,
    report_command,
    scale_command,
    set_command,
    soak_command,
    train_command,
)
from hitfinder.workers.cli_app import app, check_endpoint
from hitfinder.workers.cluster import require_ray
from hitfinder.workers.config import (
    Config,
    ConfigError,
    LogConfig,
    check_values,
    read_config,
)
from hitfinder.workers.logs import log_to_stderr

OutOption = Annotated[Path, typer.Option("--out", help="Folder for hit files and ledgers.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML configuration.")]
ResultsOption = Annotated[
    str | None, typer.Option("--results", help="Where to publish, e.g. tcp://127.0.0.1:5557.")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="auto, cpu or cuda[:N]; commas for several.")
]
HttpOption = Annotated[
    str | None, typer.Option("--http", help="HOST:PORT of the status page and /metrics.")
]
ProtocolOption = Annotated[
    str | None, typer.Option("--protocol", help="auto, v1 or v2; auto tells by each message.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", help="Ray's HOST:PORT, or auto: spread over a cluster's nodes."),
]
HostsOption = Annotated[
    int | None, typer.Option("--hosts", min=1, help="Nodes to spread over; none for all.")
]
MaxSeriesOption = Annotated[
    int | None, typer.Option("--max-series", min=1, help="Exit after N series have ended.")
]


def _effective(
    config_file: Path | None,
    *,
    sources: list[str],
    out: Path,
    protocol: str | None,
    results: str | None,
    http: str | None,
    device: str | None,
) -> Config:
    """Return the file's configuration with what the command line said put over it."""
    config = read_config(config_file)
    if sources:
        config.source.endpoints = sources
    if protocol is not None:
        if protocol not in ("auto", "v1", "v2"):
            raise ConfigError(f"--protocol: got {protocol!r}, expected auto, v1 or v2")
        config.source.protocol = protocol  # type: ignore[assignment]
    config.sink.out = str(out)
    config.sink.results = results or config.sink.results
    config.http.bind = http or config.http.bind
    if device is not None:
        config.workers.devices = device.split(",")
    check_values(config)
    return config


def _serve(
    config: Config,
    *,
    replay: tuple[Path, ...] = (),
    cluster: str | None = None,
    max_series: int | None,
) -> int:
    from hitfinder.workers.devices import resolve
    from hitfinder.workers.http import serve
    from hitfinder.workers.page_state import PageState
    from hitfinder.workers.run_view import RunView
    from hitfinder.workers.supervisor import RunOptions, Supervisor
    from hitfinder.workers.terminal import say_ready

    log_to_stderr(config.log)
    devices = () if cluster else resolve(config.workers.devices)
    page: list[str] = []
    with RunView() as view:

        def on_ready(line: str) -> None:
            say_ready(f"{line} http={page[0]}")
            view.start()

        options = RunOptions(
            config,
            Path(config.sink.out or "."),
            devices,
            replay=replay,
            cluster=cluster,
            max_series=max_series,
            on_ready=on_ready,
            on_status=view.update,
        )
        with Supervisor(options) as supervisor:
            publisher = supervisor.publisher
            shown = PageState(
                lambda: supervisor.state.latest,
                publisher.history,
                publisher.samples,
                supervisor.control,
            )
            with serve(config.http.bind, shown) as address:
                page.append(address)
                return supervisor.run()


def _live(
    config: Config, config_file: Path | None, cluster: str, hosts: int | None, most: int | None
) -> int:
    require_ray()
    from hitfinder.workers.cluster_live import LiveOptions, run_live

    text = "" if config_file is None else config_file.read_text()
    return run_live(LiveOptions(cluster, hosts, config, text, most))


@app.command()
def run(
    out: OutOption,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="tcp://HOST:PORT of a detector; may be repeated, also the same.",
        ),
    ] = None,
    config: ConfigOption = None,
    protocol: ProtocolOption = None,
    results: ResultsOption = None,
    http: HttpOption = None,
    device: DeviceOption = None,
    max_series: MaxSeriesOption = None,
    cluster: ClusterOption = None,
    hosts: HostsOption = None,
) -> None:
    """Take a detector's stream, keep the hits, publish a verdict per frame.

    With `--cluster` the stream is shared by several hosts: a daemon on each of `--hosts` nodes,
    to which the detector deals its frames; one topic, one set of files.

    Example: `hitfinder-stream run --source tcp://10.42.41.10:31001 --out /data/run12`

    Example: `hitfinder-stream run --source tcp://10.42.41.10:31001 --out /data/run12
    --cluster auto --hosts 4`
    """
    effective = _effective(
        config,
        sources=source or [],
        out=out,
        protocol=protocol,
        results=results,
        http=http,
        device=device,
    )
    if not effective.source.endpoints:
        raise ConfigError("no source: give --source tcp://HOST:PORT or source.endpoints")
    for endpoint in effective.source.endpoints:
        check_endpoint(endpoint)
    if cluster is not None:
        if http is not None:
            raise ConfigError("--http and --cluster: each host has its own page; leave out --http")
        raise typer.Exit(_live(effective, config, cluster, hosts, max_series))
    if hosts is not None:
        raise ConfigError("--hosts: give --cluster too")
    raise typer.Exit(_serve(effective, max_series=max_series))


@app.command()
def replay(
    paths: Annotated[list[Path], typer.Argument(help="master.h5, CXI, HDF5, .lst, captures.")],
    out: OutOption,
    config: ConfigOption = None,
    results: ResultsOption = None,
    http: HttpOption = None,
    device: DeviceOption = None,
    max_series: MaxSeriesOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Judge recorded runs as fast as this machine can; nothing is dropped.

    With `--cluster` one judge stands on each CPU or GPU of a Ray cluster (`--device cpu:N` for N),
    files and topic stay here, and the same command after a stop goes on where it was.

    Example: `hitfinder-stream replay /data/run11_master.h5 --out /data/run11_hits`

    Example: `hitfinder-stream replay /data/2024/*_master.h5 --out /data/again --cluster auto`
    """
    if cluster is not None:
        from hitfinder.workers.cluster import require_ray

        require_ray()
    effective = _effective(
        config,
        sources=[],
        out=out,
        protocol=None,
        results=results,
        http=http,
        device=device,
    )
    # A replay runs beside a live daemon, so without being told it takes ports that are free.
    if config is None:
        effective.sink.results = results or "tcp://127.0.0.1:*"
        effective.http.bind = http or "127.0.0.1:0"
    for path in paths:
        if not path.exists():
            raise ConfigError(f"recording {path}: no such file or folder")
    raise typer.Exit(
        _serve(effective, replay=tuple(paths), cluster=cluster, max_series=max_series)
    )


@app.command()
def version() -> None:
    """Print the program's version and its libraries'."""
    from importlib.metadata import version as version_of

    libraries = ("torch", "numpy", "pyzmq", "h5py", "hdf5plugin")
    print(f"hitfinder-stream {__version__}")
    print(", ".join(f"{name} {version_of(name)}" for name in libraries))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; the entry point of `hitfinder-stream`."""
    log_to_stderr(LogConfig())
    try:
        app(args=arguments)
    except ConfigError as error:
        print(f"hitfinder-stream: {error}", file=sys.stderr)
        sys.exit(2)
    except HitfinderError as error:
        print(f"hitfinder-stream: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
