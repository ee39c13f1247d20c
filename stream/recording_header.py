"""What a recorded file says about its series: one `SeriesStart` from whatever fields are there.

One rule: a field that is absent or unreadable is None, and what had to be interpreted is named in
`warnings`. Field names: NXmx as DECTRIS writes it, CXI as Cheetah writes it, and the attributes
`clen` and `photon_energy` of the seed's simulated images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.recording_chunks import HDF5_ERRORS

HC_eV_A = 12398.419843320026
# Every unit met in these files, as a factor to metres, electronvolts, seconds or angstroms.
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "micron": 1e-6}
_EV = {"ev": 1.0, "kev": 1e3, "j": 1 / 1.602176634e-19}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ANGSTROM = {"angstrom": 1.0, "a": 1.0, "nm": 10.0, "m": 1e10}

_DETECTOR = "/entry/instrument/detector/"
_SPECIFIC = _DETECTOR + "detectorSpecific/"
# Path, factor where no unit is stated.
_ENERGY = (
    ("/entry/instrument/beam/incident_energy", 1.0),
    (_SPECIFIC + "photon_energy", 1.0),
    (_SPECIFIC + "incident_energy", 1.0),
    ("/LCLS/photon_energy_eV", 1.0),
    ("/instrument/photon_energy_eV", 1.0),
    ("/photon_energy_eV", 1.0),
    ("/entry_1/instrument_1/source_1/energy", _EV["j"]),
    ("/entry/hitfinder/header_photon_energy_eV", 1.0),
)
_WAVELENGTH = (
    ("/entry/instrument/beam/incident_wavelength", 1.0),
    ("/entry/instrument/monochromator/wavelength", 1.0),
    (_SPECIFIC + "wavelength", 1.0),
)
_CLEN = (
    (_DETECTOR + "detector_distance", 1.0),
    (_DETECTOR + "distance", 1.0),
    ("/entry_1/instrument_1/detector_1/distance", 1.0),
    ("/detector_distance", 1.0),
    ("/entry/hitfinder/header_clen_m", 1.0),
)
_ENCODER = (
    ("/LCLS/detector_1/EncoderValue", 1e-3),
    ("/instrument/detector_1/EncoderValue", 1e-3),
)
_SATURATION = (
    _DETECTOR + "saturation_value",
    _SPECIFIC + "saturation_value",
    _SPECIFIC + "countrate_correction_count_cutoff",
)
_FLATFIELDS = (_DETECTOR + "flatfield", _SPECIFIC + "flatfield")
_MASKS = (_DETECTOR + "pixel_mask", _SPECIFIC + "pixel_mask", "/entry_1/data_1/mask")


class HeaderFields:
    """Reads fields of one open file and collects what was odd about them."""

    def __init__(self, file: h5py.File, name: str) -> None:
        self._file = file
        self._name = name
        self.warnings: list[str] = []

    def first(self, places: Sequence[tuple[str, float]], units: dict[str, float]) -> float | None:
        """Return the first positive number that stands at one of `places`, in base units."""
        for path, factor in places:
            found = self._number(path)
            if found is None:
                continue
            value, unit = found
            if np.isnan(value):
                continue
            value *= units.get(unit.lower(), factor) if unit else factor
            if 0 < value < np.inf:
                return value
            self.warnings.append(f"{path} = {value:g} is not a positive number; left out")
        return None

    def any_number(self, path: str) -> float | None:
        """Return the number at a path, whatever its sign; None where there is none."""
        found = self._number(path)
        return None if found is None or not np.isfinite(found[0]) else found[0]

    def attribute(self, *names: str) -> float | None:
        """Return the first number among attributes of the images, their groups and the file."""
        for attributes in self._holders():
            for name in names:
                value = as_number(attributes.get(name))
                if value is not None:
                    return value
        return None

    def _holders(self) -> Iterator[h5py.AttributeManager]:
        """Yield the attributes of the images, then of what encloses them."""
        name = self._name
        while name:
            try:
                yield self._file[name].attrs
            except HDF5_ERRORS:  # a link to a file that is not there
                pass
            name = name.rpartition("/")[0]
        yield self._file.attrs

    def text(self, *paths: str) -> str | None:
        """Return the first text at one of `paths`."""
        for path in paths:
            value = self._scalar(path)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            if isinstance(value, str) and value:
                return value
        return None

    def pixels(
        self, paths: Sequence[str], dtype: type[np.generic], shape: tuple[int, int]
    ) -> NDArray[Any] | None:
        """Return the first array of the image's shape at one of `paths`."""
        for path in paths:
            found = self._dataset(path)
            if found is None:
                continue
            if found.shape == shape and found.dtype.kind in "uif":
                values = self._values(found)
                return None if values is None else values.astype(dtype)
            self.warnings.append(f"{path} has shape {found.shape}, not {shape}; left out")
        return None

    def _dataset(self, path: str) -> h5py.Dataset | None:
        try:
            found = self._file.get(path)
        except HDF5_ERRORS:  # a link to a file that is not there
            return None
        return found if isinstance(found, h5py.Dataset) else None

    def _number(self, path: str) -> tuple[float, str] | None:
        """Return the number at a path and its unit; of a per-frame column the first."""
        found = self._dataset(path)
        if found is None or found.dtype.kind not in "uif" or not found.size:
            return None
        stored = self._values(found)
        if stored is None:
            return None
        values = stored.astype(np.float64).ravel()
        if np.ptp(values) > 1e-3 * abs(values[0]):
            self.warnings.append(
                f"{path} varies from {values.min():g} to {values.max():g} over the frames; "
                f"the header has the first, {values[0]:g}"
            )
        unit = found.attrs.get("units", "")
        return float(values[0]), unit.decode() if isinstance(unit, bytes) else str(unit)

    def _scalar(self, path: str) -> Any:
        found = self._dataset(path)
        if found is None or not found.size:
            return None
        value = self._values(found)
        return None if value is None else value.ravel()[0]

    def _values(self, found: h5py.Dataset) -> NDArray[Any] | None:
        try:
            return np.asarray(found[()])
        except HDF5_ERRORS as error:
            self.warnings.append(f"{found.name} cannot be read ({error}); left out")
            return None


