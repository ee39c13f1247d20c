"""Small recorded series in HDF5 files, as `replay` takes them."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from tests.system.frames import SHAPE, wire_series


def recorded_series(folder: Path, numbers: range, n_frames: int) -> list[Path]:
    """Write a file for each number: dim frames, every second with five spots, one hot pixel."""
    packed = hdf5plugin.Bitshuffle(cname="lz4")
    paths = []
    for number in numbers:
        series = wire_series("v2", number, n_frames, has_spots=True, hot_pixels=[5000 + number])
        paths.append(folder / f"run{number:02}.h5")
        with h5py.File(paths[-1], "w") as file:
            images = np.stack(series.pixels)
            file.create_dataset("entry/data/data", data=images, chunks=(1, *SHAPE), **packed)
    return paths
