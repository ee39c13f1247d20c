"""Noise-free patterns from files: sparse pattern_sim files, or the peaks of a data set tree.

One rule: whatever file a pattern comes from, it is cut, scaled to 3e8 photons a pulse and its
spots are named as the shipped ones' are (`make_data.py`, `patterns.py`). Layouts: `peaks_NN.h5`
with group `size_10000nm` (sparse rows `indptr`, flat pixel `index`, expected `photons`; file
attributes `dataset`, `nphotons`, `n_rows_ss`, `n_cols_fs`), as made from CrystFEL's pattern_sim;
and the seed report's tree, `[images/]peaks/01..09/*.h5`, a dense `/entry/data/data` in each file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that images are packed with)
import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.make_data import CUT_PHOTONS
from hitfinder.sim.patterns import Pattern, named_pattern
from hitfinder.sim.physics import PULSE_PHOTONS, Detector, SimulationError, data_sets

GROUP = "size_10000nm"
IMAGE = "entry/data/data"


def read_patterns(path: Path) -> dict[str, tuple[Pattern, ...]]:
    """Return the patterns of a sparse file, a folder of such files, or a data set tree.

    Args:
        path: `peaks_NN.h5`; a folder with some of them; or a tree's top, with or without its
            `images` folder. Blanks of a tree (`peak` false, or no photon at all) are left out.

    Returns:
        Data set name ("01" to "09", those found) -> patterns in the order of the file or of the
        files' names; expected photons at 3e8 a pulse, every pixel of at least 1e-3 of them.

    Raises:
        SimulationError: nothing to read there, or a file that is not what its place says.
    """
    if not path.exists():
        raise SimulationError(f"patterns {path}: no such file or folder")
    if path.is_file():
        files, reader = [path], _sparse_file
    elif folder := tree_peaks(path):
        files, reader = sorted(folder.glob("[0-9][0-9]/*.h5")), _dense_file
    else:
        files, reader = sorted(path.glob("peaks_[0-9][0-9].h5")), _sparse_file
    found: defaultdict[str, list[Pattern]] = defaultdict(list)
    for file in files:
        for name, pattern in reader(file):
            found[name].append(pattern)
    if not found:
        raise SimulationError(
            f"patterns {path}: none found; expected peaks_NN.h5 files or a tree with "
            "peaks/01 to peaks/09"
        )
    return {name: tuple(found[name]) for name in sorted(found)}


def tree_peaks(top: Path) -> Path | None:
    """Return the `peaks` folder of a data set tree, None where `top` is no tree."""
    for folder in (top / "images" / "peaks", top / "peaks"):
        if folder.is_dir():
            return folder
    return None


def _sparse_file(path: Path) -> Iterator[tuple[str, Pattern]]:
    """Yield every 10 um frame of a sparse file with its data set's name."""
    try:
        with h5py.File(path) as file:
            name = f"{int(file.attrs['dataset']):02d}"
            shape = (int(file.attrs["n_rows_ss"]), int(file.attrs["n_cols_fs"]))
            scale = PULSE_PHOTONS / float(file.attrs["nphotons"])
            frames = file[GROUP]
            index, photons = frames["index"][:], frames["photons"][:]
            starts = frames["indptr"][:]
    except (OSError, KeyError, ValueError) as reason:
        raise SimulationError(
            f"patterns {path}: {reason}; expected a sparse pattern_sim file with {GROUP}"
        ) from reason
    if name not in data_sets():
        raise SimulationError(f"patterns {path}: data set {name!r}; expected 01 to 09")
    if len(index) != len(photons) or len(starts) < 2 or starts[-1] != len(index):
        raise SimulationError(
            f"patterns {path}: {len(index)} pixels, {len(photons)} photons, last row ends at "
            f"{starts[-1:]}; the file is cut off or mixed up"
        )
    if len(index) and int(index.max()) >= shape[0] * shape[1]:
        raise SimulationError(f"patterns {path}: pixel {index.max()} lies off an array of {shape}")
    for begin, end in zip(starts[:-1], starts[1:], strict=True):
        yield name, _cut(name, shape, index[begin:end], photons[begin:end] * np.float32(scale))


def _dense_file(path: Path) -> Iterator[tuple[str, Pattern]]:
    """Yield the pattern of one image of a tree, unless it is a blank's."""
    name = path.parent.name
    try:
        with h5py.File(path) as file:
            image = np.asarray(file[IMAGE][()], np.float32)
            is_blank = not file.attrs.get("peak", True)
            n_photons = float(file.attrs.get("n_photons", PULSE_PHOTONS))
    except (OSError, KeyError, ValueError) as reason:
        raise SimulationError(
            f"patterns {path}: {reason}; expected one image at /{IMAGE}"
        ) from reason
    if name not in data_sets():
        raise SimulationError(f"patterns {path}: folder {name!r}; expected 01 to 09")
    if image.ndim != 2 or not np.isfinite(image).all() or image.min(initial=0.0) < 0:
        raise SimulationError(
            f"patterns {path}: shape {image.shape}; expected one (ss, fs) image of expected "
            "photons, none negative"
        )
    index = np.flatnonzero(image)
    if len(index) and not is_blank:
        photons = image.reshape(-1)[index] * np.float32(PULSE_PHOTONS / n_photons)
        yield name, _cut(name, (image.shape[0], image.shape[1]), index, photons)


def _cut(
    name: str, shape: tuple[int, int], index: NDArray[Any], photons: NDArray[np.float32]
) -> Pattern:
    """Return the pattern without the faint pixels that the shipped ones lack too."""
    kept = photons >= CUT_PHOTONS
    pixels = index[kept].astype(np.int32)
    return named_pattern(Detector(shape=shape), data_sets()[name], pixels, photons[kept])
