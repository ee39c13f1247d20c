"""The master file of a series: NXmx, as DIALS, XDS plug-ins and Jungfraujoch's readers want it.

One rule: geometry is what the header or the operator's config says, never a prediction, and a
link never names a file that is not there. Definition: NeXus NXmx; coordinate system McStas (z
along the beam, y up). Seen from the sample an EIGER's fast axis runs to the right, its slow
axis down: (-1, 0, 0) and (0, -1, 0). Readers take the first entry, instrument, detector, beam.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.hitfile import stamp
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.swmr import LIBVER, plain_text, replace_file

HC_EV_ANGSTROM = 12398.41984
USER_MASK_BIT = 1 << 8  # NeXus pixel_mask: bit 8 is the user's mask
_DETECTOR = "/entry/instrument/detector"
_TRANSLATION = f"{_DETECTOR}/transformations/translation"
_MODULE_OFFSET = f"{_DETECTOR}/module/module_offset"


@dataclass(frozen=True, slots=True)
class RunGeometry:
    """What the header or the config says about the experiment, and which of them won.

    Attributes:
        beam_center_px: (fs, ss), the corner of the first pixel is (0, 0).
        pixel_size_m: (fs, ss).
        clen_m: sample to detector.
        photon_energy_eV: of the beam.
        sources: for each of the names above `header`, `config` or another short name.
    """

    beam_center_px: tuple[float, float] | None = None
    pixel_size_m: tuple[float, float] | None = None
    clen_m: float | None = None
    photon_energy_eV: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_header(cls, start: SeriesStart) -> RunGeometry:
        """Return what a series header alone says."""
        names = ("beam_center_px", "pixel_size_m", "clen_m", "photon_energy_eV")
        said = {n: getattr(start, n) for n in names}
        sources = {n: "header" for n in names if said[n] is not None}
        return cls(**said, sources=sources)

    def to_json(self) -> str:
        """Return the geometry as JSON, for the ledger."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunGeometry:
        """Return what `to_json` wrote."""
        said = json.loads(text)
        for name in ("beam_center_px", "pixel_size_m"):
            if said[name] is not None:
                said[name] = tuple(said[name])
        return cls(**said)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A hit file that a master links: name beside the master, number of images.

    `closed` says that nobody writes it any more: only then may the virtual dataset show it,
    because readers take a source they cannot open for zeros.
    """

    name: str
    n_rows: int
    closed: bool


def write_master(
    path: Path,
    start: SeriesStart,
    geometry: RunGeometry,
    provenance: Mapping[str, Any],
    *,
    shape: tuple[int, int] | None,
    dtype: str | None,
    pixel_mask: NDArray[np.uint32] | None,
) -> None:
    """Write a master without images; `link_images` adds them.

    Args:
        path: written under a temporary name and renamed.
        start: the header; its flatfield is kept where it has the images' shape (the detector
            has applied it already).
        shape: (ss, fs) of the images as they are, which wins over the header.
        dtype: pixel type of the images as they are.
        pixel_mask: uint32 (ss, fs), NeXus bits, from `combined_mask`.
    """

    def write(part: Path) -> None:
        with h5py.File(part, "w", libver=LIBVER) as file:
            file.attrs.update({"NX_class": "NXroot", "default": "entry"})
            entry = _group(file, "entry", "NXentry")
            entry.attrs["default"] = "data"
            entry["definition"] = "NXmx"
            if start.arm_date:
                entry["start_time"] = plain_text(start.arm_date)
            _group(entry, "data", "NXdata")
            _write_experiment(entry, geometry)
            detector = _group(entry["instrument"], "detector", "NXdetector")
            _write_detector(detector, start, geometry, dtype)
            _write_position(detector, geometry, shape)
            flatfield = start.flatfield
            if flatfield is not None and flatfield.shape != shape:
                flatfield = None
            for name, pixels in (("pixel_mask", pixel_mask), ("flatfield", flatfield)):
                if pixels is not None:
                    detector.create_dataset(
                        name, data=pixels, compression="gzip", compression_opts=1
                    )
            stamp(_group(entry, "hitfinder", "NXcollection"), provenance)

    replace_file(path, write)


def combined_mask(
    header: NDArray[np.uint32] | None, bad_pixels: NDArray[np.bool_] | None
) -> NDArray[np.uint32] | None:
    """Return the header's mask with what else is bad as the user's bit; None if there is none.

    Args:
        header: uint32 (ss, fs), bits of the protocol note, section 7.
        bad_pixels: bool (ss, fs), True where a pixel must not be used.
    """
    if bad_pixels is None:
        return header
    if header is None or header.shape != bad_pixels.shape:
        return bad_pixels.astype(np.uint32) * np.uint32(USER_MASK_BIT)
    ours = np.where(bad_pixels & (header == 0), USER_MASK_BIT, 0).astype(np.uint32)
    return np.bitwise_or(header, ours)


def link_images(path: Path, files: Sequence[ImageFile]) -> None:
    """Make a master name exactly these files: `data_000001` ... and, over them, `data`.

    dxtbx reads the signal, or else the first member only, so the closed files of the first
    one's shape and type also stand as one virtual dataset.
    """

    def write(part: Path) -> None:
        shutil.copyfile(path, part)
        with h5py.File(part, "r+", libver=LIBVER) as file:
            data = file["entry/data"]
            for name in list(data):
                del data[name]
            for i, image_file in enumerate(files, start=1):
                data[f"data_{i:06d}"] = h5py.ExternalLink(image_file.name, "/entry/data/data")
            _stack(data, path.parent, [f for f in files if f.closed and f.n_rows])

    replace_file(path, write)


def _stack(data: h5py.Group, folder: Path, files: Sequence[ImageFile]) -> None:
    """Put the files' images one after another as the virtual dataset `data`."""
    sources: list[tuple[ImageFile, h5py.VirtualSource]] = []
    for image_file in files:
        with h5py.File(folder / image_file.name, "r", libver="latest", swmr=True) as file:
            images = file["entry/data/data"]
            source = h5py.VirtualSource(
                image_file.name, "/entry/data/data", images.shape, images.dtype
            )
        if not sources or (source.shape[1:], source.dtype) == (
            sources[0][1].shape[1:],
            sources[0][1].dtype,
        ):
            sources.append((image_file, source))
    if not sources:
        data.attrs.pop("signal", None)
        return
    first = sources[0][1]
    n_rows = sum(f.n_rows for f, _ in sources)
    layout = h5py.VirtualLayout((n_rows, *first.shape[1:]), first.dtype)
    row = 0
    for image_file, source in sources:
        layout[row : row + image_file.n_rows] = source[: image_file.n_rows]
        row += image_file.n_rows
    data.create_virtual_dataset("data", layout)
    data.attrs["signal"] = "data"


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _write_experiment(entry: h5py.Group, geometry: RunGeometry) -> None:
    _group(entry, "sample", "NXsample")["depends_on"] = "."  # stills: no rotation axis
    beam = _group(_group(entry, "instrument", "NXinstrument"), "beam", "NXbeam")
    if geometry.photon_energy_eV:
        _quantity(
            beam, "incident_wavelength", HC_EV_ANGSTROM / geometry.photon_energy_eV, "angstrom"
        )
        _quantity(beam, "incident_energy", geometry.photon_energy_eV, "eV")


