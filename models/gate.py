"""The gate: evidence of a frame -> is it a hit.

One rule: the network starts equal to the scan. Its logits are the scan's own statistic (the best
place; the third best that is more than one bright pixel) plus a small learned correction of the
strongest evidence at each scale. Thresholds are conformal: a quantile of the scores of blanks
kept out of training, so the false-positive rate holds for blanks like those.

Suffixes: B batch, K candidates, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hitfinder.models.errors import ModelError
from hitfinder.models.frontend import CELL_PX
from hitfinder.models.scan import FLOOR, SCALES_PX, Candidates, suppress

TOP = 8
"""Strongest places looked at per scale and after merging the scales."""
MERGED = 128
N_FEATURES = (len(SCALES_PX) + 2) * TOP
HIDDEN = 32
SCALE = 5.0
"""Evidence is divided by this for the network."""
CEILING = 40.0
"""Evidence above 1e-40 tells nothing new."""
SPOT_CEILING = 8.0
"""The same for a single spot, whose probability is settled much earlier."""


class GateMode(StrEnum):
    """What counts as a hit; config key `gate.mode`."""

    ANY = "any"  # one spot is enough: most sensitive, needs hot pixels masked
    SPOTS3 = "spots3"  # at least three spots that are more than one bright pixel


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Places of a frame after merging the scales, strongest first; empty ones hold `FLOOR`.

    All (B, K): evidence, rest (the brightest pixel tamed), ss and fs in cells, size in cells,
    mean in photons, float32.
    """

    evidence: torch.Tensor
    rest: torch.Tensor
    ss: torch.Tensor
    fs: torch.Tensor
    size: torch.Tensor
    mean: torch.Tensor

    def columns(self) -> tuple[torch.Tensor, ...]:
        """Return all columns in the order of the fields."""
        return self.evidence, self.rest, self.ss, self.fs, self.size, self.mean


def merge(candidates: Candidates, n_keep: int, by_rest: bool = False) -> Places:
    """Join the scales: the strongest box at each place hides those that overlap it."""
    shape = candidates.evidence.shape
    size = _edges(candidates).expand(shape)
    key = candidates.rest if by_rest else candidates.evidence
    order = torch.argsort(key.flatten(1), dim=1, descending=True, stable=True)[:, :n_keep]
    evidence, rest, ss, fs, mean = candidates.columns()
    columns = [c.flatten(1).gather(1, order) for c in (evidence, rest, ss, fs, size, mean)]
    key = key.flatten(1).gather(1, order)
    kept = suppress(key, columns[2], columns[3], columns[4])
    columns[0] = columns[0].masked_fill(~kept, FLOOR)
    columns[1] = columns[1].masked_fill(~kept, FLOOR)
    return Places(*columns)


def _edges(candidates: Candidates) -> torch.Tensor:
    """Return the edge in cells of the boxes of each scale, (1, scales, 1)."""
    edges = [float(max(s // CELL_PX, 1)) for s in SCALES_PX]
    return torch.tensor(edges, device=candidates.ss.device)[None, :, None]


def features(candidates: Candidates) -> torch.Tensor:
    """Return features_BF: the strongest evidence per scale, merged, and merged without maxima."""
    evidence, ss, fs = (
        column[:, :, :MERGED] for column in (candidates.evidence, candidates.ss, candidates.fs)
    )
    size = _edges(candidates).expand(evidence.shape)
    kept = suppress(*(column.flatten(0, 1) for column in (evidence, ss, fs, size)))
    alone = evidence.masked_fill(~kept.view(evidence.shape), FLOOR)
    parts = [alone.topk(TOP, 2).values.flatten(1)]
    parts.append(merge(candidates, MERGED).evidence.topk(TOP, 1).values)
    parts.append(merge(candidates, MERGED, by_rest=True).rest.topk(TOP, 1).values)
    return torch.cat(parts, 1).clamp(FLOOR, CEILING)


class GateNet(nn.Module):
    """Features -> logits (any, spots3): the scan's own statistics plus learned corrections.

    The spots3 branch sees only the third to eighth best places that are more than one bright
    pixel, so no number of isolated hot pixels reaches it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.any_branch = _branch(N_FEATURES)
        self.spots3_branch = _branch(TOP - 2)
        self.skip = nn.Parameter(torch.full((2,), math.log(10)))

    def forward(self, features_BF: torch.Tensor) -> torch.Tensor:
        """Return logits_B2."""
        best = features_BF[:, len(SCALES_PX) * TOP]
        rest = features_BF[:, (len(SCALES_PX) + 1) * TOP + 2 :]
        learned = torch.cat(
            (self.any_branch(features_BF / SCALE), self.spots3_branch(rest / SCALE)), 1
        )
        logits: torch.Tensor = self.skip * torch.stack((best, rest[:, 0]), 1) + learned
        return logits


def _branch(n_inputs: int) -> nn.Sequential:
    """Return a small network whose output starts at zero."""
    last = nn.Linear(HIDDEN, 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(n_inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), last
    )


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What turns logits into probabilities and rates into thresholds.

    Attributes:
        slope: float64 (2,), Platt slope of (any, spots3).
        offset: float64 (2,), Platt offset.
        blank_scores: float32 (n,) for any and for spots3: calibrated logits of blanks, rising.
        spot: float64 (4,), logistic coefficients of a spot: 1, evidence, rest, log10 mean.
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    blank_scores: tuple[NDArray[np.float32], NDArray[np.float32]]
    spot: NDArray[np.float64]

    def scores(self, logits_B2: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return calibrated logits."""
        return np.asarray(logits_B2 * self.slope + self.offset)

    def threshold(self, mode: GateMode, max_false_positive_rate: float) -> float:
        """Return the probability above which at most this share of blanks lies.

        Raises:
            ModelError: the rate is not in (0, 1], or the table has too few blanks for it.
        """
        if not 0 < max_false_positive_rate <= 1:
            raise ModelError(
                f"max_false_positive_rate is {max_false_positive_rate}; expected above 0, up to 1"
            )
        table = self.blank_scores[list(GateMode).index(mode)]
        n_allowed = int(max_false_positive_rate * (len(table) + 1))
        if n_allowed < 1:
            raise ModelError(
                f"max_false_positive_rate {max_false_positive_rate:g} cannot be told from "
                f"{len(table)} calibration blanks; ask for at least {1 / (len(table) + 1):.2g} "
                "or train with more blanks"
            )
        if n_allowed > len(table):
            return -1.0  # every frame passes
        return float(sigmoid(np.float64(table[-n_allowed])))

    def spot_probability(
        self, evidence: NDArray[np.float32], rest: NDArray[np.float32], mean: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the probability of each place to be a Bragg spot."""
        terms = spot_terms(evidence, rest, mean)
        return np.asarray(sigmoid(terms @ self.spot), np.float32)


def spot_terms(
    evidence: NDArray[np.float32], rest: NDArray[np.float32], mean: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return what the logistic of a spot sees, float64 (n, 4)."""
    return np.stack(
        (
            np.ones(len(evidence)),
            np.clip(evidence, FLOOR, SPOT_CEILING),
            np.clip(rest, FLOOR, SPOT_CEILING),
            np.log10(np.maximum(mean, 1e-6)),
        ),
        axis=1,
    )


def sigmoid(x: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64))))
