"""Frames of a series added up, and the pixels that they have shown to be bad.

One rule: what is summed is a stated number of frames, spread evenly over the series; an image
that cannot be read is counted, never passed over in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.models.masks import valid_from_gap_value, valid_from_pixel_mask
from hitfinder.stream.nexus import RunGeometry
from hitfinder.workers.report_images import Frames, Picture, panel, png_of, stored_images
from hitfinder.workers.report_series import StoredSeries

MAX_SUMMED = 100
SHOWN_PX = 300  # longer edge of a sum as it is shown: coarse, so that single spots are seen


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
        figure, axes = panel(one.mean.shape, geometry, "white")
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
        pictures.append(Picture(png_of(figure), f"sum of {one.n_frames} {what}{unread}"))
    if hits is not None:
        figure, axes = panel(hits.mean.shape, geometry, "#30638e")
        axes.plot(hits.fs, hits.ss, ".", ms=2, color="#d1495b", alpha=0.7)
        text = f"the {len(hits.fs)} spots found in these {hits.n_frames} hits"
        pictures.append(Picture(png_of(figure), text))
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


def draw_learned(series: Sequence[StoredSeries], shape: tuple[int, int]) -> Picture:
    """Draw where the pixels lie that frames of these series have shown to be bad."""
    figure, axes = panel(shape, RunGeometry(), "white")
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
    return Picture(png_of(figure), "learned pixels (dead and shadowed ones are squares of pixels)")
