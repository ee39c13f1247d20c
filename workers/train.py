"""`hitfinder-stream train`: draw frames, fit the gate, calibrate it, write weights and card.

One rule: the shipped weights are what this command makes from its committed configuration; the
card says which. What is made on the way is kept beside the weights in a `.training` folder, which
may be removed afterwards, so a training that was stopped goes on with `--resume`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import MofNCompleteColumn, Progress

from hitfinder import __version__
from hitfinder.models import weights
from hitfinder.models.calibrating import calibrate
from hitfinder.models.calibration import Calibration, GateMode, sigmoid
from hitfinder.models.labelled_frames import LabelledFrames
from hitfinder.models.training import Epoch, Fitted, fit, logits_of
from hitfinder.models.weights import Weights
from hitfinder.sim.physics import Detector
from hitfinder.workers import training_settings
from hitfinder.workers.train_config import TrainConfig
from hitfinder.workers.training_frames import Part
from hitfinder.workers.training_heads import HeadsMeasured, measure_heads
from hitfinder.workers.training_pictures import draw_confusions, draw_curves
from hitfinder.workers.training_settings import Kind
from hitfinder.workers.training_store import (
    Chunk,
    Recipe,
    chunks_of,
    draw_missing,
    forget,
    read_chunks,
)

SHOWN_RATE = 1e-3
"""False-positive rate of the confusion matrices, or the smallest that the blanks can tell."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What to train and where.

    Attributes:
        out: weights file to write; card, pictures and the training's folder go beside it.
        config: how; all of it stands in the card.
        patterns: file or data set tree whose patterns to show; None for the generator's.
        is_resumed: go on from what an earlier training left.
        device: that fits the network; frames are always drawn on the CPU.
        processes: that draw frames.
        detector: the array.
    """

    out: Path
    config: TrainConfig = field(default_factory=TrainConfig)
    patterns: Path | None = None
    is_resumed: bool = False
    device: str = "cpu"
    processes: int = 2
    detector: Detector = field(default_factory=Detector)

    @property
    def folder(self) -> Path:
        """Where drawn frames and the checkpoint are kept."""
        return self.out.with_suffix(".training")


def train(options: TrainOptions) -> Path:
    """Train, calibrate, measure, write; returns the weights' path.

    Raises:
        ModelError: nothing to go on from, or frames that cannot be told from each other.
        SimulationError: patterns that cannot be read.
    """
    frames_at, checkpoint = options.folder / "frames", options.folder / "checkpoint.safetensors"
    if not options.is_resumed:
        forget(frames_at)
        checkpoint.unlink(missing_ok=True)
    config, seed = options.config, options.config.train.seed
    parts, kinds = _wanted(config)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        wanted = [chunk for part in (parts, kinds) for chunks in part.values() for chunk in chunks]
        bar = progress.add_task("drawing frames", total=len(wanted))
        recipe = Recipe(seed, options.patterns, options.detector, config.frames.made_up_crystals)
        draw_missing(frames_at, recipe, wanted, options.processes, lambda: progress.advance(bar))
        frames = {part: read_chunks(frames_at, chunks) for part, chunks in parts.items()}
        blanks = {kind: read_chunks(frames_at, chunks) for kind, chunks in kinds.items()}

        bar = progress.add_task("epochs", total=config.gate_options().epochs)

        def show(number: int, epoch: Epoch) -> None:
            told = f"epoch {number}: loss {epoch.test_loss:.3f}, tail TPR {epoch.tail_tpr[0]:.3f}"
            progress.update(bar, completed=number + 1, description=told)

        fitted = fit(
            frames[Part.TRAIN],
            frames[Part.TEST],
            config.gate_options(),
            options.device,
            checkpoint,
            show,
        )
        calibration = calibrate(fitted.net, frames[Part.CALIBRATE], list(blanks.values()))
        water = weights.load_water()
        made = Weights(fitted.net.arrays(), calibration, water, "in training", {})
        n_head_frames = config.frames.head_frames
        bar = progress.add_task("measuring heads", total=2 * n_head_frames)
        heads = measure_heads(
            made, n_head_frames, seed, options.detector, lambda: progress.advance(bar)
        )
    card = _card(options, fitted, calibration, heads, blanks)
    path = weights.save(options.out, fitted.net.arrays(), calibration, water, card)
    draw_curves(fitted, path.with_name(f"{path.stem}_curves.png"))
    _draw_matrices(fitted, calibration, frames[Part.TEST], heads, path)
    return path


def _wanted(config: TrainConfig) -> tuple[dict[Part, list[Chunk]], dict[Kind, list[Chunk]]]:
    n_test = max(1, round(config.frames.test_fraction * config.frames.pairs))
    n_pairs = {
        Part.TRAIN: config.frames.pairs - n_test,
        Part.TEST: n_test,
        Part.CALIBRATE: config.frames.calibration_pairs,
    }
    parts = {part: chunks_of(part, None, n) for part, n in n_pairs.items()}
    n_blanks = config.frames.blanks
    kinds = {kind: chunks_of(Part.BLANKS, kind, n_blanks) for kind in training_settings.BLANKS}
    return parts, kinds


def _confusion(
    scores: NDArray[np.float64], threshold: float, label: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return counts, true (blank, hit) down, judged across."""
    judged = sigmoid(scores) > threshold
    cells = [
        [np.sum(label == t) - np.sum(judged & (label == t)), np.sum(judged & (label == t))]
        for t in (False, True)
    ]
    return np.array(cells, np.int64)


