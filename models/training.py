"""Training of the gate: labelled frames in, a network and its curves out.

One rule: what is learned is kept only where it beats the bare statistic on frames of other
orientations, at false-positive rates that matter. Every epoch is a function of the options, the
frames and the epoch before, so a training that was stopped goes on to the same weights.

Suffixes: B batch, K places.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from hitfinder.models.ablation import Evidence, take_away
from hitfinder.models.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from hitfinder.models.errors import ModelError
from hitfinder.models.gate import GateNet
from hitfinder.models.labelled_frames import LabelledFrames

TAIL_RATES = (1e-3, 1e-2)
MIN_GAIN = 0.003
"""Sum of both outputs' rates by which a correction must win; less is chance."""
SCORED_AT_ONCE = 4096
"""Frames; bounds the memory of a pass without gradients."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit.

    Attributes:
        seed: of the network's first values and of every epoch's order.
        epochs: passes over the frames; more may be asked for when a training goes on.
        batch: frames a step.
        learning_rate, weight_decay: of AdamW at the start.
        plateau_epochs, plateau_factor: the rate shrinks by the factor after so many epochs
            without a smaller loss on the test part.
        precision: "bfloat16" computes products in it; weights and loss stay float32.
        is_paired: a hit and its twin stand in the same batch.
        positive_weight: (any, spots3) of hits in the loss; None balances the classes.
        spot_weight: of the places' loss beside the frames'.
        without: evidence the gate must do without (ablation).
    """

    seed: int = 1
    epochs: int = 40
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    plateau_epochs: int = 4
    plateau_factor: float = 0.5
    precision: str = "float32"
    is_paired: bool = True
    positive_weight: tuple[float | None, float | None] = (None, None)
    spot_weight: float = 0.3
    without: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of the curves.

    Attributes:
        train_loss, test_loss: frames' and places' cross entropy as it was minimised.
        tail_tpr: (any, spots3) on the test part, mean true-positive rate at `TAIL_RATES`.
        learning_rate: during this epoch.
    """

    train_loss: float
    test_loss: float
    tail_tpr: tuple[float, float]
    learning_rate: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What a training made.

    Attributes:
        net: the network as shipped, in evaluation mode, on the CPU.
        epochs: the curves.
        best_epoch: the one whose network was taken.
        bare_tpr: (any, spots3) on the test part of the statistic without anything learned.
        shipped_tpr: the same of `net`.
        kept: branches whose learned correction is in `net`.
    """

    net: GateNet
    epochs: tuple[Epoch, ...]
    best_epoch: int
    bare_tpr: tuple[float, float]
    shipped_tpr: tuple[float, float]
    kept: tuple[str, ...]


