"""Training of the gate: features and labels in, weights and curves out.

One rule: no frame is made or read here; whoever calls brings features, split by crystal pattern
so that nothing of one part is in another. The learned correction of each output is kept only if
it beats the bare scan on the validation part where it matters: false-positive rates below 1e-2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hitfinder.models.gate import Calibration, GateNet

N_STEPS = 600
LEARNING_RATE = 3e-3
OFFSET_RATE = 3e-2
WEIGHT_DECAY = 1e-3
REPORT_EVERY = 10
TAIL_RATE = 1e-2
NEWTON_STEPS = 30
RIDGE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrames:
    """Features of frames with their truth.

    Attributes:
        features: float32 (n, 48), `gate.features`.
        is_hit: bool (n,), Bragg spots were drawn into the frame.
        has_3_spots: bool (n,), at least three spots of 3 expected photons were.
        has_hot_pixels: bool (n,), hot pixels were added; such frames teach and calibrate only
            the output that must withstand them.
    """

    features: NDArray[np.float32]
    is_hit: NDArray[np.bool_]
    has_3_spots: NDArray[np.bool_]
    has_hot_pixels: NDArray[np.bool_]

    def labels(self) -> NDArray[np.float32]:
        """Return (n, 2): any, spots3."""
        return np.stack((self.is_hit, self.has_3_spots), axis=1).astype(np.float32)

    def weights(self) -> NDArray[np.float32]:
        """Return (n, 2): 0 where an output does not look.

        Hits of one or two spots are neither one nor the other to spots3.
        """
        unclear = self.is_hit & ~self.has_3_spots
        return np.stack((~self.has_hot_pixels, ~unclear), axis=1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Loss by step, and what the validation part says of scan and network.

    Attributes:
        step: steps at which the losses were taken.
        train_loss: weighted binary cross entropy.
        validation_loss: the same on the validation part.
        scan_tpr: (any, spots3), mean true-positive rate at rates below `TAIL_RATE`, bare scan.
        network_tpr: the same with the learned correction.
    """

    step: list[int]
    train_loss: list[float]
    validation_loss: list[float]
    scan_tpr: tuple[float, float]
    network_tpr: tuple[float, float]


def train(train: LabelledFrames, validation: LabelledFrames, seed: int) -> tuple[GateNet, Curves]:
    """Fit the network; the same input and seed give the same weights on one machine."""
    torch.manual_seed(seed)
    net = GateNet()
    x, y, w = (torch.from_numpy(a) for a in (train.features, train.labels(), train.weights()))
    loss_of = nn.BCEWithLogitsLoss(reduction="none")
    scan_tpr = _tail(net, validation)
    # Logits of the bare scan are far off balance; a free offset per output takes that up.
    offset = torch.zeros(2, requires_grad=True)
    groups = [
        {"params": list(net.parameters()), "weight_decay": WEIGHT_DECAY, "lr": LEARNING_RATE},
        {"params": [offset], "weight_decay": 0.0, "lr": OFFSET_RATE},
    ]
    optimiser = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, N_STEPS)
    curves: tuple[list[int], list[float], list[float]] = ([], [], [])
    for step in range(N_STEPS):
        optimiser.zero_grad()
        loss = (loss_of(net(x) + offset, y) * w).sum() / w.sum()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % REPORT_EVERY == 0:
            curves[0].append(step)
            curves[1].append(float(loss.detach()))
            curves[2].append(_loss(net, offset, validation))
    network_tpr = _tail(net, validation)
    _keep_what_helps(net, scan_tpr, network_tpr)
    net.eval()
    return net, Curves(*curves, scan_tpr, network_tpr)


def calibrate(
    net: GateNet,
    held_out: LabelledFrames,
    blanks: LabelledFrames,
    spot_terms: NDArray[np.float64],
    is_spot: NDArray[np.bool_],
) -> Calibration:
    """Turn logits into probabilities and blanks into threshold tables.

    Args:
        net: trained.
        held_out: hits and blanks in the proportion that p means, not trained on.
        blanks: frames without spots, as many as the smallest rate asks for.
        spot_terms: (n, 4) of candidate places, `gate.spot_terms`.
        is_spot: (n,) whether a true spot lies there.
    """
    logits, labels, used = logits_of(net, held_out), held_out.labels(), held_out.weights() > 0
    platt = np.stack(
        [
            _logistic(
                np.stack((np.ones(int(u.sum())), z[u]), axis=1).astype(np.float64), y[u] > 0.5
            )
            for z, y, u in zip(logits.T, labels.T, used.T, strict=True)
        ]
    )
    offset, slope = platt[:, 0], platt[:, 1]
    scores = (logits_of(net, blanks) * slope + offset).astype(np.float32)
    clean = ~blanks.has_hot_pixels
    return Calibration(
        slope=slope,
        offset=offset,
        blank_scores=(np.sort(scores[clean, 0]), np.sort(scores[:, 1])),
        spot=_logistic(spot_terms, is_spot),
    )


def logits_of(net: GateNet, frames: LabelledFrames) -> NDArray[np.float32]:
    """Return logits (n, 2)."""
    with torch.inference_mode():
        return np.asarray(net(torch.from_numpy(frames.features)).numpy())


def tail_tpr(blank: NDArray[np.floating], hit: NDArray[np.floating]) -> float:
    """Return the mean share of hits above the thresholds of rates 1e-3 to `TAIL_RATE`."""
    rates = np.geomspace(1e-3, TAIL_RATE, 10)
    thresholds = np.quantile(blank, 1 - rates)
    return float(np.mean(hit[:, None] > thresholds))


def _tail(net: GateNet, frames: LabelledFrames) -> tuple[float, float]:
    logits, labels, used = logits_of(net, frames), frames.labels() > 0.5, frames.weights() > 0
    any_, spots3 = (
        tail_tpr(z[u & ~y], z[u & y]) for z, y, u in zip(logits.T, labels.T, used.T, strict=True)
    )
    return any_, spots3


def _loss(net: GateNet, offset: torch.Tensor, frames: LabelledFrames) -> float:
    y, w = torch.from_numpy(frames.labels()), torch.from_numpy(frames.weights())
    with torch.no_grad():
        z = net(torch.from_numpy(frames.features)) + offset
        each = nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    return float((each * w).sum() / w.sum())


def _keep_what_helps(
    net: GateNet, scan_tpr: tuple[float, float], network_tpr: tuple[float, float]
) -> None:
    """Take an output back to the bare scan if its correction is no better."""
    with torch.no_grad():
        for k, branch in enumerate((net.any_branch, net.spots3_branch)):
            if network_tpr[k] <= scan_tpr[k]:
                for parameter in list(branch.parameters())[-2:]:
                    parameter.zero_()
                net.skip[k] = 1


def _logistic(terms: NDArray[np.float64], label: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fit a logistic regression by Newton's method with a small ridge."""
    beta = np.zeros(terms.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 0.5 * (1 + np.tanh(0.5 * terms @ beta))
        slope = terms.T @ (label - p) - RIDGE * beta
        bend = (terms * (p * (1 - p))[:, None]).T @ terms + RIDGE * np.eye(len(beta))
        step = np.linalg.solve(bend, slope)
        beta = beta + step / max(1.0, float(np.abs(step).max()) / 2)
    return beta
