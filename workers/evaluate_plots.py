"""The evaluation's pictures.

One rule: a curve shows its interval, and a log axis of strengths marks 0.9 and S90.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hitfinder.models.metrics import TARGET_TPR, Reliability
from hitfinder.workers.evaluate_comparison import Row
from hitfinder.workers.evaluate_gate import SHIPPED, GateFigures
from hitfinder.workers.evaluate_tables import width_text

COLOURS = (
    *("#1b4965", "#2f6690", "#62a5d1"),
    *("#7a4419", "#b5651d", "#e0a458"),
    *("#31572c", "#5b8e3e", "#9cc069"),
)
"""Three shades a camera length."""


def draw_sensitivity(figures: GateFigures, path: Path, output: str = "any") -> Path:
    """Draw TPR at the shipped threshold over strength, a panel a spot width."""
    points = [p for p in figures.points if (p.output, p.cut) == (output, SHIPPED)]
    most = max(p.n_photons for p in points)
    widths = sorted({p.width_mrad for p in points})
    figure = _figure(5.5 * len(widths), 4.5)
    for axes, width in zip(_panels(figure, len(widths)), widths, strict=True):
        for k, dataset in enumerate(sorted({p.dataset for p in points})):
            mine = [
                p
                for p in points
                if (p.dataset, p.width_mrad, p.n_photons) == (dataset, width, most)
            ]
            mine.sort(key=lambda p: p.strength)
            strengths, colour = [p.strength for p in mine], COLOURS[k % len(COLOURS)]
            axes.plot(strengths, [p.rate.value for p in mine], "o-", ms=3, color=colour)
            low, high = [p.rate.low for p in mine], [p.rate.high for p in mine]
            axes.fill_between(strengths, low, high, color=colour, alpha=0.1, lw=0)
            axes.lines[-1].set_label(dataset)
        axes.axhline(TARGET_TPR, color="grey", lw=0.8, ls=":")
        for s in figures.sensitivity:
            if (s.output, s.cut, s.width_mrad) == (output, SHIPPED, width) and s.mean < math.inf:
                axes.axvline(s.mean, color="black", lw=0.8, ls="--")
                axes.text(s.mean, 0.03, f" S90 {s.mean:.3f}", fontsize=9)
        axes.set(xscale="log", ylim=(0, 1.02), title=width_text(width))
        axes.set(xlabel="strength of the crystal (1 = 10 um)", ylabel="share of hits found")
        axes.legend(ncols=3, fontsize=8, title="data set", loc="lower right")
    return _save(figure, path)


def draw_reliability(found: Mapping[str, Reliability], path: Path) -> Path:
    """Draw what came true over what was said, a panel an output."""
    figure = _figure(4.5 * len(found), 4.3)
    for axes, (output, r) in zip(_panels(figure, len(found)), found.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":")
        seen = r.n > 0
        error = np.sqrt(np.maximum(r.true * (1 - r.true), 0) / np.maximum(r.n, 1))
        axes.errorbar(r.stated[seen], r.true[seen], error[seen], fmt="o-", color=COLOURS[0])
        for x, y, n in zip(r.stated[seen], r.true[seen], r.n[seen], strict=True):
            axes.annotate(f"{n}", (x, y), (4, -10), textcoords="offset points", fontsize=7)
        axes.set(title=f"{output}: expected calibration error {r.expected_calibration_error:.3f}")
        axes.set(xlabel="probability stated", ylabel="share of hits", xlim=(0, 1), ylim=(0, 1.02))
    return _save(figure, path)


def draw_comparison(rows: Sequence[Row], path: Path) -> Path:
    """Draw S90 of every scorer, a panel a spot width; the spread over patterns as a bar."""
    widths = sorted({s.width_mrad for r in rows for s in r.sensitivity})
    figure = _figure(5.5 * len(widths) + 1.5, 1.2 + 0.33 * len(rows))
    labels = [r.label if r.output == "score" else f"{r.label}: {r.output}" for r in rows]
    for axes, width in zip(_panels(figure, len(widths)), widths, strict=True):
        for k, row in enumerate(rows):
            s = next(s for s in row.sensitivity if s.width_mrad == width)
            ends = [min(v, 1.0) for v in (s.spread.low, s.spread.high)]
            axes.plot(ends, [k, k], color=COLOURS[0], lw=2)
            is_there = s.mean < math.inf
            axes.plot(min(s.mean, 1.0), k, "o" if is_there else ">", color=COLOURS[0])
        axes.set(xscale="log", title=width_text(width), xlabel="S90 (arrow: not reached)")
        axes.set_yticks(range(len(rows)), labels if width == widths[0] else [""] * len(rows))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
    return _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _panels(figure: Figure, n: int) -> list[Axes]:
    return list(figure.subplots(1, n, squeeze=False)[0])


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    return path