def _quantity(group: h5py.Group, name: str, value: Any, units: str | None = None) -> None:
    """Write a value with its unit; nothing if it is unknown."""
    if value is None:
        return
    group[name] = plain_text(value) if isinstance(value, str) else value
    if units:
        group[name].attrs["units"] = units


def _write_detector(
    detector: h5py.Group, start: SeriesStart, geometry: RunGeometry, dtype: str | None
) -> None:
    detector["type"] = "Pixel"
    center = geometry.beam_center_px or (None, None)
    size = geometry.pixel_size_m or (None, None)
    # dxtbx takes the two highest values of this depth for "no count": it must be the pixel's.
    depth = np.dtype(dtype).itemsize * 8 if dtype else None
    for name, value, units in (
        ("description", start.detector, None),
        ("serial_number", start.serial_number, None),
        ("distance", geometry.clen_m, "m"),
        ("detector_distance", geometry.clen_m, "m"),
        ("beam_center_x", center[0], "pixel"),
        ("beam_center_y", center[1], "pixel"),
        ("x_pixel_size", size[0], "m"),
        ("y_pixel_size", size[1], "m"),
        ("sensor_thickness", start.sensor_thickness_m, "m"),
        ("sensor_material", start.sensor_material, None),
        ("count_time", start.count_time_s, "s"),
        ("frame_time", start.frame_time_s, "s"),
        # Without it dxtbx trusts the negative numbers that it makes of "no count".
        ("underload_value", 0, None),
        ("saturation_value", start.saturation_value, None),
        ("bit_depth_readout", depth, None),
        ("bit_depth_image", depth, None),
    ):
        _quantity(detector, name, value, units)


def _write_position(
    detector: h5py.Group, geometry: RunGeometry, shape: tuple[int, int] | None
) -> None:
    """Write the module and the chain of axes: directions -> module offset -> translation.

    Without beam centre, pixel size and camera length there is no position, and none is made up.
    """
    module = _group(detector, "module", "NXdetector_module")
    if shape is not None:
        module["data_origin"] = np.zeros(2, np.int64)
        module["data_size"] = np.array(shape, np.int64)
    center, size, clen_m = geometry.beam_center_px, geometry.pixel_size_m, geometry.clen_m
    if center is None or size is None or clen_m is None:
        detector["depends_on"] = "."
        return
    detector["depends_on"] = _TRANSLATION
    chain = _group(detector, "transformations", "NXtransformations")
    _axis(chain, "translation", clen_m, (0, 0, 1), ".")
    corner = np.array([center[0] * size[0], center[1] * size[1], 0.0])
    length = float(np.linalg.norm(corner))
    direction = corner / length if length else np.array([1.0, 0.0, 0.0])
    _axis(module, "module_offset", length, direction, _TRANSLATION)
    _axis(module, "fast_pixel_direction", size[0], (-1, 0, 0), _MODULE_OFFSET)
    _axis(module, "slow_pixel_direction", size[1], (0, -1, 0), _MODULE_OFFSET)


def _axis(group: h5py.Group, name: str, value: float, vector: Any, depends_on: str) -> None:
    group[name] = value
    group[name].attrs.update(
        {
            "transformation_type": "translation",
            "units": "m",
            "vector": np.asarray(vector, np.float64),
            "offset": np.zeros(3),
            "offset_units": "m",
            "depends_on": depends_on,
        }
    )
