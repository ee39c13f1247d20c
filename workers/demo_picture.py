"""The demo's picture: hits as they lie in the files, spots circled; hit rate; scores.

One rule: pixels come from the hit files, not from the simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from scipy import ndimage

from hitfinder.workers.hit_picture import SMOOTH_PX, draw_hit

if TYPE_CHECKING:
    from hitfinder.workers.demo_summary import Frame, Series

N_SHOWN = 6
# Frames that one point of the hit rate is the mean of.
RATE_FRAMES = 24
INK, FOUND, TRUE, BLANK = "#222222", "#d1495b", "#30638e", "#8d99ae"


def draw_picture(out: Path, frames: Sequence[Frame], series: Sequence[Series]) -> Path:
    """Draw `demo.png` into the demo's folder and return its path."""
    figure = Figure(figsize=(13, 12.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, 6, height_ratios=(1, 1, 0.62))
    panels, shown = [], None
    for k, frame in enumerate(_chosen(series)):
        row, column = divmod(k, 3)
        panels.append(figure.add_subplot(grid[row, 2 * column : 2 * column + 2]))
        shown = _draw_hit(panels[-1], _image(out, frame), frame)
    if shown is not None:
        bar = figure.colorbar(shown, ax=panels, shrink=0.5, aspect=40, pad=0.01)
        bar.set_label(f"photons near the pixel (Gaussian, sigma {SMOOTH_PX:g} px)")
    _draw_rate(figure.add_subplot(grid[2, :4]), frames, series)
    _draw_scores(figure.add_subplot(grid[2, 4:]), frames)
    path = out / "demo.png"
    figure.savefig(path, dpi=100)
    return path


def _chosen(series: Sequence[Series]) -> list[Frame]:
    """Return hits to show: the one in the middle by number of peaks, of different series."""
    ranked = [sorted(s.hits(), key=lambda f: f.record.n_peaks or 0) for s in series]
    shown = [hits[len(hits) // 2] for hits in ranked if hits]
    at = np.linspace(0, len(shown) - 1, min(N_SHOWN, len(shown))).round().astype(int)
    return [shown[i] for i in at]


def _image(out: Path, frame: Frame) -> NDArray[np.unsignedinteger]:
    """Read a hit's pixels back from its file."""
    if not h5py.h5z.filter_avail(32008):
        import hdf5plugin  # noqa: F401  (its import registers the filter)
    with h5py.File(out / frame.folder / str(frame.record.file)) as file:
        image: NDArray[np.unsignedinteger] = file["/entry/data/data"][frame.record.row]
    return image


def _draw_hit(axes: Axes, image: NDArray[np.unsignedinteger], frame: Frame) -> AxesImage:
    record = frame.record
    columns = record.peaks.arrays() if record.peaks else {}
    fs = columns.get("fs", np.zeros(0, np.float32))
    ss = columns.get("ss", np.zeros(0, np.float32))
    shown = draw_hit(axes, image, fs, ss)
    axes.set_title(_title(frame), fontsize=11, color=INK)
    return shown


def _title(frame: Frame) -> str:
    r = frame.record
    stated = f"{(r.header_photon_energy_eV or 0) / 1e3:g} keV, {r.header_clen_m or 0:g} m"
    return (
        f"data set {frame.dataset} ({stated}), frame {r.frame}\n"
        f"{r.n_peaks} spots found, p = {r.p_hit or 0:.3f}"
    )


def _draw_rate(axes: Axes, frames: Sequence[Frame], series: Sequence[Series]) -> None:
    received_ns = np.array([f.record.t_received_ns or 0 for f in frames])
    at_s = (received_ns - received_ns.min()) * 1e-9
    true, found = _mean([f.is_hit for f in frames]), _mean([f.is_found for f in frames])
    axes.plot(at_s, true, color=TRUE, lw=5, alpha=0.35, label="sent")
    axes.plot(at_s, found, color=FOUND, lw=1.6, label="found")
    most = 1.25 * float(max(true.max(), found.max(), 0.1))
    first = 0
    for s in series:
        mine = at_s[first : first + len(s.frames)]
        first += len(s.frames)
        if len(mine):
            axes.axvspan(float(mine[0]), float(mine[-1]), color=BLANK, alpha=0.12, lw=0)
            axes.text(float(mine.mean()), 0.93 * most, s.dataset, ha="center", color=INK)
    axes.set(ylim=(0, most), xlim=(at_s.min(), at_s.max()), xlabel="time of reception (s)")
    axes.set_ylabel(f"mean of {RATE_FRAMES} frames")
    axes.set_title("hit rate through the nine data sets", fontsize=11, color=INK, loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _mean(is_hit: Sequence[bool]) -> NDArray[np.float64]:
    smooth = ndimage.uniform_filter1d(np.array(is_hit, np.float64), RATE_FRAMES, mode="nearest")
    return np.asarray(smooth)


def _draw_scores(axes: Axes, frames: Sequence[Frame]) -> None:
    bins = [k / 20 for k in range(21)]
    p_hit = np.array([f.record.p_hit if f.record.p_hit is not None else np.nan for f in frames])
    is_hit = np.array([f.is_hit for f in frames])
    axes.hist(p_hit[~is_hit], bins, color=BLANK, label="blanks", alpha=0.8)
    axes.hist(p_hit[is_hit], bins, histtype="step", color=FOUND, lw=2, label="hits")
    threshold = next((f.record.threshold for f in frames if f.record.threshold), None)
    if threshold is not None:
        axes.axvline(threshold, color=INK, ls="--", lw=1, label="threshold")
    axes.set(xlabel="p_hit", ylabel="frames", yscale="log")
    axes.set_title("scores, all frames", fontsize=11, color=INK, loc="left")
    axes.legend(loc="center", fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
