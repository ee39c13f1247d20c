"""The charts of a report, drawn from columns of its frames as SVG.

One rule: what happened over time is drawn over the frames in their order, in bins of equal
counts, with the clock below: a pause between series takes no room and every bin is as sure as
the next.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hitfinder.models.metrics import wilson
from hitfinder.workers.report_series import HIT, MISS, StoredSeries

INK, HITS, MISSES, SERIES = "#222222", "#d1495b", "#8d99ae", "#30638e"
MAX_BINS, MIN_IN_BIN = 60, 10
MAX_POINTS = 2000  # of single frames in one chart
N_CLOCKS = 4
MAX_SERIES_LINES = 40
MAX_THRESHOLDS = 5
SIZE_IN = (5.2, 3.3)

Frames = NDArray[np.void]


class Order:
    """The frames of a run in the order of their reception, cut into bins.

    Attributes:
        frames: those that were received, sorted.
        bins: which of them are of each bin.
        middles: float64 (bins,), middle of each bin in frames.
    """

    def __init__(self, frames: Frames) -> None:
        received = frames[frames["t_received_ns"] > 0]
        self.frames = received[np.argsort(received["t_received_ns"], kind="stable")]
        n = len(self.frames)
        edges = np.linspace(0, n, max(1, min(MAX_BINS, n // MIN_IN_BIN)) + 1).round().astype(int)
        self.bins = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        self.middles = 0.5 * (edges[:-1] + edges[1:])

    def label(self, axes: Axes) -> None:
        """Say below the axis which frame it is and what the clock said; part the series."""
        n = len(self.frames)
        ticks = np.linspace(0, n - 1, min(N_CLOCKS, n)).round().astype(int)
        clocks = [clock(int(t)) for t in self.frames["t_received_ns"][ticks]]
        labels = [f"{t}\n{c}" for t, c in zip(ticks.tolist(), clocks, strict=True)]
        axes.set_xticks(ticks, labels)
        axes.set(xlim=(0, max(n, 1)), xlabel="frames received; UTC")
        begins = 1 + np.flatnonzero(np.diff(self.frames["series"]))
        for begin in begins if len(begins) < MAX_SERIES_LINES else ():
            axes.axvline(float(begin), color=INK, alpha=0.2, lw=0.7)


def clock(t_ns: int) -> str:
    """Return a time of day, UTC."""
    return datetime.fromtimestamp(t_ns * 1e-9, UTC).strftime("%H:%M:%S")


def hit_rate_chart(order: Order) -> str:
    """Draw hits of all judged frames with their 95 % interval."""
    figure, axes = _chart()
    outcomes = [order.frames["outcome"][b] for b in order.bins]
    rates = [wilson(int((o == HIT).sum()), int(np.isin(o, (HIT, MISS)).sum())) for o in outcomes]
    middles = order.middles
    axes.fill_between(
        middles, [r.low for r in rates], [r.high for r in rates], color=HITS, alpha=0.2, lw=0
    )
    axes.plot(middles, [r.value for r in rates], "o-", ms=3, color=HITS)
    axes.set(ylim=(0, None), ylabel="hits of judged frames")
    order.label(axes)
    return _svg(figure)


def score_chart(frames: Frames) -> str:
    """Draw how p_hit is distributed, and the thresholds that were in force."""
    figure, axes = _chart()
    edges = [k / 40 for k in range(41)]
    p, outcome = frames["p_hit"], frames["outcome"]
    axes.hist(p[outcome == MISS], edges, color=MISSES, label="misses")
    axes.hist(p[outcome == HIT], edges, histtype="step", color=HITS, lw=1.8, label="hits")
    thresholds = np.unique(frames["threshold"][np.isfinite(frames["threshold"])])
    for k, threshold in enumerate(thresholds[:MAX_THRESHOLDS].tolist()):
        label = "threshold" if k == 0 else None
        axes.axvline(threshold, color=INK, ls="--", lw=1, label=label)
    axes.set(xlabel="p_hit", ylabel="frames", xlim=(0, 1), yscale="log")
    axes.legend(frameon=False)
    return _svg(figure)


def spots_chart(hits: Frames) -> str:
    """Draw how many spots hits have."""
    figure, axes = _chart()
    n = hits["n_peaks"][hits["n_peaks"] >= 0]
    most = int(n.max()) if len(n) else 1
    width = -(-(most + 1) // 40)
    axes.hist(n, (np.arange(0, most + width + 1, width) - 0.5).tolist(), color=HITS)
    axes.set(xlabel="spots of a hit", ylabel="hits")
    return _svg(figure)


def resolution_chart(hits: Frames) -> str:
    """Draw how far hits diffract."""
    figure, axes = _chart()
    d_A = hits["d_min_A"][np.isfinite(hits["d_min_A"])]
    edges = np.linspace(0, max(6.0, float(np.quantile(d_A, 0.98))), 31).tolist()
    axes.hist(d_A, edges, color=HITS)
    axes.set(xlabel="resolution of a hit, d_min_A (angstrom)", ylabel="hits")
    return _svg(figure)


def estimate_chart(order: Order, series: Sequence[StoredSeries], name: str) -> str:
    """Draw single frames' estimates, the series' posteriors and what the header states.

    Args:
        name: `photon_energy_eV` or `clen_m`.
    """
    figure, axes = _chart()
    frames = order.frames
    found = np.flatnonzero(np.isfinite(frames[name]))
    shown = found[:: -(-len(found) // MAX_POINTS) or 1]
    axes.plot(shown, frames[name][shown], ".", ms=3, alpha=0.6, color=HITS, label="one frame")
    inside = list(np.quantile(frames[name][found], (0.05, 0.95))) if len(found) else []
    for place, one in enumerate(series):
        mine = np.flatnonzero(frames["series"] == place)
        stated, said = getattr(one.geometry, name), one.posterior.get(name)
        if not len(mine):
            continue
        span = mine[0], mine[-1] + 1
        if stated is not None:
            axes.plot(span, [stated] * 2, color=INK, lw=1.2, ls="--", label="header")
            inside.append(stated)
        if said is not None:
            sigma = one.posterior.get(_sigma_of(name)) or 0.0
            axes.fill_between(span, said - sigma, said + sigma, color=SERIES, alpha=0.3, lw=0)
            axes.plot(span, [said] * 2, color=SERIES, lw=1.6, label="series, ± sigma")
            inside += [said - sigma, said + sigma]
    if inside:
        margin = 0.1 * (max(inside) - min(inside)) + 0.01 * max(inside)
        axes.set_ylim(min(inside) - margin, max(inside) + margin)
    labels = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(labels.values(), labels.keys(), frameon=False, fontsize=8)
    axes.set_ylabel({"photon_energy_eV": "photon energy (eV)"}.get(name, "camera length (m)"))
    order.label(axes)
    return _svg(figure)


def _sigma_of(name: str) -> str:
    stem, unit = name.rsplit("_", 1)
    return f"{stem}_sigma_{unit}"


def level_chart(order: Order, name: str, label: str) -> str:
    """Draw the median of a column over time, and what 16 to 84 % of the frames lie within."""
    figure, axes = _chart()
    bins = [v[np.isfinite(v)] for v in (order.frames[name][b] for b in order.bins)]
    there = [k for k, v in enumerate(bins) if len(v)]
    low, middle, high = np.array([np.quantile(bins[k], (0.16, 0.5, 0.84)) for k in there]).T
    at = order.middles[there]
    axes.fill_between(at, low, high, color=SERIES, alpha=0.2, lw=0)
    axes.plot(at, middle, "o-", ms=3, color=SERIES)
    axes.set(ylim=(0, 1.1 * float(high.max())), ylabel=label)
    order.label(axes)
    return _svg(figure)


def _chart() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_IN, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
