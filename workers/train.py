"""`hitfinder-stream train`: draw frames, fit the gate, calibrate it, write weights and card.

One rule: the shipped weights are what this command makes with its defaults; the card says with
which options and versions. Frames come from `training_frames`, the fit from `models.training`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import Progress

from hitfinder import __version__
from hitfinder.models import training, weights
from hitfinder.models.gate import GateMode
from hitfinder.models.training import Curves, LabelledFrames
from hitfinder.workers import training_frames
from hitfinder.workers.training_frames import Drawn, Part, TrainingFrames

CHUNK = 20
"""Frames a task: about a second."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What to train and how.

    Attributes:
        out: weights file to write; card and curves go beside it.
        n_train: pairs of frames to fit.
        n_calibrate: pairs for probabilities.
        n_validate: pairs to decide whether the network helps.
        n_blanks: blanks for the thresholds; a rate r needs more than 1 / r of them.
        seed: of everything.
        processes: that draw frames.
    """

    out: Path
    n_train: int = 3000
    n_calibrate: int = 600
    n_validate: int = 1200
    n_blanks: int = 8000
    seed: int = 1
    processes: int = 2


def train(options: TrainOptions) -> Path:
    """Train, calibrate, write; returns the weights' path. About 5 minutes on 2 cores."""
    drawn = _draw_all(options)
    frames = {part: _labelled(drawn[part]) for part in Part}
    net, curves = training.train(frames[Part.TRAIN], frames[Part.VALIDATE], options.seed)
    # What a lone hot pixel is depends on the detector's mask, so spots are learned without.
    clean = [d for d in drawn[Part.CALIBRATE] if not d.has_hot_pixels]
    calibration = training.calibrate(
        net,
        frames[Part.CALIBRATE],
        frames[Part.BLANKS],
        np.concatenate([d.spot_terms for d in clean]),
        np.concatenate([d.is_spot for d in clean]),
    )
    card = _card(options, curves, [len(s) for s in calibration.blank_scores])
    path = weights.save(options.out, net, calibration, weights.load_water(), card)
    _draw_curves(curves, path.with_suffix(".png"))
    return path


def _draw_all(options: TrainOptions) -> dict[Part, list[Drawn]]:
    """Draw every part's frames in parallel; their order and content do not depend on it."""
    wanted = {
        Part.TRAIN: options.n_train,
        Part.CALIBRATE: options.n_calibrate,
        Part.VALIDATE: options.n_validate,
        Part.BLANKS: options.n_blanks,
    }
    tasks = [
        (options.seed, part, range(first, min(first + CHUNK, n)))
        for part, n in wanted.items()
        for first in range(0, n, CHUNK)
    ]
    drawn: dict[Part, list[Drawn]] = {part: [] for part in Part}
    spawn = multiprocessing.get_context("spawn")
    with Progress() as progress, ProcessPoolExecutor(options.processes, spawn) as pool:
        bar = progress.add_task("drawing frames", total=len(tasks))
        for (_, part, _), chunk in zip(tasks, pool.map(_draw_chunk, tasks), strict=True):
            drawn[part] += chunk
            progress.advance(bar)
    return drawn


class _Source:
    """The frames of this process, made at the first task; one a process, not one a task."""

    frames: TrainingFrames | None = None


def _draw_chunk(task: tuple[int, Part, range]) -> list[Drawn]:
    seed, part, numbers = task
    torch.set_num_threads(1)
    if _Source.frames is None or _Source.frames.seed != seed:
        _Source.frames = TrainingFrames(seed)
    return list(_draw_each(_Source.frames, part, numbers))


def _draw_each(frames: TrainingFrames, part: Part, numbers: Sequence[int]) -> Iterator[Drawn]:
    for number in numbers:
        yield from frames.draw(part, number)


def _labelled(drawn: Sequence[Drawn]) -> LabelledFrames:
    return LabelledFrames(
        features=np.stack([d.features for d in drawn]),
        is_hit=np.array([d.is_hit for d in drawn]),
        has_3_spots=np.array([d.has_3_spots for d in drawn]),
        has_hot_pixels=np.array([d.has_hot_pixels for d in drawn]),
    )


def _card(options: TrainOptions, curves: Curves, n_blanks: Sequence[int]) -> dict[str, Any]:
    made = {k: v for k, v in asdict(options).items() if k != "out"}
    drawn = "FLUX STRENGTH SPOT_SIGMA_PX SHARP_FRACTION THICKNESS_JITTER CENTER_JITTER_PX".split()
    drawn += "HOT_FRACTION HOT_PIXELS HOT_PHOTONS".split()
    return {
        "name": options.out.stem,
        "made_by": "hitfinder-stream train",
        "version": __version__,
        "torch": torch.__version__,
        "options": made,
        "input": "photons per pixel, uint8/16/32 (ss, fs); largest value of the type is no count",
        "method": "multi-scale Poisson scan on 4 x 4 pooled maps, learned correction, conformal "
        "thresholds; physics likelihood for energy and clen",
        "training_data": {
            "patterns": "8 shipped pattern_sim orientations of 1IC6 (10 um) in each of 9 data "
            "sets, mirrored at random: 5 train, 1 calibrates, 2 validate",
            **{name.lower(): getattr(training_frames, name) for name in drawn},
        },
        "calibration": {
            "probability": "half of the frames hold a crystal, strengths as in training_data",
            **{f"blanks_{m}": n for m, n in zip(GateMode, n_blanks, strict=True)},
            "blanks_have": "the jitters above; hot pixels only for spots3",
        },
        "validation_mean_tpr_at_fpr_1e-3_to_1e-2": {
            "scan": dict(zip(GateMode, curves.scan_tpr, strict=True)),
            "network": dict(zip(GateMode, curves.network_tpr, strict=True)),
            "rule": "a correction no better than the scan is set to zero",
        },
        "limits": "one protein, one crystal size scaled in strength; no ice or salt rings, no "
        "charge sharing; energy and clen need a background that is water",
    }


def _draw_curves(curves: Curves, path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(curves.step, curves.train_loss, label="train")
    axes.plot(curves.step, curves.validation_loss, label="validation (other patterns)")
    axes.set(xlabel="step", ylabel="binary cross entropy", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=100)