def _shown_threshold(calibration: Calibration, k: int) -> tuple[float, float]:
    rate = max(SHOWN_RATE, 1.5 / (len(calibration.blank_scores[k]) + 1))
    return rate, calibration.threshold(list(GateMode)[k], rate)


def _draw_matrices(
    fitted: Fitted,
    calibration: Calibration,
    test: LabelledFrames,
    heads: HeadsMeasured,
    path: Path,
) -> None:
    """Draw the gate's matrices on the test part, at the threshold, and the heads'."""
    scores_B2 = calibration.scores(logits_of(fitted.net, test)[0])
    labels_B2, used_B2 = test.labels_B2() > 0.5, test.weights_B2() > 0
    matrices: dict[str, NDArray[np.int64]] = {}
    ticks: dict[str, tuple[str, ...]] = {}
    for k, mode in enumerate(GateMode):
        rate, threshold = _shown_threshold(calibration, k)
        title, used = f"{mode}, rate {rate:.2g}", used_B2[:, k]
        matrices[title] = _confusion(scores_B2[used, k], threshold, labels_B2[used, k])
        ticks[title] = ("blank", "hit")
    for title, counts, names in (
        ("photon energy, keV", heads.energy_matrix, ("6", "7", "8")),
        ("camera length, m", heads.clen_matrix, ("0.15", "0.25", "0.35")),
    ):
        matrices[title], ticks[title] = counts, names
    draw_confusions(matrices, ticks, path.with_name(f"{path.stem}_confusion.png"))


def _by_mode(rates: tuple[float, float]) -> dict[str, float]:
    return {str(mode): round(rate, 4) for mode, rate in zip(GateMode, rates, strict=True)}


def _card(
    options: TrainOptions,
    fitted: Fitted,
    calibration: Calibration,
    heads: HeadsMeasured,
    blanks: Mapping[Kind, LabelledFrames],
) -> dict[str, Any]:
    drawn = [name for name in dir(training_settings) if name.isupper()]
    return {
        "name": options.out.stem,
        "made_by": "hitfinder-stream train",
        "command": f"hitfinder-stream train --out {options.out.name}",
        "version": __version__,
        "torch": torch.__version__,
        "config": options.config.as_plain(),
        "input": "photons per pixel, uint8/16/32 (ss, fs); a type's largest value is no count",
        "method": "multi-scale Poisson scan on 4 x 4 pooled maps, matched likelihood ratios at "
        "full resolution, learned correction, conformal thresholds; physics likelihood for energy "
        "and clen",
        "training_data": {
            "patterns": "a new orientation of the generator in each hit"
            if options.patterns is None
            else f"of {options.patterns.name}, 80 % of them to train",
            "split": "by orientation; a hit and its twin are never apart",
            "settings": {n.lower(): repr(getattr(training_settings, n)) for n in drawn},
        },
        "training": {
            "epochs": len(fitted.epochs),
            "best_epoch": fitted.best_epoch,
            "learned_and_kept": list(fitted.kept),
            "test_mean_tpr_at_fpr_1e-3_to_1e-2": {
                "bare": _by_mode(fitted.bare_tpr),
                "shipped": _by_mode(fitted.shipped_tpr),
            },
            "rule": "a correction that does not beat the bare statistic is set to zero; the test "
            "part also chose the epoch, so its rates flatter by that choice",
        },
        "calibration": {
            "probability": "half of the frames hold a crystal; no salt, no streak, no hot pixels",
            "blanks": {str(kind): len(frames) for kind, frames in blanks.items()},
            "rule": "a rate holds for each kind of blank by itself; salt counts for spots3 only; "
            "hot pixels stay through a series, which learns them from its first frame on",
            **{
                f"table_{m}": len(s)
                for m, s in zip(GateMode, calibration.blank_scores, strict=True)
            },
        },
        "heads": {
            "fitted": "nothing: likelihoods of the physics",
            "coverage": heads.coverage(),
            "frames": len(heads.energy_z),
        },
        "limits": "streaks and ice set no threshold; no charge sharing; energy and clen need a "
        "background that is water",
    }
