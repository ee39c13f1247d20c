"""The sub-commands beside the daemon: subscribe, capture, check, simulate, bench."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from hitfinder.workers.cli_app import app, check_endpoint
from hitfinder.workers.config import ConfigError

SimulatedProtocol = Literal["v1", "v2"]
PixelType = Literal["uint8", "uint16", "uint32"]
Compression = Literal["bslz4", "lz4", "none"]
Sweep = Literal["photons", "hit-fraction", "spots", "dtype", "decoders", "batch", "slots"]
HeaderDetail = Literal["none", "basic", "all"]


@app.command()
def subscribe(
    endpoint: Annotated[str, typer.Argument(help="Results endpoint, tcp://HOST:PORT.")],
    topic: Annotated[str, typer.Option("--topic", help="result., series. or status")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after N.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Our NAME.key_secret, for an encrypted topic.")
    ] = None,
    server_key: Annotated[
        Path | None, typer.Option("--server-key", help="The server's NAME.key.")
    ] = None,
) -> None:
    """Print what a running daemon publishes.

    Example: `hitfinder-stream subscribe tcp://127.0.0.1:5557 --topic result.hit --json`
    """
    from hitfinder.workers.curve import keys_of
    from hitfinder.workers.subscribe import subscribe as print_topic

    check_endpoint(endpoint)
    try:
        print_topic(endpoint, topic, as_json=as_json, count=count, keys=keys_of(key, server_key))
    except (KeyboardInterrupt, BrokenPipeError):
        raise typer.Exit(0) from None


@app.command()
def keys(
    name: Annotated[str, typer.Argument(help="Whose: writes NAME.key and NAME.key_secret.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where to write them.")] = Path("."),
) -> None:
    """Make a pair of keys for an encrypted results topic, one for the daemon and each reader.

    The daemon's secret is `sink.results_key_file`; public keys of readers go into the folder
    `sink.results_clients`.

    Example: `hitfinder-stream keys daemon --folder /etc/hitfinder/keys`
    """
    from hitfinder.workers.curve import make_keys

    if not name.isidentifier():
        raise ConfigError(f"name {name!r}: expected letters, digits and _")
    if (folder / f"{name}.key_secret").exists():
        raise ConfigError(f"{folder}/{name}.key_secret is there already; nothing is overwritten")
    for path in make_keys(folder, name):
        print(path)


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
    rejudge: Annotated[
        bool, typer.Option("--rejudge", help="Judge kept frames again, with the stamped model.")
    ] = False,
) -> None:
    """Reconcile a run's files with its ledger, or say whether this host can run the daemon.

    Example: `hitfinder-stream check /data/run12 --repair --rejudge`
    """
    if run is None:
        from hitfinder.workers.host import check_host

        raise typer.Exit(check_host(print))
    from hitfinder.stream.check import check_run

    if not run.is_dir():
        raise ConfigError(f"run {run}: no such folder")
    report = check_run(run, repair=repair)
    print(report)
    is_same = True
    if rejudge and report.ok:
        from hitfinder.workers.rejudge import rejudge_run

        again = rejudge_run(run)
        print(again)
        is_same = again.ok
    raise typer.Exit(0 if report.ok and is_same else 1)


@app.command()
def bench(
    frames: Annotated[int, typer.Option("--frames", min=1, help="Times a stage is run.")] = 200,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="Length of each end-to-end run.")
    ] = 10.0,
    sweep: Annotated[
        Sweep | None, typer.Option("--sweep", help="Point by point over one property.")
    ] = None,
    soak_frames: Annotated[
        int | None,
        typer.Option("--soak-frames", min=100, help="Read memory over N small frames instead."),
    ] = None,
    photons_per_pixel: Annotated[
        float | None, typer.Option("--photons-per-pixel", min=1e-4, help="Mean of the water.")
    ] = None,
    hit_fraction: Annotated[
        float, typer.Option("--hit-fraction", min=0, max=1, help="Share with a crystal.")
    ] = 0.2,
    dtype: Annotated[PixelType, typer.Option("--dtype", help="Pixel type.")] = "uint16",
    decoders: Annotated[int, typer.Option("--decoders", min=1, help="Decoder threads.")] = 1,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")] = "auto",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write figures here; a sweep's or soak's picture beside it."),
    ] = None,
) -> None:
    """Measure what a frame costs on this machine, stage by stage, end to end and by process.

    Stages are timed alone, one thread. Then the whole daemon is fed as fast as it takes frames,
    and at half that rate, none of them twice; a memcpy of the same frame is timed in between, on
    the same cores. The last table takes the first run apart: each process, its stages and the
    rest (waking up, what new frames teach), in memcpys, with the page faults and the context
    switches that a frame costs.

    `--sweep` measures stages and daemon over photons a pixel (0.002 to 5), hit-fraction, spots of
    a hit (10 to 1000), dtype, decoders, batch (on a GPU) or slots of the ring, all else as given.

    `--soak-frames` sends small frames (256 x 256) in a hundred series and reads what each process
    holds: memory, files, threads. Ctrl-C ends it with what was read so far. Fewer than some
    100 000 frames show caches filling, not growth.

    Example: `hitfinder-stream bench --seconds 20 --photons-per-pixel 2 --json bench.json`

    Example: `hitfinder-stream bench --sweep photons --frames 20 --seconds 4 --json photons.json`

    Example: `hitfinder-stream bench --soak-frames 1000000 --json soak.json`
    """
    from hitfinder.workers.bench import BenchOptions
    from hitfinder.workers.bench import bench as measure
    from hitfinder.workers.bench_end_to_end import DaemonSettings
    from hitfinder.workers.bench_frames import FrameMix

    if sweep is not None and soak_frames is not None:
        raise ConfigError("--sweep and --soak-frames: give one of them")
    # The emulated detector tells of every series; here only the table is of interest.
    logging.getLogger("hitfinder.sim").setLevel(logging.WARNING)
    options = BenchOptions(
        frames=frames,
        seconds=seconds,
        mix=FrameMix(hit_fraction, photons_per_pixel, dtype),
        settings=DaemonSettings(decoders),
        sweep=sweep,
        soak_frames=soak_frames,
        device=device,
        json_file=json_file,
    )
    measure(options, to=sys.stdout)


@app.command()
def simulate(
    bind: Annotated[
        str, typer.Option("--bind", help="Endpoint to send from.")
    ] = "tcp://127.0.0.1:31001",
    protocol: Annotated[SimulatedProtocol, typer.Option("--protocol", help="Wire format.")] = "v2",
    frames: Annotated[int, typer.Option("--frames", min=1, help="Images a series.")] = 1000,
    series: Annotated[
        int, typer.Option("--series", min=0, help="Series to send; 0 for one a data set.")
    ] = 0,
    rate: Annotated[str, typer.Option("--rate", help="Images a second, or max.")] = "100",
    hit_fraction: Annotated[
        float, typer.Option("--hit-fraction", min=0, max=1, help="Share with a crystal.")
    ] = 0.2,
    dataset: Annotated[
        str, typer.Option("--dataset", help="01 to 09, or all: nine series in turn.")
    ] = "02",
    crystal_um: Annotated[
        float, typer.Option("--crystal-um", help="Crystal's edge; 10 is the fastest to draw.")
    ] = 10.0,
    divergence_mrad: Annotated[
        float, typer.Option("--divergence-mrad", min=0, help="FWHM of the beam; widens spots.")
    ] = 0.0,
    n_photons: Annotated[
        float | None, typer.Option("--n-photons", help="Photons a pulse; none for the model's.")
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", min=0, help="Factor on the crystals' photons alone.")
    ] = 1.0,
    hot_pixels: Annotated[
        int, typer.Option("--hot-pixels", min=0, help="Pixels that count without light.")
    ] = 0,
    background: Annotated[
        str,
        typer.Option("--background", help="ideal water, jitter, rings, hot, salt or ice."),
    ] = "ideal",
    dtype: Annotated[PixelType, typer.Option("--dtype", help="Pixel type.")] = "uint16",
    compression: Annotated[
        Compression, typer.Option("--compression", help="As SIMPLON calls it.")
    ] = "bslz4",
    header_detail: Annotated[
        HeaderDetail, typer.Option("--header-detail", help="all sends mask and flatfield.")
    ] = "basic",
    api: Annotated[
        str | None, typer.Option("--api", help="HOST:PORT of SIMPLON; then wait for commands.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same frames.")] = 0,
    faults: Annotated[
        str,
        typer.Option(
            "--faults",
            help="E.g. drop:0.01,reorder:8,no-end; words: drop:P duplicate:P corrupt:P truncate:P "
            "reorder:N gap:A-B late:N thief:N promise:N disconnect:N interleave:N cancel:N "
            "abort:N rearm:N initialize:N shape depth no-header no-end",
        ),
    ] = "",
    truth: Annotated[
        Path | None, typer.Option("--truth", help="Write what is true of each frame: .jsonl")
    ] = None,
    pool: Annotated[
        int, typer.Option("--pool", min=0, help="Frames drawn ahead and cycled; 0 draws each.")
    ] = 64,
) -> None:
    """Be an Eiger that sees simulated diffraction, on the wire and over SIMPLON.

    Example: `hitfinder-stream simulate --rate 50 --hit-fraction 0.3 --truth truth.jsonl`
    """
    from hitfinder.sim.faults import FaultsError
    from hitfinder.sim.simulate import Listening, SimulateError, SimulateOptions
    from hitfinder.sim.simulate import simulate as be_a_detector

    options = SimulateOptions(
        bind=bind,
        protocol=protocol,
        frames=frames,
        series=series,
        rate_Hz=_rate_Hz(rate),
        hit_fraction=hit_fraction,
        dataset=dataset,
        crystal_um=crystal_um,
        divergence_mrad=divergence_mrad,
        n_photons=n_photons,
        strength=strength,
        hot_pixels=hot_pixels,
        background=background,
        dtype=dtype,
        compression=compression,
        header_detail=header_detail,
        api=api,
        seed=seed,
        faults=faults,
        truth=truth,
        pool=pool,
    )

    def announce(at: Listening) -> None:
        api_port = f" api_port={at.api_port}" if at.api_port is not None else ""
        print(f"ready endpoint={at.endpoint}{api_port}", flush=True)

    try:
        report = be_a_detector(options, announce)
    except (SimulateError, FaultsError) as error:
        raise ConfigError(str(error)) from error
    print(
        f"{report.n_series} series, {report.n_frames} frames, {report.n_hits} hits, "
        f"{report.n_lost} messages nobody took, {len(report.faults)} faults made, "
        f"{report.wall_s:.1f} s"
    )


def _rate_Hz(text: str) -> float | None:
    """Return images a second; None for `max`."""
    if text == "max":
        return None
    try:
        rate_Hz = float(text)
    except ValueError:
        rate_Hz = 0.0
    if not 0 < rate_Hz < float("inf"):
        raise ConfigError(f"--rate: got {text!r}, expected images a second, or max")
    return rate_Hz


@app.command()
def evaluate(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for report, pictures and the scores kept.")
    ] = Path("evaluation"),
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Weights file; none for the shipped ones.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="More patterns: pattern_sim files, folders, data set trees."),
    ] = None,
    parts: Annotated[
        str, typer.Option("--parts", help="Some of the parts, commas between; all if not given.")
    ] = "",
    blanks: Annotated[int, typer.Option("--blanks", min=1, help="Of each kind.")] = 10_000,
    patterns: Annotated[int, typer.Option("--patterns", min=2, help="Most of a data set.")] = 32,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Times a pattern is shown at each strength.")
    ] = 2,
    ablation: Annotated[
        list[str] | None,
        typer.Option("--ablation", help="NAME=WEIGHTS: one more row on the same frames."),
    ] = None,
    references: Annotated[
        Path | None, typer.Option("--references", help="Folder of trained references' weights.")
    ] = None,
    subset: Annotated[
        str, typer.Option("--subset", help="Data sets that slow references see; 02,05,09.")
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="A look in minutes: few frames, wide intervals.")
    ] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, help="That draw and score.")] = 2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same frames.")] = 0,
) -> None:
    """Say how good weights are: tables and pictures of rates, S90, positions, probabilities.

    What is scored is kept in `--out`: the same command goes on where it was stopped.

    Example: `hitfinder-stream evaluate --quick --out look`

    Example: `hitfinder-stream evaluate --weights mine.safetensors --data more_patterns
    --parts gate,blanks --blanks 50000 --out report`
    """
    from rich.console import Console

    from hitfinder.workers.evaluate import evaluate as measure
    from hitfinder.workers.evaluate_options import options_of

    measure(
        options_of(
            out=out,
            weights=weights,
            data=data or [],
            parts=parts,
            n_blanks=blanks,
            n_patterns=patterns,
            repeats=repeats,
            ablation=ablation or [],
            references=references,
            subset=subset,
            is_quick=quick,
            processes=processes,
            seed=seed,
        ),
        Console(),
    )
