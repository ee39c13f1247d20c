"""The wire messages of stream V2 (`cbor`): one CBOR item a message, no I/O.

Its one rule: every function returns the one part of a message, laid out as a real EIGER2 does
([REAL2]): self-describe prefix, `type` first, ids, the rest in alphabetical order; an image ends
with its pixels. Protocol note, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.detector import DetectorConfig, ExposureTimes, Series
from hitfinder.sim.encoding import EncodedImage

SELF_DESCRIBE = b"\xd9\xd9\xf7"
DATE_TIME = 0
MULTI_DIM_ROW_MAJOR = 40
COMPRESSED = 56500
# RFC 8746: little-endian typed arrays.
TYPED_ARRAY = {"uint8": 64, "uint16": 69, "uint32": 70, "float32": 85}
# Denominator of every time: the detector's clock ([REAL2]).
CLOCK_Hz = 50_000_000
COUNTRATE_ENTRIES = 1000


def start(config: DetectorConfig, series: Series) -> list[bytes]:
    """Return the start message; `header_detail` none is the same as basic in V2."""
    fields = _start_fields(config)
    if config.header_detail == "all":
        fields |= _tables(config)
    if config.header_appendix:
        fields["user_data"] = config.header_appendix
    ids = _ids("start", series) | {"arm_date": _date_time(series.arm_date)}
    return _message(ids | dict(sorted(fields.items())))


def image(
    config: DetectorConfig,
    series: Series,
    frame: int,
    images: Sequence[EncodedImage],
    times: ExposureTimes,
) -> list[bytes]:
    """Return one image message with all channels in it."""
    fields: dict[str, Any] = _ids("image", series) | {
        "image_id": frame,
        "real_time": _rational(times.real_ns),
        "series_date": _date_time(series.start_date),
        "start_time": _rational(times.start_ns),
        "stop_time": _rational(times.stop_ns),
    }
    if config.image_appendix:
        fields["user_data"] = config.image_appendix
    channels = zip(config.channels, images, strict=True)
    fields["data"] = {channel: _pixels(blob) for channel, blob in channels}
    return _message(fields)


def end(series: Series) -> list[bytes]:
    """Return the end-of-series message."""
    return _message(_ids("end", series))


def _ids(kind: str, series: Series) -> dict[str, Any]:
    return {"type": kind, "series_id": series.number, "series_unique_id": series.uid}


def _start_fields(config: DetectorConfig) -> dict[str, Any]:
    rows, columns = config.shape
    low, high = config.threshold_energy_eV
    return {
        "beam_center_x": config.beam_center_px[0],
        "beam_center_y": config.beam_center_px[1],
        "channels": list(config.channels),
        "count_time": config.count_time_s,
        "countrate_correction_enabled": config.countrate_correction_applied,
        "detector_description": config.description,
        "detector_serial_number": config.serial_number,
        "detector_translation": list(config.translation_m()),
        "flatfield_enabled": config.flatfield_applied,
        "frame_time": config.frame_time_s,
        "goniometer": {
            axis: {"increment": increment, "start": begin}
            for axis, (begin, increment) in config.goniometer.items()
        },
        "image_dtype": config.dtype,
        "image_size_x": columns,
        "image_size_y": rows,
        "incident_energy": config.photon_energy_eV,
        "incident_wavelength": config.wavelength_A,
        "number_of_images": config.n_frames,
        "pixel_mask_enabled": config.pixel_mask_applied,
        "pixel_size_x": config.pixel_size_m,
        "pixel_size_y": config.pixel_size_m,
        "saturation_value": config.saturation_value,
        "sensor_material": config.sensor_material,
        "sensor_thickness": config.sensor_thickness_m,
        # A real detector lists thresholds that are not active as well ([REAL2]).
        "threshold_energy": {"threshold_1": low, "threshold_2": high},
        "virtual_pixel_interpolation_enabled": config.virtual_pixel_correction_applied,
    }


def _tables(config: DetectorConfig) -> dict[str, Any]:
    """Return what `header_detail` all adds; entry -2 of the table is the cutoff."""
    table = np.linspace(0, config.saturation_value, COUNTRATE_ENTRIES - 1, dtype="<u4")
    table = np.append(table, table[-1])
    flatfield, mask = _multi_dim(config.flat()), _multi_dim(config.mask())
    return {
        "countrate_correction_lookup_table": _typed(table.dtype.name, table.tobytes()),
        "flatfield": dict.fromkeys(config.channels, flatfield),
        "pixel_mask": dict.fromkeys(config.channels, mask),
    }


def _pixels(blob: EncodedImage) -> cbor2.CBORTag:
    """Return tag 40 [[rows, columns], typed array of plain or compressed bytes]."""
    content: object = blob.payload
    if blob.compression != "none":
        # The modifier is the element size for bitshuffle, unused (0) otherwise.
        modifier = np.dtype(blob.dtype).itemsize if blob.compression == "bslz4" else 0
        content = cbor2.CBORTag(COMPRESSED, [blob.compression, modifier, blob.payload])
    return cbor2.CBORTag(MULTI_DIM_ROW_MAJOR, [list(blob.shape), _typed(blob.dtype, content)])


def _multi_dim(array: NDArray[Any]) -> cbor2.CBORTag:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    typed = _typed(array.dtype.name, little.tobytes())
    return cbor2.CBORTag(MULTI_DIM_ROW_MAJOR, [list(array.shape), typed])


def _typed(dtype: str, content: object) -> cbor2.CBORTag:
    return cbor2.CBORTag(TYPED_ARRAY[dtype], content)


def _date_time(moment: datetime) -> cbor2.CBORTag:
    """Return tag 0 + RFC 3339 text with milliseconds and offset, as real units write it."""
    return cbor2.CBORTag(DATE_TIME, moment.isoformat(timespec="milliseconds"))


def _rational(time_ns: int) -> list[int]:
    return [time_ns * CLOCK_Hz // 1_000_000_000, CLOCK_Hz]


def _message(fields: dict[str, Any]) -> list[bytes]:
    return [SELF_DESCRIBE + cbor2.dumps(fields)]
