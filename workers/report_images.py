"""The images of a report: how they are read, panels to draw them on, a few hits with their spots.

One rule: an image is in memory alone; one that cannot be read is said to be missing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import h5py
import hdf5plugin  # noqa: F401  (its import registers the filters of stored images)
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from hitfinder.models.water import HC_EV_A
from hitfinder.stream.nexus import RunGeometry
from hitfinder.workers.hit_picture import draw_hit
from hitfinder.workers.report_series import H5_ERRORS, StoredSeries

N_BEST, N_MIDDLE = 4, 2
RINGS_A = (20, 10, 7, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.4, 1.2, 1, 0.8)
RING_STEP = 0.12  # least distance of rings, of the half diagonal
HIT_IN, DETECTOR_IN, DPI = 4.2, 4.6, 90

Frames = NDArray[np.void]


@dataclass(frozen=True, slots=True, eq=False)
class StoredImage:
    """An image as received, with its spots.

    Attributes:
        frame: its row of `StoredSeries.frames`.
        pixels: counts (ss, fs).
        fs, ss: float32 (n_peaks,), pixels, centre of the first pixel 0.0.
    """

    frame: np.void
    pixels: NDArray[np.unsignedinteger]
    fs: NDArray[np.float32]
    ss: NDArray[np.float32]


def stored_images(series: StoredSeries, frames: NDArray[np.void]) -> Iterator[StoredImage | None]:
    """Yield the images of some frames of a series, in their files' order.

    None stands for one that cannot be read: its file may have been moved away since.
    """
    for code in np.unique(frames["file"]).tolist():
        mine = np.sort(frames[frames["file"] == code], order="row")
        try:
            path = series.folder / series.files[code]
            file = h5py.File(path, "r", libver="latest", swmr=True)
        except H5_ERRORS:
            yield from [None] * len(mine)
            continue
        with file:
            yield from (_read_image(file, frame) for frame in mine)


def _read_image(file: h5py.File, frame: np.void) -> StoredImage | None:
    row = int(frame["row"])
    try:
        pixels, peaks = file["entry/data/data"][row], file["entry/result"]
        n = int(peaks["nPeaks"][row])
        fs, ss = peaks["peakXPosRaw"][row, :n], peaks["peakYPosRaw"][row, :n]
    except H5_ERRORS:
        return None
    return StoredImage(frame, pixels, fs, ss)


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
    figure, axes = canvas(HIT_IN)
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
    return Picture(png_of(figure), ", ".join(s for s in said if s))


def _if_known(text: str, value: float) -> str:
    return text if math.isfinite(value) else ""


def panel(shape: tuple[int, ...], geometry: RunGeometry, color: str) -> tuple[Figure, Axes]:
    """Return a panel of the detector with rings of resolution, where the geometry is known."""
    figure, axes = canvas(DETECTOR_IN)
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


def canvas(edge_in: float) -> tuple[Figure, Axes]:
    """Return a square figure for pixels."""
    figure = Figure(figsize=(edge_in, edge_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    return data.getvalue()
