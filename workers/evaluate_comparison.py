"""Ours, ours with something taken away, and the references, on the same frames.

One rule: every row of a table saw the same frames and got its cut in the same way: for each data
set from its blanks among them, at 1e-2 or the least rate that their number can tell. That favours
references whose scores mean something else in each data set; the daemon has one cut for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hitfinder.models import metrics
from hitfinder.models.metrics import Rate
from hitfinder.workers.evaluate_gate import OUTPUTS, Passed, Sensitivity, sensitivity_of
from hitfinder.workers.evaluate_scores import Scored

RATE = 1e-2


@dataclass(frozen=True, slots=True)
class Row:
    """One scorer's figures.

    Attributes:
        label: of the scorer.
        output: "any", "spots3" or, where there is but one, "score".
        rate: false-positive rate of the cuts.
        full: hits of the full strength that passed.
        sensitivity: S90 by width.
        n_frames: hits and blanks that it saw.
    """

    label: str
    output: str
    rate: float
    full: Rate
    sensitivity: tuple[Sensitivity, ...]
    n_frames: int


def compare(scored: Mapping[str, Sequence[Scored]]) -> list[Row]:
    """Return a row for each scorer and output.

    Args:
        scored: label -> series at one flux, the same frames for each.
    """
    return [
        _row(label, output, series)
        for label, series in scored.items()
        for output in _outputs(series)
    ]


def _outputs(series: Sequence[Scored]) -> tuple[str, ...]:
    """Return both outputs, or the one where they are the same."""
    is_one = all((s.scores.any == s.scores.spots3).all() for s in series)
    return OUTPUTS[:1] if is_one else OUTPUTS


def _row(label: str, output: str, series: Sequence[Scored]) -> Row:
    rate, passed = 0.0, []
    cuts: dict[str, float] = {}
    for name in {s.plan.dataset for s in series}:
        blank = np.concatenate([s.output(output)[s.is_blank] for s in series if _of(s, name)])
        cut = metrics.threshold_for(blank, RATE)
        cuts[name], rate = cut.value, max(rate, cut.rate)
    passed = [s.output(output) > cuts[s.plan.dataset] for s in series]
    both = list(zip(series, passed, strict=True))
    is_lone = len(_outputs(series)) == 1
    return Row(
        label=label,
        output="score" if is_lone else output,
        rate=rate,
        full=_full(both),
        sensitivity=tuple(sensitivity_of(output, f"{rate:.1e} a set", both)),
        n_frames=sum(len(s.pattern) for s in series),
    )


def _of(series: Scored, dataset: str) -> bool:
    return series.plan.dataset == dataset


def _full(both: Sequence[tuple[Scored, Passed]]) -> Rate:
    """Return the rate of the greatest strength over all series."""
    which = [(p, s.strength == s.strength.max()) for s, p in both]
    return metrics.wilson(
        sum(int((p & top).sum()) for p, top in which), sum(int(top.sum()) for _, top in which)
    )
