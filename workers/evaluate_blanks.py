"""Blanks of each kind that pass the shipped threshold, and what the probabilities mean.

One rule: a false-positive rate is measured on blanks that set no threshold, kind by kind, with
its interval; salt fires `any` and is told apart by `spots3` alone, so both stand there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import metrics
from hitfinder.models.metrics import Rate, Reliability
from hitfinder.workers.evaluate_gate import ALL, FIRST_FRAMES, OUTPUTS
from hitfinder.workers.evaluate_scores import Scored

SURE_SPOTS = 3
"""A hit of fewer reflections is neither one nor the other to `spots3`."""


@dataclass(frozen=True, slots=True)
class BlankRate:
    """Blanks of one kind that passed the shipped threshold.

    Attributes:
        among: "all", a data set, a flux, or "first frames" of each series.
    """

    output: str
    kind: str
    among: str
    rate: Rate


def blank_rates(scored: Sequence[Scored], shipped: Mapping[str, float]) -> list[BlankRate]:
    """Return what passed of each kind: in all, by data set, by flux, and of first frames.

    Args:
        scored: series of blanks.
        shipped: output -> threshold of its probability.
    """
    counted: defaultdict[tuple[str, str, str], list[NDArray[np.bool_]]] = defaultdict(list)
    for series in scored:
        plan = series.plan
        for output in OUTPUTS:
            passed = series.output(output) > shipped[output]
            for among in (ALL, plan.dataset, f"{plan.n_photons:.0e} photons".replace("e+0", "e")):
                counted[output, plan.kind, among].append(passed)
            counted[output, plan.kind, "first frames"].append(passed[:FIRST_FRAMES])
    return [
        BlankRate(*key, metrics.wilson(sum(int(p.sum()) for p in parts), sum(map(len, parts))))
        for key, parts in counted.items()
    ]


def reliabilities(scored: Sequence[Scored]) -> dict[str, Reliability]:
    """Return how far the probabilities of both outputs come true on frames drawn by chance."""
    p = {o: np.concatenate([s.output(o) for s in scored]) for o in OUTPUTS}
    is_hit = np.concatenate([s.scores.is_hit for s in scored])
    n_spots = np.concatenate([s.scores.n_spots for s in scored])
    clear = ~is_hit | (n_spots >= SURE_SPOTS)
    return {
        "any": metrics.reliability(p["any"], is_hit),
        "spots3": metrics.reliability(p["spots3"][clear], is_hit[clear]),
    }
