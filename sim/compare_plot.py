"""The plot of a comparison: totals, spots, pixels and radial profiles of two sides.

One rule: every curve is a share or a mean, so sides with different numbers of patterns compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

SHOWN = ("02", "05", "09")
COLORS = {"02": "tab:blue", "05": "tab:orange", "09": "tab:green"}
LINES = {"pattern_sim": "-", "generator": "--"}


class Compared(Protocol):
    """What is plotted of one side of one data set; see `compare.Figures`."""

    @property
    def total(self) -> Sequence[float]: ...
    @property
    def brightest_px(self) -> Sequence[float]: ...
    @property
    def spots(self) -> Sequence[NDArray[np.float32]]: ...
    @property
    def pixels(self) -> Sequence[NDArray[np.float32]]: ...
    @property
    def profile(self) -> NDArray[np.float64]: ...


def draw_comparison(figures: Mapping[tuple[str, str, float], Compared], path: Path) -> None:
    """Write a PNG of six panels; `figures` by (data set, side, divergence in mrad)."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).ravel()
    for name in SHOWN:
        a, b = figures[name, "pattern_sim", 0.0], figures[name, "generator", 0.0]
        axes[0].loglog(a.total, b.total, "o", ms=4, color=COLORS[name], label=f"set {name}")
        for side, line in LINES.items():
            style = {"ls": line, "color": COLORS[name], "label": f"{name} {side}"}
            sharp, wide = figures[name, side, 0.0], figures[name, side, 2.0]
            n = len(sharp.total)
            _more_than(axes[1], np.concatenate(sharp.spots), n, style)
            _more_than(axes[2], np.concatenate(sharp.pixels), n, style)
            axes[3].semilogy(np.arange(len(sharp.profile)) * 20, sharp.profile / n, **style)
            _more_than(axes[4], np.concatenate(wide.spots), n, style)
            _more_than(axes[5], np.concatenate(wide.pixels), n, style)
    ends = [10, 1e6]
    axes[0].plot(ends, ends, "k:", lw=1)
    words = (
        ("total photons, sharp", "pattern_sim", "generator"),
        ("spots, sharp", "photons of a spot", "brighter spots a frame"),
        ("pixels, sharp", "expected photons", "brighter pixels a frame"),
        ("radial profile, sharp", "radius, px", "photons a ring of 20 px a frame"),
        ("spots, 2 mrad", "photons of a spot", "brighter spots a frame"),
        ("pixels, 2 mrad", "expected photons", "brighter pixels a frame"),
    )
    for axis, (title, x, y) in zip(axes, words, strict=True):
        axis.set(title=title, xlabel=x, ylabel=y)
    axes[0].legend()
    axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=90)


def _more_than(
    axis: Any, values: NDArray[np.float32], n_frames: int, style: Mapping[str, str]
) -> None:
    """Draw how many values a frame lie above each value."""
    ordered = np.sort(values)[::-1]
    # A few hundred points show the curve.
    at = np.unique(np.geomspace(1, max(len(ordered), 1), 300).astype(int)) - 1
    axis.loglog(ordered[at], (at + 1) / n_frames, **style)
    axis.set_ylim(0.5 / n_frames, None)
