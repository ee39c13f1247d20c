"""Which pixels count: True is a good pixel, everywhere in this program.

One rule: masks only take pixels away; those of different sources are joined by `and`. Sources: the
header's pixel mask, the value gaps hold in images, the operator's mask file, CrystFEL bad regions.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.models.errors import GeometryError

BAD_BITS = 0x1FF
"""Gap, dead, under- and over-responding, noisy, NeXus's undefined 5 to 7, and 8, the user's."""
MASK_DATASETS = ("/entry/mask", "/entry/data/mask", "/entry_1/data_1/mask", "/mask", "/data/data")
"""Where to look in an HDF5 file when the operator names no dataset."""


def valid_from_pixel_mask(
    pixel_mask: NDArray[np.unsignedinteger], bad_bits: int = BAD_BITS
) -> NDArray[np.bool_]:
    """Return pixels without any of the bad bits; bool (ss, fs)."""
    return np.asarray((pixel_mask & pixel_mask.dtype.type(bad_bits)) == 0)


def valid_from_gap_value(image: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """Return pixels below the largest value of their type, which gaps and overflows hold."""
    return np.asarray(image != np.iinfo(image.dtype).max)


def read_mask_file(path: Path | str, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read an operator's mask.

    Args:
        path: `.npy`, or HDF5, with the dataset after a colon if it is not one of the usual
            (`mask.h5:/my/mask`). Boolean masks are True = good; integer masks 0 = good as in a
            pixel mask of a detector, unless they hold only 0 and 1 with more ones than zeros, as
            CrystFEL writes them (1 = good).
        shape: (ss, fs) expected; None for any.

    Returns:
        bool (ss, fs), True = good.

    Raises:
        GeometryError: no such file or dataset, another shape, or not a mask.
    """
    name, _, dataset = str(path).partition(":")
    file = Path(name)
    if not file.is_file():
        raise GeometryError(f"mask file {file}: no such file; check geometry.mask_file")
    mask = _read_npy(file) if file.suffix == ".npy" else _read_hdf5(file, dataset)
    if mask.ndim != 2 or not mask.size or shape not in (None, mask.shape):
        expected = "two axes" if shape is None else f"(ss, fs) = {shape}"
        raise GeometryError(f"mask {path}: shape {mask.shape}; expected {expected}")
    if mask.dtype == np.bool_:
        return np.asarray(mask)
    if mask.dtype.kind not in "iu":
        raise GeometryError(f"mask {path}: type {mask.dtype}; expected booleans or integers")
    if int(mask.min()) >= 0 and int(mask.max()) == 1 and mask.mean() > 0.5:
        return np.asarray(mask == 1)
    return np.asarray(mask == 0)


def mask_sha256(mask: NDArray[np.bool_]) -> str:
    """Return what a mask is known by: the sha256 of its bytes, rows first, 1 = good."""
    return hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()


def _read_npy(file: Path) -> NDArray[np.generic]:
    try:
        mask = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as err:
        raise GeometryError(f"mask file {file}: not a .npy array ({err})") from err
    return np.asarray(mask)


def _read_hdf5(file: Path, dataset: str) -> NDArray[np.generic]:
    names = (dataset,) if dataset else MASK_DATASETS
    try:
        with h5py.File(file) as opened:
            for name in names:
                if isinstance(opened.get(name), h5py.Dataset):
                    return np.asarray(np.squeeze(opened[name][()]))
    except OSError as err:
        raise GeometryError(f"mask file {file}: not an HDF5 file ({err})") from err
    raise GeometryError(
        f"mask file {file}: none of {', '.join(names)} is a dataset; name it after a colon"
    )
