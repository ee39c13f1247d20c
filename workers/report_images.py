"""The images of a report: a few hits with their spots, sums of many, the pixels found bad.

One rule: what is summed or shown is a stated number of frames, spread evenly over the run; an
image that cannot be read is counted, never passed over in silence.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from hitfinder.models.masks import valid_from_gap_value, valid_from_pixel_mask
from hitfinder.models.water import HC_EV_A
from hitfinder.stream.nexus import RunGeometry
from hitfinder.workers.hit_picture import draw_hit
from hitfinder.workers.report_series import StoredImage, StoredSeries, stored_images

N_BEST, N_MIDDLE = 4, 2
MAX_SUMMED = 100
SHOWN_PX = 300  # longer edge of a sum as it is shown: coarse, so that single spots are seen
RINGS_A = (20, 10, 7, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.4, 1.2, 1, 0.8)
RING_STEP = 0.12  # least distance of rings, of the half diagonal
HIT_IN, SUM_IN, DPI = 4.2, 4.6, 90

Frames = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG and what it shows."""

    png: bytes
    caption: str


def best_hits(series: Sequence[StoredSeries], hits: Frames) -> list[Picture]:
    """Draw the hits with most spots, and some from the middle.

    Args:
        hits: of all series, each with an image.
    """
    ranked = hits[np.argsort(-hits["n_peaks"], kind="stable")]
    middle = range(len(ranked) // 2, len(ranked) // 2 + N_MIDDLE)
    chosen = [*range(min(N_BEST, len(ranked))), *(k for k in middle if N_BEST <= k < len(ranked))]
    pictures = []
    for k in chosen:
        one = series[int(ranked["series"][k])]
        for image in stored_images(one, ranked[k : k + 1]):
            if image is not None:
                which = "most spots" if k < N_BEST else "from the middle"
                pictures.append(_hit_picture(one, image, which))
    return pictures


def _hit_picture(series: StoredSeries, image: StoredImage, which: str) -> Picture:
    figure, axes = _canvas(HIT_IN)
    draw_hit(axes, image.pixels, image.fs, image.ss)
    frame = image.frame
    said = [
        f"series {series.start.series}, frame {frame['frame']} ({which}): {len(image.fs)} spots",
        f"p = {frame['p_hit']:.3f}",
        _if_known(f"{frame['d_min_A']:.2f} angstrom", frame["d_min_A"]),
        _if_known(f"{frame['photon_energy_eV']:.0f} eV", frame["photon_energy_eV"]),
        _if_known(f"{frame['clen_m']:.3f} m", frame["clen_m"]),
        f"{series.files[frame['file']]} row {frame['row']}",
    ]
    return Picture(_png(figure), ", ".join(s for s in said if s))


def _if_known(text: str, value: float) -> str:
    return text if math.isfinite(value) else ""


@dataclass(frozen=True, slots=True, eq=False)
class Sum:
    """Frames of one series added up.

    Attributes:
        mean: float32 (ss, fs), counts a frame where a pixel was valid, NaN where it never was.
        n_frames: frames added; n_unread: those that could not be read.
        fs, ss: spots of them all.
    """

    mean: NDArray[np.float32]
    n_frames: int
    n_unread: int
    fs: NDArray[np.float32]
    ss: NDArray[np.float32]


def sum_frames(series: StoredSeries, frames: Frames) -> Sum | None:
    """Add up at most `MAX_SUMMED` of these frames, evenly spread; None if none can be read."""
    step = max(1, -(-len(frames) // MAX_SUMMED))
    total, n_valid, bad = None, None, None
    n_frames = n_unread = 0
    fs, ss = [np.zeros(0, np.float32)], [np.zeros(0, np.float32)]
    for image in stored_images(series, frames[::step]):
        if image is None or (total is not None and image.pixels.shape != total.shape):
            n_unread += 1
            continue
        if total is None or n_valid is None or bad is None:
            total = np.zeros(image.pixels.shape, np.float32)
            n_valid = np.zeros(image.pixels.shape, np.uint16)
            bad = bad_pixels(series, total.shape)
        valid = valid_from_gap_value(image.pixels) & ~bad
        np.add(total, image.pixels, out=total, where=valid)
        n_valid += valid
        n_frames += 1
        fs.append(image.fs)
        ss.append(image.ss)
    if total is None or n_valid is None:
        return None
    mean = np.where(n_valid > 0, total / np.maximum(n_valid, 1), np.nan).astype(np.float32)
    return Sum(mean, n_frames, n_unread, np.concatenate(fs), np.concatenate(ss))


def bad_pixels(series: StoredSeries, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return what header, operator and the frames themselves call bad, bool (ss, fs)."""
    bad = np.zeros(shape, np.bool_)
    try:
        with h5py.File(series.folder / "master.h5", "r") as file:
            mask = file["entry/instrument/detector/pixel_mask"][:]
    except (OSError, KeyError):
        mask = np.zeros(shape, np.uint32)
    if mask.shape == shape:
        bad |= ~valid_from_pixel_mask(mask)
    for entry in learned_squares(series):
        row, column = divmod(int(entry["pixel"]), shape[1])
        edge = int(entry["edge_px"])
        bad[row : row + edge, column : column + edge] = True
    return bad


def learned_squares(series: StoredSeries) -> NDArray[np.void]:
    """Return the entries of the learned list that stand for pixels, each once."""
    if series.learned is None:
        return np.zeros(0, [("pixel", "<i8"), ("edge_px", "<i4"), ("kind", "S8")])
    entries = series.learned[["pixel", "edge_px", "kind"]]
    return np.unique(entries[(entries["pixel"] >= 0) & (entries["edge_px"] > 0)])


def draw_sums(hits: Sum | None, misses: Sum | None, geometry: RunGeometry) -> list[Picture]:
    """Draw both sums on one scale, and where the hits' spots lie, with rings of resolution."""
    there = [(s, what) for s, what in ((hits, "hits"), (misses, "kept misses")) if s is not None]
    binned = [_binned(s.mean) for s, _ in there]
    most = max(range(len(there)), key=lambda k: there[k][0].n_frames)  # its noise is the least
    seen = binned[most][np.isfinite(binned[most])]
    low, high = np.quantile(seen, (0.01, 0.998)) if len(seen) else (0.0, 1.0)
    pictures = []
    for (one, what), image in zip(there, binned, strict=True):
        figure, axes = _panel(one.mean.shape, geometry, "white")
        shown = axes.imshow(
            image,
            extent=(-0.5, one.mean.shape[1] - 0.5, one.mean.shape[0] - 0.5, -0.5),
            cmap="viridis",
            vmin=low,
            vmax=max(float(high), float(low) + 1e-6),
            interpolation="nearest",
        )
        bar = figure.colorbar(shown, ax=axes, shrink=0.8)
        bar.set_label("photons a pixel a frame", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        unread = f", {one.n_unread} could not be read" if one.n_unread else ""
        pictures.append(Picture(_png(figure), f"sum of {one.n_frames} {what}{unread}"))
    if hits is not None:
        figure, axes = _panel(hits.mean.shape, geometry, "#30638e")
        axes.plot(hits.fs, hits.ss, ".", ms=2, color="#d1495b", alpha=0.7)
        text = f"the {len(hits.fs)} spots found in these {hits.n_frames} hits"
        pictures.append(Picture(_png(figure), text))
    return pictures


def _binned(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return means of squares, NaN where all is masked."""
    n = max(1, -(-max(image.shape) // SHOWN_PX))
    ss, fs = (-(-size // n) * n for size in image.shape)
    padded = np.full((ss, fs), np.nan, np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    squares = padded.reshape(ss // n, n, fs // n, n)
    n_valid = np.isfinite(squares).sum(axis=(1, 3))
    means = np.nansum(squares, axis=(1, 3)) / np.maximum(n_valid, 1)
    return np.where(n_valid > 0, means, np.nan).astype(np.float32)


def _panel(shape: tuple[int, ...], geometry: RunGeometry, color: str) -> tuple[Figure, Axes]:
    """Return a panel of the detector with rings of resolution, where the geometry is known."""
    figure, axes = _canvas(SUM_IN)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5), aspect="equal")
    axes.set_facecolor("#f4f4f4")
    axes.tick_params(labelsize=7)
    center, size = geometry.beam_center_px, geometry.pixel_size_m
    if center is None or size is None or not geometry.clen_m or not geometry.photon_energy_eV:
        return figure, axes
    at = center[0] - 0.5, center[1] - 0.5
    diagonal = 0.5 * math.hypot(*shape)
    last = 0.0
    for d_A in RINGS_A:
        sine = HC_EV_A / geometry.photon_energy_eV / (2 * d_A)
        if sine >= math.sin(math.pi / 4):
            break
        radius = geometry.clen_m * math.tan(2 * math.asin(sine)) / size[0]
        if radius - last < RING_STEP * diagonal or radius > diagonal:
            continue
        last = radius
        axes.add_patch(Circle(at, radius, fill=False, color=color, lw=0.8, ls=":"))
        axes.annotate(
            f"{d_A:g} Å", (at[0], at[1] - radius), color=color, fontsize=7, ha="center",
            annotation_clip=True,
        )  # fmt: skip
    return figure, axes


def draw_learned(series: Sequence[StoredSeries], shape: tuple[int, int]) -> Picture:
    """Draw where the pixels lie that frames of these series have shown to be bad."""
    figure, axes = _panel(shape, RunGeometry(), "white")
    found = np.unique(np.concatenate([learned_squares(one) for one in series]))
    for kind, marker, color in (("hot", "o", "#d1495b"), ("dead", "s", "#222222"),
                                ("shadow", "s", "#30638e")):  # fmt: skip
        mine = found[found["kind"] == kind.encode()]
        if len(mine):
            row, column = np.divmod(mine["pixel"], shape[1])
            half = 0.5 * (mine["edge_px"] - 1)
            label = f"{kind} ({len(mine)})"
            axes.plot(column + half, row + half, marker, ms=3, ls="", color=color, label=label)
    axes.legend(fontsize=8, loc="upper right")
    return Picture(_png(figure), "learned pixels (dead and shadowed ones are squares of pixels)")


def _canvas(edge_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(edge_in, edge_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return data.getvalue()
