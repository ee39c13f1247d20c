"""Calibration of a trained gate: logits into probabilities, blanks into threshold tables.

One rule: a rate holds for each kind of blank by itself, not for their mixture. A table's entry of
any rank is the highest that a kind has at that rank, so the kind that passes most decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.calibration import Calibration
from hitfinder.models.errors import ModelError
from hitfinder.models.gate import GateNet
from hitfinder.models.labelled_frames import LabelledFrames
from hitfinder.models.training import logits_of

NEWTON_STEPS = 30
RIDGE = 1e-3

Table = NDArray[np.float32]


def calibrate(
    net: GateNet, held_out: LabelledFrames, blanks: Sequence[LabelledFrames]
) -> Calibration:
    """Fit probabilities and make threshold tables.

    Args:
        net: trained.
        held_out: hits and blanks in the proportion that p means, not trained on.
        blanks: frames without a crystal, kind by kind; kinds with decoys count for spots3 only.

    Raises:
        ModelError: no kind of blank counts for an output.
    """
    logits_B2, spot_BK = logits_of(net, held_out)
    labels_B2, used_B2 = held_out.labels_B2() > 0.5, held_out.weights_B2() > 0
    fitted = [
        logistic(logit[used], label[used])
        for logit, label, used in zip(logits_B2.T, labels_B2.T, used_B2.T, strict=True)
    ]
    # A place's probability is said of hits, and salt is no spot that pixels could tell.
    judged = held_out.is_hit & ~held_out.has_decoys
    known = (held_out.spot_label_BK >= 0) & judged[:, None]
    spot = logistic(spot_BK[known], held_out.spot_label_BK[known] == 1)
    unready = Calibration(
        slope=np.array([slope for _, slope in fitted]),
        offset=np.array([offset for offset, _ in fitted]),
        blank_scores=(np.zeros(0, np.float32), np.zeros(0, np.float32)),
        spot=np.array(spot),
    )
    return replace(unready, blank_scores=blank_tables(net, unready, blanks))


def blank_tables(
    net: GateNet, calibration: Calibration, blanks: Sequence[LabelledFrames]
) -> tuple[Table, Table]:
    """Return the rising scores of blanks for (any, spots3)."""
    scores = [calibration.scores(logits_of(net, kind)[0]) for kind in blanks]
    clean = [s[~kind.has_decoys, 0] for s, kind in zip(scores, blanks, strict=True)]
    return envelope(clean), envelope([s[:, 1] for s in scores])


def envelope(kinds: Sequence[NDArray[np.floating]]) -> Table:
    """Return one rising table whose every rank is the highest of all kinds' at that rank.

    Its length is that of the kind with the fewest blanks, ranks of the others in proportion and
    rounded to the stricter; empty kinds do not count.

    Raises:
        ModelError: all kinds are empty.
    """
    tables = [np.sort(k)[::-1] for k in kinds if len(k)]
    if not tables:
        raise ModelError("no blanks to make a threshold table of; draw or record some")
    n = min(len(t) for t in tables)
    rank = np.arange(1, n + 1)
    at = [np.maximum(rank * (len(t) + 1) // (n + 1), 1) - 1 for t in tables]
    highest = np.max([t[i] for t, i in zip(tables, at, strict=True)], axis=0)
    return np.asarray(highest[::-1], np.float32)


def logistic(logit: NDArray[np.floating], label: NDArray[np.bool_]) -> tuple[float, float]:
    """Fit p = sigmoid(offset + slope x logit) by Newton's method with a small ridge.

    Returns:
        offset, slope.
    """
    terms = np.stack((np.ones(len(logit)), logit.astype(np.float64)), axis=1)
    beta = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        p = 0.5 * (1 + np.tanh(0.5 * terms @ beta))
        slope = terms.T @ (label - p) - RIDGE * beta
        bend = (terms * (p * (1 - p))[:, None]).T @ terms + RIDGE * np.eye(2)
        step = np.linalg.solve(bend, slope)
        beta = beta + step / max(1.0, float(np.abs(step).max()) / 2)
    return float(beta[0]), float(beta[1])
