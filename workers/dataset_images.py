"""How one image of a data set tree is written: HDF5 with bitshuffle-LZ4, attributes beside it.

One rule: a file is whole or not there: it is written under another name and renamed. The image
is `/entry/data/data` (ss, fs), where the report's program and CrystFEL look for it; beam centre
and pixel size stand where NXmx has them, so that `replay` knows them too. Energy and distance are
attributes alone: said twice, they could disagree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.pattern_files import IMAGE
from hitfinder.sim.physics import Detector
from hitfinder.stream.swmr import replace_file
from hitfinder.workers.dataset import DatasetError, ImageAttributes

REPORT_NAMES = {
    "clen_m": "clen",
    "photon_energy_eV": "photon_energy",
    "has_peak": "peak",
    "n_photons": "n_photons",
    "pattern": "pattern",
    "label_photons": "label_photons",
    "made_with": "made_with",
}


def write_image(
    path: Path, image: NDArray[Any], said: ImageAttributes, detector: Detector
) -> None:
    """Write one image with its attributes; folders are made, an older file is replaced.

    Args:
        image: (ss, fs).
        said: attributes; those that are None are left out.
        detector: whose beam centre and pixel size are written.

    Raises:
        DatasetError: the disk is full, or something else is in the way.
    """

    def write(part: Path) -> None:
        with h5py.File(part, "w") as file:
            file.create_dataset(
                IMAGE, data=image, chunks=image.shape, **hdf5plugin.Bitshuffle(cname="lz4")
            )
            _write_geometry(file, detector)
            set_attributes(file, said)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, write)
    except OSError as reason:
        raise DatasetError(f"{path} cannot be written: {reason}") from reason


def set_attributes(file: h5py.File, said: ImageAttributes) -> None:
    """Set the attributes that are not None, under the report's names."""
    for field, name in REPORT_NAMES.items():
        value = getattr(said, field)
        if value is not None:
            file.attrs[name] = value


def label_of(peaks: NDArray[np.floating], label_photons: float) -> NDArray[np.uint8]:
    """Return the label image: 1 where at least `label_photons` photons are expected, else 0."""
    return np.asarray(peaks >= np.float32(label_photons), dtype=np.uint8)


def _write_geometry(file: h5py.File, detector: Detector) -> None:
    fs, ss = detector.center_px
    values = {
        "beam_center_x": (fs, "pixel"),
        "beam_center_y": (ss, "pixel"),
        "x_pixel_size": (detector.pixel_size_m, "m"),
        "y_pixel_size": (detector.pixel_size_m, "m"),
    }
    for name, (value, unit) in values.items():
        file[f"entry/instrument/detector/{name}"] = value
        file[f"entry/instrument/detector/{name}"].attrs["units"] = unit