def fit(
    train: LabelledFrames,
    test: LabelledFrames,
    options: FitOptions,
    device: str = "cpu",
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, Epoch], None] = lambda _number, _epoch: None,
) -> Fitted:
    """Fit a gate; the same frames and options give the same weights on one machine.

    Args:
        train: frames to learn from.
        test: frames of other orientations: they choose the epoch and what is kept.
        device: "cpu", "cuda" or "cuda:N".
        checkpoint: written after every epoch; if it is there, the training goes on from it.
        on_epoch: called after every epoch with its number, from 0.

    Raises:
        ModelError: no such device, or the checkpoint is of other frames or options.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r}: no CUDA device is visible; use cpu")
    if not len(train) or not len(test):
        raise ModelError(f"{len(train)} frames to train, {len(test)} to test; expected some")
    course = _Course(train, test, options, device)
    if checkpoint is not None and checkpoint.is_file():
        course.restore(read_checkpoint(checkpoint))
    while len(course.epochs) < options.epochs:
        course.run_epoch()
        if checkpoint is not None:
            write_checkpoint(checkpoint, course.state())
        on_epoch(len(course.epochs) - 1, course.epochs[-1])
    return course.finish()


class _Gate(nn.Module):
    """The network and an offset per output, which takes up how far the classes are off balance.

    Calibration replaces the offsets, so they are not shipped.
    """

    def __init__(self, without: tuple[Evidence, ...]) -> None:
        super().__init__()
        self.net = GateNet()
        take_away(self.net, without)
        self.offset = nn.Parameter(torch.zeros(3))

    def forward(self, places_BKF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits_B2, spot_BK = self.net(places_BKF)
        return logits_B2 + self.offset[:2], spot_BK + self.offset[2]


class _Frames:
    """One part on the device."""

    def __init__(self, frames: LabelledFrames, device: str) -> None:
        self.pair = frames.pair
        self.places_BKF = torch.from_numpy(frames.places_BKF).to(device)
        self.labels_B2 = torch.from_numpy(frames.labels_B2()).to(device)
        self.weights_B2 = torch.from_numpy(frames.weights_B2()).to(device)
        self.spot_BK = torch.from_numpy(frames.spot_label_BK).to(device)

    def batches(self, rng: np.random.Generator, options: FitOptions) -> Iterator[torch.Tensor]:
        """Yield the indices of each batch of an epoch; twins are neighbours if paired."""
        order = rng.permutation(len(self.pair))
        if options.is_paired:
            _, pair = np.unique(self.pair, return_inverse=True)
            turn = rng.permutation(int(pair.max()) + 1)
            order = np.argsort(turn[pair], kind="stable")
        for first in range(0, len(order), options.batch):
            yield torch.from_numpy(order[first : first + options.batch])


class _Course:
    """A training under way: everything that one epoch hands to the next."""

    def __init__(
        self, train: LabelledFrames, test: LabelledFrames, options: FitOptions, device: str
    ) -> None:
        self._options, self._device = options, device
        self._train, self._test = _Frames(train, device), _Frames(test, device)
        self._test_frames = test
        self._digest = _digest(train, test, options)
        torch.manual_seed(options.seed)
        self._gate = _Gate(options.without).to(device)
        self._optimiser = torch.optim.AdamW(
            self._gate.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimiser, factor=options.plateau_factor, patience=options.plateau_epochs
        )
        self._positive_2 = _positive_weight(train, options).to(device)
        self._bare_tpr = tail_tprs(self._gate.net, test)
        self._best = {k: v.clone() for k, v in self._gate.net.state_dict().items()}
        self._best_epoch, self._best_tpr = -1, -1.0
        self.epochs: list[Epoch] = []

    def run_epoch(self) -> None:
        """Learn from every frame once, then look at the test part."""
        rng = np.random.default_rng((self._options.seed, len(self.epochs)))
        rate = float(self._optimiser.param_groups[0]["lr"])
        total, n_seen = 0.0, 0
        self._gate.train()
        for batch in self._train.batches(rng, self._options):
            self._optimiser.zero_grad()
            loss = self._loss(self._train, batch.to(self._device))
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total, n_seen = total + float(loss.detach()) * len(batch), n_seen + len(batch)
        self._gate.eval()
        with torch.no_grad():
            everything = torch.arange(len(self._test.pair), device=self._device)
            test_loss = float(self._loss(self._test, everything))
        self._plateau.step(test_loss)
        tpr = tail_tprs(self._gate.net, self._test_frames)
        self.epochs.append(Epoch(total / n_seen, test_loss, tpr, rate))
        if sum(tpr) > self._best_tpr:
            self._best = {k: v.clone() for k, v in self._gate.net.state_dict().items()}
            self._best_epoch, self._best_tpr = len(self.epochs) - 1, sum(tpr)

    def _loss(self, part: _Frames, batch: torch.Tensor) -> torch.Tensor:
        kind, low = torch.device(self._device).type, self._options.precision == "bfloat16"
        with torch.autocast(kind, torch.bfloat16, enabled=low):
            logits_B2, spot_BK = self._gate(part.places_BKF[batch])
        weights_B2, labels_BK = part.weights_B2[batch], part.spot_BK[batch]
        each_B2 = binary_cross_entropy_with_logits(
            logits_B2.float(),
            part.labels_B2[batch],
            weights_B2,
            pos_weight=self._positive_2,
            reduction="sum",
        )
        # A decoy looks like a spot: taught that it is none, the gate would distrust weak spots.
        known = (labels_BK >= 0) & (weights_B2[:, :1] > 0)
        each_spot = binary_cross_entropy_with_logits(
            spot_BK.float()[known], labels_BK[known].float(), reduction="sum"
        )
        frames = each_B2 / weights_B2.sum().clamp(min=1)
        return frames + self._options.spot_weight * each_spot / known.sum().clamp(min=1)

    def finish(self) -> Fitted:
        """Return the best epoch's network with what helps."""
        net = GateNet()
        net.load_state_dict({k: v.cpu() for k, v in self._best.items()})
        net.eval()
        kept = _keep_what_helps(net, self._test_frames, self._bare_tpr)
        shipped = tail_tprs(net, self._test_frames)
        return Fitted(net, tuple(self.epochs), self._best_epoch, self._bare_tpr, shipped, kept)

    def state(self) -> Checkpoint:
        """Return all that the next epoch depends on."""
        arrays = {f"gate.{k}": v for k, v in self._gate.state_dict().items()}
        arrays |= {f"best.{k}": v for k, v in self._best.items()}
        optimiser = self._optimiser.state_dict()
        for number, of_parameter in optimiser["state"].items():
            arrays |= {f"optimiser.{number}.{k}": v for k, v in of_parameter.items()}
        values = {
            "digest": self._digest,
            "groups": optimiser["param_groups"],
            "plateau": self._plateau.state_dict(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "best": [self._best_epoch, self._best_tpr],
        }
        return Checkpoint({k: v.cpu() for k, v in arrays.items()}, values)

    def restore(self, kept: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            ModelError: it is of other frames or options.
        """
        if kept.values.get("digest") != self._digest:
            raise ModelError(
                "the checkpoint is of other frames or options; train without --resume, or with "
                "the configuration it was begun with"
            )
        self._gate.load_state_dict(kept.under("gate."))
        self._best = kept.under("best.")
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, array in kept.under("optimiser.").items():
            number, _, column = name.partition(".")
            state.setdefault(int(number), {})[column] = array
        self._optimiser.load_state_dict({"state": state, "param_groups": kept.values["groups"]})
        self._plateau.load_state_dict(kept.values["plateau"])
        self.epochs = [_epoch(row) for row in kept.values["epochs"]]
        self._best_epoch, self._best_tpr = kept.values["best"]


def logits_of(
    net: GateNet, frames: LabelledFrames
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return logits_B2 and spot_logits_BK, computed in float32 where the network is."""
    device = next(net.parameters()).device
    parts = []
    with torch.inference_mode():
        for first in range(0, len(frames), SCORED_AT_ONCE):
            places_BKF = torch.from_numpy(frames.places_BKF[first : first + SCORED_AT_ONCE])
            parts.append([t.cpu().numpy() for t in net(places_BKF.to(device))])
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def tail_tpr(blank: NDArray[np.floating], hit: NDArray[np.floating]) -> float:
    """Return the mean share of hits above the thresholds of `TAIL_RATES` and between."""
    thresholds = np.quantile(blank, 1 - np.geomspace(*TAIL_RATES, 10))
    return float(np.mean(hit[:, None] > thresholds))


def tail_tprs(net: GateNet, frames: LabelledFrames) -> tuple[float, float]:
    """Return (any, spots3) `tail_tpr` of a network, each on the frames that teach it.

    Raises:
        ModelError: an output has no blank or no hit to be tested on.
    """
    logits_B2, _ = logits_of(net, frames)
    labels_B2, used_B2 = frames.labels_B2() > 0.5, frames.weights_B2() > 0
    rates = []
    for logit, label, used in zip(logits_B2.T, labels_B2.T, used_B2.T, strict=True):
        blank, hit = logit[used & ~label], logit[used & label]
        if not len(blank) or not len(hit):
            raise ModelError(
                f"{len(blank)} blanks and {len(hit)} hits to test on; draw more pairs"
            )
        rates.append(tail_tpr(blank, hit))
    return rates[0], rates[1]


def _positive_weight(train: LabelledFrames, options: FitOptions) -> torch.Tensor:
    """Return the weight of hits (any, spots3): as asked, or blanks over hits."""
    labels, weights = train.labels_B2(), train.weights_B2()
    n_hits = (labels * weights).sum(0)
    balanced = (weights.sum(0) - n_hits) / np.maximum(n_hits, 1)
    asked = options.positive_weight
    chosen = [b if a is None else a for a, b in zip(asked, balanced.tolist(), strict=True)]
    return torch.tensor(chosen)


def _keep_what_helps(
    net: GateNet, test: LabelledFrames, bare_tpr: tuple[float, float]
) -> tuple[str, ...]:
    """Take back what is learned where the test part shows no gain over the bare statistic.

    The places' branch feeds both outputs, so all combinations are tried: the largest sum of both
    rates that makes neither worse than bare; of equals the one that learned least.
    """
    branches = {
        "places": net.place_branch,
        "any": net.any_branch,
        "spots3": net.spots3_branch,
    }
    learned = {name: _last_of(branch) for name, branch in branches.items()}
    values = {name: [p.clone() for p in last] for name, last in learned.items()}

    def set_to(kept: tuple[str, ...]) -> None:
        with torch.no_grad():
            for name, parameters in learned.items():
                for parameter, value in zip(parameters, values[name], strict=True):
                    parameter.copy_(value if name in kept else torch.zeros_like(value))

    best: tuple[str, ...] = ()
    best_sum = sum(bare_tpr) + MIN_GAIN
    choices = [
        tuple(name for name, kept in zip(branches, mask, strict=True) if kept)
        for mask in product((False, True), repeat=len(branches))
    ]
    for kept in sorted(choices, key=len):
        set_to(kept)
        tpr = tail_tprs(net, test)
        if sum(tpr) > best_sum and all(t >= b for t, b in zip(tpr, bare_tpr, strict=True)):
            best, best_sum = kept, sum(tpr)
    set_to(best)
    return best


def _last_of(branch: nn.Sequential) -> list[nn.Parameter]:
    """Return weight and bias of a branch's last layer; both zero make it silent."""
    return list(branch.parameters())[-2:]


def _digest(train: LabelledFrames, test: LabelledFrames, options: FitOptions) -> str:
    """Return what a checkpoint must have in common with a training that goes on from it."""
    fixed: dict[str, Any] = {k: v for k, v in asdict(options).items() if k != "epochs"}
    text = json.dumps([fixed, train.sha256(), test.sha256()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _epoch(row: dict[str, Any]) -> Epoch:
    any_tpr, spots3_tpr = row["tail_tpr"]
    return Epoch(row["train_loss"], row["test_loss"], (any_tpr, spots3_tpr), row["learning_rate"])
