"""`python -m hitfinder.workers.train_references`: fit the references beside the gate.

One rule: every network by the report's recipe on the same drawn frames; the card says with how
many, how long, and what came out on frames kept aside. The defaults are a reduced recipe: about
a quarter of an hour of one core. On a CPU the allocator costs half of the time; with glibc
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 in the environment it does not.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.progress import Progress
from torch import nn
from torch.nn import functional

from hitfinder import __version__
from hitfinder.models.references import stored
from hitfinder.models.references.classifiers import CLASSIFIERS
from hitfinder.models.references.fitting import Epoch, Examples, Loss, Recipe, fit, n_steps
from hitfinder.models.references.heatmap import HEATMAP
from hitfinder.models.references.linear_heads import LINEAR_HEADS, LinearHeads
from hitfinder.models.references.trained import build
from hitfinder.sim.physics import PULSE_PHOTONS, Detector, data_sets
from hitfinder.workers import reference_frames
from hitfinder.workers.reference_frames import (
    Crops,
    DataSets,
    Pairs,
    ReferenceFrames,
    Shot,
    WholeFrames,
)

NETWORKS = (*CLASSIFIERS, HEATMAP, LINEAR_HEADS)
TEST_SHARE = 0.2
PEAK_WEIGHT = 100.0
"""Class weight of a peak pixel: one pixel in 1e5 of a frame, one in 1e3 of the cut-outs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a network takes of the frames drawn, and its recipe.

    Attributes:
        share: of the pairs; what costs seconds a frame sees fewer.
        batch, learning_rate: as in `Recipe`; a pair is one example of a classifier.
    """

    share: float
    batch: int
    learning_rate: float


PLANS = {
    "gate_cnn": Plan(0.08, 1, 3e-4),
    "one_convolution": Plan(0.08, 1, 3e-4),
    "small_resnet": Plan(0.25, 2, 1e-3),
    "dual_input": Plan(0.04, 1, 3e-4),
    HEATMAP: Plan(0.25, 4, 1e-3),
    LINEAR_HEADS: Plan(1.0, 8, 1e-2),
}


@dataclass(frozen=True, slots=True)
class ReferenceOptions:
    """What to train and how long.

    Attributes:
        out: folder of the weights, their cards and the curves.
        pairs: blank and hit, drawn for all networks together.
        held_out: further pairs that judge them.
        epochs: passes of each network over its frames.
        seed: of everything.
        networks: which.
        device: "cpu", "cuda" or "cuda:N".
    """

    out: Path
    pairs: int = 300
    held_out: int = 24
    epochs: int = 3
    seed: int = 1
    networks: tuple[str, ...] = NETWORKS
    device: str = "cpu"


def train_references(options: ReferenceOptions, detector: Detector | None = None) -> None:
    """Draw frames, fit the networks one by one, write each when it is done."""
    frames = ReferenceFrames(options.seed, detector)
    curves: dict[str, list[Epoch]] = {}
    with Progress() as progress:
        n_pairs = options.pairs + options.held_out
        bar = progress.add_task("drawing frames", total=n_pairs)
        shots: list[Shot] = []
        for number in range(n_pairs):
            shots += frames.pair(number)
            progress.advance(bar)
        held_out = shots[2 * options.pairs :]
        for name in options.networks:
            task = _Task(name, shots[: 2 * options.pairs], frames.detector.shape, options)
            bar = progress.add_task(name, total=task.n_steps())
            curves[name] = task.fit(partial(progress.advance, bar))
            judged = task.judge(held_out)
            stored.save(options.out, name, task.net, task.card(curves[name], judged))
            progress.console.print(f"{name}: {json.dumps(judged)}")
    _draw_curves(curves, options.out / "curves.png")


class _Task:
    """One network with the examples made of its share of the frames."""

    def __init__(
        self, name: str, shots: Sequence[Shot], shape: tuple[int, int], options: ReferenceOptions
    ) -> None:
        plan = PLANS[name]
        self.name, self.shape, self.options = name, shape, options
        self.recipe = Recipe(options.epochs, plan.batch, plan.learning_rate)
        torch.manual_seed(options.seed)
        made = LinearHeads(shape) if name == LINEAR_HEADS else build(name, shape)
        self.net: nn.Module = made.to(options.device)
        self.n_pairs = max(round(plan.share * len(shots) / 2), 2)
        n_test = max(round(TEST_SHARE * self.n_pairs), 1)
        first_test = 2 * (self.n_pairs - n_test)
        self._train = self._examples(shots[:first_test])
        self._test = self._examples(shots[first_test : 2 * self.n_pairs])

    def n_steps(self) -> int:
        return n_steps(self._train, self._test, self.recipe)

    def fit(self, on_step: Callable[[], None]) -> list[Epoch]:
        loss = _LOSSES.get(self.name, functional.binary_cross_entropy_with_logits)
        seed = self.options.seed
        return fit(self.net, self._train, self._test, loss, self.recipe, seed, on_step)

    def _examples(self, shots: Sequence[Shot]) -> Examples:
        if self.name == LINEAR_HEADS:
            return DataSets(shots, self.shape)
        if self.name == HEATMAP:
            return Crops([s for s in shots if s.is_hit], self.shape, self.options.seed)
        return Pairs(shots, self.shape, CLASSIFIERS[self.name].n_channels)

    def judge(self, shots: Sequence[Shot]) -> dict[str, Any]:
        """Return what the network makes of frames kept aside."""
        self.net.to("cpu").eval()
        if self.name == LINEAR_HEADS:
            return self._accuracy(shots)
        channels = CLASSIFIERS[self.name].n_channels if self.name != HEATMAP else 1
        frames = WholeFrames(shots, self.shape, channels)
        with torch.inference_mode():
            scores = [float(self.net(frames.batch([k])[0]).max()) for k in range(len(frames))]
        blank, hit = np.array(scores[::2]), np.array(scores[1::2])
        wins = (hit[:, None] > blank).mean() + 0.5 * (hit[:, None] == blank).mean()
        return {
            "pairs": len(hit),
            "auc": round(float(wins), 3),
            "tpr_above_every_blank": round(float((hit > blank.max()).mean()), 3),
        }

    def _accuracy(self, shots: Sequence[Shot]) -> dict[str, Any]:
        examples = DataSets(shots, self.shape)
        right: dict[str, list[tuple[bool, bool]]] = {name: [] for name in data_sets()}
        with torch.inference_mode():
            for k, shot in enumerate(shots):
                counts, classes = examples.batch([k])
                same = (self.net(counts).argmax(2) == classes)[0].tolist()
                right[list(right)[shot.data_set]].append((same[0], same[1]))
        everything = np.array([row for rows in right.values() for row in rows])
        return {
            "frames": len(shots),
            "energy": round(float(everything[:, 0].mean()), 3),
            "clen": round(float(everything[:, 1].mean()), 3),
            "both": {
                name: f"{sum(e and c for e, c in rows)} of {len(rows)}"
                for name, rows in right.items()
            },
        }

    def card(self, curves: Sequence[Epoch], judged: dict[str, Any]) -> dict[str, Any]:
        names = "STRENGTH DIVERGENCE_MRAD THICKNESS_JITTER CENTER_JITTER_PX".split()
        return {
            "made_by": "python -m hitfinder.workers.train_references",
            "version": __version__,
            "torch": torch.__version__,
            "shape": list(self.shape),
            "input": "photons; 0 in gaps and where the type's largest value stands",
            "options": {
                "pairs": self.options.pairs,
                "epochs": self.options.epochs,
                "seed": self.options.seed,
                "device": self.options.device,
            },
            "frames": {
                "pairs_train_and_test": self.n_pairs,
                "patterns": "generator, 1IC6, 10 um, a new orientation each; nine data sets",
                "photons": PULSE_PHOTONS,
                **{name.lower(): getattr(reference_frames, name) for name in names},
            },
            "recipe": {
                **asdict(self.recipe),
                "optimiser": "Adam, ReduceLROnPlateau (factor 0.1), classes even by pairs",
                "split": "80 / 20 by pattern",
                "mixed_precision": self.options.device.startswith("cuda"),
                "wide_linear_layers": "learn at the rate over the root of their inputs",
                "reduced": "hundreds of frames and a few epochs, not the report's thousands",
            },
            "epochs": [asdict(epoch) for epoch in curves],
            "held_out": judged,
        }


def _heatmap_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weight = torch.tensor(PEAK_WEIGHT, device=logits.device)
    return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)


def _class_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), classes.flatten())


_LOSSES: dict[str, Loss] = {HEATMAP: _heatmap_loss, LINEAR_HEADS: _class_loss}


def _draw_curves(curves: dict[str, list[Epoch]], path: Path) -> None:
    figure = Figure(figsize=(3.2 * len(curves), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, rows) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        number = range(1, len(rows) + 1)
        axes.plot(number, [row.train_loss for row in rows], "o-", label="train")
        axes.plot(number, [row.test_loss for row in rows], "s-", label="test")
        axes.set(title=name.replace("_", " "), xlabel="epoch", ylabel="loss")
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run the command."""
    shown = argparse.ArgumentParser(description=__doc__, prog="train_references")
    defaults = ReferenceOptions(Path())
    shown.add_argument("--out", type=Path, required=True, help="folder of the weights")
    shown.add_argument("--pairs", type=int, default=defaults.pairs)
    shown.add_argument("--held-out", type=int, default=defaults.held_out, help="pairs")
    shown.add_argument("--epochs", type=int, default=defaults.epochs)
    shown.add_argument("--seed", type=int, default=defaults.seed)
    shown.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    shown.add_argument("--device", default=defaults.device)
    given = vars(shown.parse_args())
    train_references(ReferenceOptions(**given | {"networks": tuple(given["networks"])}))


if __name__ == "__main__":
    main()
