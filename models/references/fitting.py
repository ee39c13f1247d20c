"""How every trained reference is fitted: the report's recipe.

One rule: Adam, a rate that falls when the test loss stands still (ReduceLROnPlateau), train and
test each epoch. Examples come from outside, already split 80 / 20. Mixed precision is used on a
GPU; a CPU without bfloat16 units only loses by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

WIDE_LAYER = 10_000
"""Inputs from which on a linear layer learns at a rate over their root: it sums a whole frame, and
one step of Adam at the plain rate would move its output by thousands."""


class Examples(Protocol):
    """Things to learn from, made when they are asked for."""

    def __len__(self) -> int:
        """Return how many there are."""

    def batch(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of some of them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to fit.

    Attributes:
        epochs: passes over the training examples.
        batch: examples a step.
        learning_rate: of Adam at the start.
        plateau_epochs: epochs without a lower test loss after which the rate is divided by ten.
    """

    epochs: int
    batch: int
    learning_rate: float
    plateau_epochs: int = 1


@dataclass(frozen=True, slots=True)
class Epoch:
    """Mean losses of one pass over both parts, and the rate that it had."""

    train_loss: float
    test_loss: float
    learning_rate: float


Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def fit(
    net: nn.Module,
    train: Examples,
    test: Examples,
    loss_of: Loss,
    recipe: Recipe,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
) -> list[Epoch]:
    """Fit a network in place, on the device where it is; same inputs, same weights.

    Args:
        net: made under the seed that it should have.
        train: examples to learn from.
        test: examples that steer the rate.
        loss_of: of outputs and targets, a mean.
        recipe: see `Recipe`.
        seed: of the order of examples.
        on_step: called after each batch, `n_steps` times in all.

    Returns:
        One row an epoch.
    """
    optimiser = torch.optim.Adam(_groups(net, recipe.learning_rate))
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, patience=recipe.plateau_epochs
    )
    rng = np.random.default_rng(seed)
    epochs = []
    for _ in range(recipe.epochs):
        rate = float(optimiser.param_groups[0]["lr"])
        net.train()
        losses = []
        for chosen in _batches(rng.permutation(len(train)).tolist(), recipe.batch):
            optimiser.zero_grad()
            loss = _loss(net, train, chosen, loss_of)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses.append((float(loss.detach()), len(chosen)))
            on_step()
        net.eval()
        with torch.no_grad():
            tested = []
            for chosen in _batches(range(len(test)), recipe.batch):
                tested.append((float(_loss(net, test, chosen, loss_of)), len(chosen)))
                on_step()
        epochs.append(Epoch(_mean(losses), _mean(tested), rate))
        schedule.step(epochs[-1].test_loss)
    return epochs


def n_steps(train: Examples, test: Examples, recipe: Recipe) -> int:
    """Return how many batches a fit has."""
    return recipe.epochs * sum(-(-len(part) // recipe.batch) for part in (train, test))


def _groups(net: nn.Module, rate: float) -> list[dict[str, object]]:
    wide = [m for m in net.modules() if isinstance(m, nn.Linear) and m.in_features > WIDE_LAYER]
    slow = {id(m.weight): rate / m.in_features**0.5 for m in wide}
    return [{"params": [p], "lr": slow.get(id(p), rate)} for p in net.parameters()]


def _batches(order: Sequence[int], size: int) -> list[Sequence[int]]:
    return [order[first : first + size] for first in range(0, len(order), size)]


def _loss(
    net: nn.Module, examples: Examples, chosen: Sequence[int], loss_of: Loss
) -> torch.Tensor:
    device = next(net.parameters()).device
    inputs, targets = (t.to(device) for t in examples.batch(chosen))
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        outputs = net(inputs)
    return loss_of(outputs.to(torch.float32), targets)


def _mean(losses: Sequence[tuple[float, int]]) -> float:
    values, sizes = zip(*losses, strict=True)
    return float(np.average(values, weights=sizes))
