"""The sub-command `train`: its options, and which of its two ways they ask for.

One rule: `--calibrate` needs blanks and weights and draws nothing; without it nothing of an
operator's is read but `--data` and `--config`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hitfinder.workers.cli_app import app
from hitfinder.workers.config import ConfigError


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", help="Weights to write, a .safetensors file.")],
    blanks: Annotated[
        list[Path] | None,
        typer.Argument(help="With --calibrate: recordings of blanks, whatever replay reads."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML; see deploy/train.example.toml.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Data set tree or pattern files to take patterns from."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from what is there.")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that draw frames.")
    ] = 2,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Instead of train.seed of the config.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Only redo the thresholds, from BLANKS.")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="With --calibrate: weights; else shipped.")
    ] = None,
    max_false_positive_rate: Annotated[
        float,
        typer.Option("--max-false-positive-rate", help="With --calibrate: rate to be told."),
    ] = 1e-3,
) -> None:
    """Train the gate on simulated pairs, or redo its thresholds on your own blanks.

    Example: `hitfinder-stream train --out mine.safetensors --config train.toml --processes 8`

    Example: `hitfinder-stream train --calibrate run7_blanks.h5 --out at_beamline.safetensors`
    """
    if out.suffix != ".safetensors":
        raise ConfigError(f"--out: got {out}, expected a name that ends in .safetensors")
    if calibrate:
        _recalibrate(out, blanks or [], weights, device, max_false_positive_rate)
        return
    if blanks or weights is not None:
        raise ConfigError("BLANKS and --weights are for --calibrate; give it too, or neither")
    from hitfinder.workers.train import TrainOptions
    from hitfinder.workers.train import train as make_weights
    from hitfinder.workers.train_config import read_train_config

    tree = read_train_config(config)
    if seed is not None:
        tree.train.seed = seed
    options = TrainOptions(
        out=out,
        config=tree,
        patterns=data,
        is_resumed=resume,
        device=device,
        processes=processes,
    )
    print(f"written {make_weights(options)}; card, curves and confusion matrices beside it")


def _recalibrate(
    out: Path, blanks: list[Path], weights: Path | None, device: str, rate: float
) -> None:
    from hitfinder.workers.recalibration import RecalibrateOptions, recalibrate

    if not blanks:
        raise ConfigError("--calibrate: no BLANKS given; name recordings of frames without hits")
    if not 0 < rate < 1:
        raise ConfigError(f"--max-false-positive-rate: got {rate}, expected above 0, below 1")
    done = recalibrate(RecalibrateOptions(out, tuple(blanks), weights, device, rate))
    for warning in done.warnings:
        print(f"warning: {warning}")
    print(f"written {done.path}: thresholds of {done.n_blanks} blanks, card beside it")
