"""Pictures of a training: curves by epoch, confusion matrices at the threshold and of the heads.

One rule: what is drawn is what the card says in figures, nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hitfinder.models.calibration import GateMode
from hitfinder.models.training import Fitted

DPI = 100


def draw_curves(fitted: Fitted, path: Path) -> None:
    """Draw loss, true-positive rate and learning rate by epoch."""
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    loss, rate, step = figure.subplots(1, 3)
    at = range(len(fitted.epochs))
    loss.plot(at, [e.train_loss for e in fitted.epochs], label="train")
    loss.plot(at, [e.test_loss for e in fitted.epochs], label="test (other orientations)")
    loss.set(xlabel="epoch", ylabel="cross entropy", yscale="log")
    for k, mode in enumerate(GateMode):
        (line,) = rate.plot(at, [e.tail_tpr[k] for e in fitted.epochs], label=f"{mode}, learned")
        rate.axhline(fitted.bare_tpr[k], color=line.get_color(), ls=":", label=f"{mode}, bare")
    rate.axvline(fitted.best_epoch, color="0.7", zorder=0)
    rate.set(xlabel="epoch", ylabel="test TPR at FPR 1e-3 to 1e-2")
    step.plot(at, [e.learning_rate for e in fitted.epochs])
    step.set(xlabel="epoch", ylabel="learning rate", yscale="log")
    for axes in (loss, rate):
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=DPI)


def draw_confusions(
    matrices: Mapping[str, NDArray[np.int64]], ticks: Mapping[str, Sequence[str]], path: Path
) -> None:
    """Draw matrices of counts, true classes down, judged ones across.

    Args:
        matrices: title -> int64 (n, n) counts.
        ticks: title -> names of the n classes.
        path: picture to write.
    """
    figure = Figure(figsize=(3 * len(matrices), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    row = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, counts) in zip(row, matrices.items(), strict=True):
        _draw_matrix(axes, title, counts, ticks[title])
    figure.savefig(path, dpi=DPI)


def _draw_matrix(axes: Axes, title: str, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for i, j in np.ndindex(*counts.shape):
        colour = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(title=title, xlabel="judged", ylabel="true")
