"""The front end: pixels -> 4 x 4 pooled maps, and the tables of a series' cells.

One rule: a pixel counts if it is valid and below the largest value of its type; everything after
this file sees cells of 4 x 4 pixels only. The C pooling of the decoder makes the same maps; this
is the definition. Cells at the lower and right edge may be incomplete.

Suffixes: H = ss, W = fs (cells), N bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.errors import ModelError
from hitfinder.models.geometry import Geometry
from hitfinder.models.image import Image, LitPlanes, counts_at

if TYPE_CHECKING:
    import torch

CELL_PX = 4
RING_CELLS = 1
"""Width of a background ring in cells: one, as powder rings are that thin."""
N_SECTORS = 4
"""Azimuthal sectors of a folded quadrant (0 = along fs), enough to see polarisation."""
MAX_BINS = 2**16
GROUP = 8
"""Cells of a row whose rings are looked up together."""


@dataclass(frozen=True, slots=True, eq=False)
class Pooled:
    """Pooled maps of one frame.

    Attributes:
        sums: uint32 (ceil(ss / 4), ceil(fs / 4)), photons of the cell's counted pixels.
        maxima: uint32, same shape, largest counted pixel.
        n_photons: sum over all counted pixels.
        n_saturated: valid pixels that read the largest value of their type.
        on_device: float32 sums and maxima on the device where they were made; None if that was
            the host.
    """

    sums: NDArray[np.uint32]
    maxima: NDArray[np.uint32]
    n_photons: int
    n_saturated: int
    on_device: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class NarrowTables:
    """A detector's cells in as few bytes as they take, in host memory.

    The ring of a cell is that of its group, 8 cells of a row, and what it lies above it: radius
    grows by at most a cell from one to the next, so 8 consecutive rings, one register, serve all.

    Attributes:
        exposure_HW: uint8, counted pixels in the cell.
        bin_HW: uint16, ring * N_SECTORS + sector.
        lowest: uint16 (H, groups), least ring of the group.
        above: uint8 (H, 8 * groups), 0 to 7; what lies beyond the row repeats its last cell.
    """

    exposure_HW: NDArray[np.uint8]
    bin_HW: NDArray[np.uint16]
    lowest: NDArray[np.uint16]
    above: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class CellTables:
    """What the cells of a detector are, made once for a geometry and a mask.

    Attributes:
        exposure_HW: float32, counted pixels in the cell, 0 to 16.
        ring_HW: int32, ring index of the cell.
        bin_HW: int32, ring * N_SECTORS + sector.
        exposure_N: float32, counted pixels in the bin.
        narrow: the same tables as a core reads them for every frame.
        radius_N: float64 numpy, mean distance from the beam centre in pixels along fs.
        cos2_N: float64 numpy, mean x^2 / r^2.
        cosine_N, sine_N: float64 numpy, mean x / r and y / r: not 0 where a bin is one-sided.
        n_rings: rings from the innermost to the outermost cell.
        n_valid: counted pixels of the detector.
    """

    exposure_HW: NDArray[np.float32]
    ring_HW: NDArray[np.int32]
    bin_HW: NDArray[np.int32]
    exposure_N: NDArray[np.float32]
    narrow: NarrowTables
    radius_N: NDArray[np.float64]
    cos2_N: NDArray[np.float64]
    cosine_N: NDArray[np.float64]
    sine_N: NDArray[np.float64]
    n_rings: int
    n_valid: int


def cell_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the shape of the pooled maps of an image of this shape."""
    return -(-shape[0] // CELL_PX), -(-shape[1] // CELL_PX)


def pool_numpy(valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the number of True pixels of each cell, float32 (H, W)."""
    height, width = cell_shape(valid.shape)
    padded = np.zeros((height * CELL_PX, width * CELL_PX), np.uint8)
    padded[: valid.shape[0], : valid.shape[1]] = valid
    # Whole rows, then whole columns: numpy's sums over short axes are ten times slower.
    rows = sum((padded[k::CELL_PX] for k in range(CELL_PX)), np.zeros((), np.uint8))
    cells = sum((rows[:, k::CELL_PX] for k in range(CELL_PX)), np.zeros((), np.uint8))
    return np.asarray(cells, np.float32)


def cell_tables(geometry: Geometry, valid: NDArray[np.bool_]) -> CellTables:
    """Make the tables of a series.

    Args:
        geometry: beam centre and pixel size are used, nothing else.
        valid: bool (ss, fs), True where a pixel counts.

    Raises:
        ModelError: the mask's shape is not the detector's, or it has too many rings.
    """
    if valid.shape != geometry.shape:
        raise ModelError(f"mask of shape {valid.shape}; expected (ss, fs) = {geometry.shape}")
    exposure = pool_numpy(valid)
    height, width = exposure.shape
    middle = (CELL_PX - 1) / 2
    x = np.arange(width) * CELL_PX + middle - geometry.beam_center_px[0]
    y = np.arange(height) * CELL_PX + middle - geometry.beam_center_px[1]
    y = y * (geometry.pixel_size_m[1] / geometry.pixel_size_m[0])
    radius = np.hypot(x[None, :], y[:, None])
    cos2 = np.square(x[None, :]) / np.maximum(np.square(radius), 1e-9)
    ring = np.floor(radius / (CELL_PX * RING_CELLS)).astype(np.int64)
    ring -= ring.min()  # a beam far off the detector must not allocate rings in between
    angle = np.arctan2(np.abs(y)[:, None], np.abs(x)[None, :])
    sector = np.minimum((angle * (2 * N_SECTORS / np.pi)).astype(np.int64), N_SECTORS - 1)
    n_rings = int(ring.max()) + 1
    if n_rings * N_SECTORS > MAX_BINS:
        raise ModelError(f"{n_rings} rings of {N_SECTORS} sectors; expected up to {MAX_BINS} bins")
    index = ring * N_SECTORS + sector
    weight = np.bincount(index.ravel(), exposure.ravel(), n_rings * N_SECTORS)

    def mean(of: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.bincount(index.ravel(), (of * exposure).ravel(), len(weight))
        return np.asarray(total / np.maximum(weight, 1e-9))

    return CellTables(
        exposure_HW=exposure,
        ring_HW=ring.astype(np.int32),
        bin_HW=index.astype(np.int32),
        exposure_N=weight.astype(np.float32),
        narrow=_narrow(exposure, ring, index),
        radius_N=mean(radius),
        cos2_N=mean(cos2),
        cosine_N=mean(x[None, :] / np.maximum(radius, 1e-9)),
        sine_N=mean(y[:, None] / np.maximum(radius, 1e-9)),
        n_rings=n_rings,
        n_valid=int(valid.sum()),
    )


def _narrow(
    exposure: NDArray[np.float32], ring: NDArray[np.int64], index: NDArray[np.int64]
) -> NarrowTables:
    height, width = ring.shape
    groups = np.pad(ring, ((0, 0), (0, -width % GROUP)), "edge").reshape(height, -1, GROUP)
    lowest = groups.min(axis=2)
    # Eight cells that begin on the edge of a ring may, by rounding, end in a ninth.
    above = np.minimum(groups - lowest[:, :, None], GROUP - 1)
    return NarrowTables(
        exposure_HW=exposure.astype(np.uint8),
        bin_HW=index.astype(np.uint16),
        lowest=lowest.astype(np.uint16),
        above=above.reshape(height, -1).astype(np.uint8),
    )


def pool_frame(image: Image, valid: NDArray[np.bool_]) -> Pooled:
    """Pool one frame: the definition of what the decoder's C pooling makes.

    Args:
        image: uint8, uint16 or uint32 (ss, fs).
        valid: bool (ss, fs).

    Raises:
        ModelError: image and mask have different shapes.
    """
    if isinstance(image, LitPlanes):
        raise ModelError("a frame as bit planes without its maps; expected both, as decoded")
    if image.shape != valid.shape:
        raise ModelError(f"image of shape {image.shape}; expected (ss, fs) = {valid.shape}")
    top = np.iinfo(image.dtype).max
    saturated = (image == top) & valid
    height, width = cell_shape((image.shape[0], image.shape[1]))
    counts = np.zeros((height * CELL_PX, width * CELL_PX), np.uint64)
    counts[: image.shape[0], : image.shape[1]] = np.where(valid & ~saturated, image, 0)
    cells = counts.reshape(height, CELL_PX, width, CELL_PX)
    # One axis at a time: a reduction over two strided axes is several times slower.
    sums = cells.sum(1).sum(2)
    return Pooled(
        sums=sums.clip(max=2**32 - 1).astype(np.uint32),
        maxima=cells.max(1).max(2).astype(np.uint32),
        n_photons=int(sums.sum()),
        n_saturated=int(saturated.sum()),
    )


def pool_again(
    pooled: Pooled,
    image: Image,
    valid: NDArray[np.bool_],
    pixels: NDArray[np.int64],
) -> Pooled:
    """Return a frame's maps after pixels were taken out of its mask.

    Args:
        pooled: as they were made before.
        image: uint8, uint16 or uint32 (ss, fs).
        valid: bool (ss, fs), the mask as it is now.
        pixels: flat indices of those that left it, each once.
    """
    sums, maxima = pooled.sums.copy(), pooled.maxima.copy()
    row, column = np.divmod(pixels, image.shape[1])
    top = np.iinfo(image.dtype).max
    counts = counts_at(image, pixels)
    n_photons = pooled.n_photons - int(counts[counts != top].sum(dtype=np.int64))
    i, j = np.unique(np.stack((row, column)) // CELL_PX, axis=1)
    side = np.arange(CELL_PX)
    rows, columns = np.broadcast_arrays(
        (i * CELL_PX)[:, None, None] + side[:, None], (j * CELL_PX)[:, None, None] + side
    )
    inside = (rows < image.shape[0]) & (columns < image.shape[1])
    near = np.where(inside, rows * image.shape[1] + columns, 0)
    counted = counts_at(image, near).astype(np.int64)
    counted[~inside | ~valid.reshape(-1)[near] | (counted == top)] = 0
    sums[i, j] = np.minimum(counted.sum((1, 2)), 2**32 - 1)
    maxima[i, j] = counted.max((1, 2))
    return Pooled(sums, maxima, n_photons, pooled.n_saturated - int((counts == top).sum()))