def as_number(value: Any) -> float | None:
    """Return an attribute's value as a finite number, None if it is none."""
    try:
        number = float(np.asarray(value).ravel()[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def read_header(file: h5py.File, name: str, layout: SeriesStart) -> SeriesStart:
    """Return the header of a recorded series: its layout with what the file says of it.

    Args:
        file: the master, or the file itself.
        name: of the image data set in `file`; it may be a link that leads nowhere.
        layout: shape, pixel type and number of frames, as found when the recording was opened.
    """
    fields = HeaderFields(file, name)
    shape = layout.shape or (0, 0)
    described = _geometry(fields) | _detector(fields) | _corrections(fields, shape)
    return replace(
        layout,
        series_uid=layout.series_uid or fields.text(_SPECIFIC + "series_unique_id"),
        warnings=tuple(fields.warnings),
        **described,
    )


def _geometry(fields: HeaderFields) -> dict[str, Any]:
    x_px, y_px = (fields.any_number(_DETECTOR + f"beam_center_{axis}") for axis in "xy")
    x_m, y_m = (fields.first([(_DETECTOR + f"{axis}_pixel_size", 1.0)], _METRES) for axis in "xy")
    return {
        "photon_energy_eV": _photon_energy_eV(fields),
        "clen_m": _clen_m(fields),
        "beam_center_px": None if x_px is None or y_px is None else (x_px, y_px),
        "pixel_size_m": None if x_m is None or y_m is None else (x_m, y_m),
    }


def _detector(fields: HeaderFields) -> dict[str, Any]:
    return {
        "sensor_thickness_m": fields.first([(_DETECTOR + "sensor_thickness", 1.0)], _METRES),
        "sensor_material": fields.text(_DETECTOR + "sensor_material"),
        "count_time_s": fields.first([(_DETECTOR + "count_time", 1.0)], _SECONDS),
        "frame_time_s": fields.first([(_DETECTOR + "frame_time", 1.0)], _SECONDS),
        "detector": fields.text(_DETECTOR + "description"),
        "serial_number": fields.text(_DETECTOR + "detector_number", _DETECTOR + "serial_number"),
        "arm_date": fields.text(
            _SPECIFIC + "data_collection_date", _DETECTOR + "data_collection_date"
        ),
    }


def _corrections(fields: HeaderFields, shape: tuple[int, int]) -> dict[str, Any]:
    saturation = fields.first([(path, 1.0) for path in _SATURATION], {})
    return {
        "saturation_value": None if saturation is None else int(saturation),
        "pixel_mask": fields.pixels(_MASKS, np.uint32, shape),
        "flatfield": fields.pixels(_FLATFIELDS, np.float32, shape),
    }


def _photon_energy_eV(fields: HeaderFields) -> float | None:
    energy = fields.first(_ENERGY, _EV)
    if energy is not None:
        return energy
    wavelength = fields.first(_WAVELENGTH, _ANGSTROM)
    if wavelength is not None:
        return HC_eV_A / wavelength
    energy = fields.attribute("photon_energy_eV", "photon_energy")
    if energy is not None and 0 < energy < 100:
        fields.warnings.append(f"attribute photon_energy = {energy:g} is taken as keV")
        return energy * 1e3
    return energy


def _clen_m(fields: HeaderFields) -> float | None:
    clen = fields.first(_CLEN, _METRES)
    if clen is None:
        clen = fields.attribute("clen_m", "clen")
    if clen is None:
        clen = fields.first(_ENCODER, _METRES)
        if clen is not None:
            fields.warnings.append(
                "clen_m is EncoderValue as it stands; set geometry.clen_m where the geometry "
                "file adds a coffset"
            )
    return clen
