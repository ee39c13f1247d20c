"""Stream V2 (CBOR): one ZMQ message in, one message type out; no I/O, no state, no pixel copied.

The one rule: the message is walked once, key order and unknown keys do not matter, and the bytes
raise `WireError` or nothing. Format: protocol note, section 4; typed arrays: RFC 8746.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.blob import checked_blob
from hitfinder.stream.bslz4 import decode_into
from hitfinder.stream.cbor import Tagged, read_map
from hitfinder.stream.errors import WireError
from hitfinder.stream.fields import (
    MAX_INTEGER,
    Fields,
    is_natural,
    located,
    natural,
    plain,
    shown,
    uid,
)
from hitfinder.stream.messages import (
    MAX_FRAMES,
    PIXEL_TYPES,
    Blob,
    Codec,
    Frame,
    FrameHeader,
    Message,
    SeriesEnd,
    SeriesStart,
)

ROW_MAJOR, COLUMN_MAJOR = 40, 1040
# Tag -> numpy type of typed arrays (RFC 8746, section 2.1); float128 has none.
TYPED_ARRAYS = {
    **{64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: "u1", 69: "<u2", 70: "<u4", 71: "<u8"},
    **{72: "i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8"},
    **{80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8"},
}
IMAGE_TAGS = {64: "uint8", 69: "uint16", 70: "uint32"}
# Two thresholds and their difference today; more in one message are refused.
MAX_CHANNELS = 16
# No hall is longer; keeps infinity and nonsense out.
MAX_CLEN_M = 1000.0

_CHANNEL = re.compile(r"[A-Za-z0-9_-]{1,64}")


def decode(message: bytes | memoryview, *, lenient: bool = False) -> Message:
    """Turn one V2 message into what it says.

    Args:
        message: the one ZMQ part. Blob payloads borrow from it.
        lenient: read bslz4 blobs whose 12-byte header is missing or zero (section 3.4).

    Raises:
        WireError: not a V2 message; `series` and `frame` are set if they could be read.

    Source: protocol note, section 4.
    """
    fields: dict[Any, Any] = {}
    try:
        read_map(memoryview(message).cast("B").toreadonly(), fields)
        return _message(fields, lenient)
    except WireError as error:
        series, frame = fields.get("series_id"), fields.get("image_id")
        raise located(
            error,
            series if is_natural(series) else None,
            frame if is_natural(frame, MAX_FRAMES - 1) else None,
        ) from error


def _message(fields: dict[Any, Any], lenient: bool) -> Message:
    kind = fields.get("type")
    if kind not in ("start", "image", "end"):
        raise WireError(f"V2 message type {shown(kind)}; expected start, image or end")
    series = natural(fields, "series_id")
    series_uid = uid(fields.get("series_unique_id"))
    if kind == "end":
        return SeriesEnd(series, series_uid)
    if kind == "start":
        return _start(series, series_uid, fields)
    return _frame(series, series_uid, fields, lenient)


def _frame(series: int, series_uid: str | None, fields: dict[Any, Any], lenient: bool) -> Frame:
    header = FrameHeader(
        series,
        natural(fields, "image_id", MAX_FRAMES - 1),
        series_uid,
        start_ns=_rational_ns(fields.get("start_time")),
        stop_ns=_rational_ns(fields.get("stop_time")),
        real_ns=_rational_ns(fields.get("real_time")),
    )
    channels = fields.get("data")
    if not isinstance(channels, dict) or not 0 < len(channels) <= MAX_CHANNELS:
        raise WireError(f"data is {shown(channels)}; expected 1 to {MAX_CHANNELS} channels")
    blobs = tuple(
        checked_blob(_image_blob(name, array), lenient=lenient) for name, array in channels.items()
    )
    return Frame(header, blobs, _appendix(fields.get("user_data")))


def _image_blob(channel: object, array: object) -> Blob:
    if not isinstance(channel, str) or not _CHANNEL.fullmatch(channel):
        raise WireError(f"channel {shown(channel)}; expected a name such as threshold_1")
    shape, tag, content = _multi_dim_array(array)
    dtype = IMAGE_TAGS.get(tag)
    if dtype is None:
        raise WireError(f"image of typed array tag {tag}; expected 64, 69 or 70 (little-endian)")
    codec, payload = _codec(content, np.dtype(dtype).itemsize)
    return Blob(channel, shape, dtype, codec, np.dtype(dtype).itemsize, payload)


def _multi_dim_array(array: object) -> tuple[tuple[int, int], int, object]:
    """Return (ss, fs), the typed array's tag and its content, compressed or not."""
    if isinstance(array, Tagged) and array.tag == COLUMN_MAJOR:
        raise WireError("array is column major (tag 1040); expected row major (tag 40)")
    if not isinstance(array, Tagged) or array.tag != ROW_MAJOR:
        raise WireError(f"array is {shown(array)}; expected tag 40, rows x columns")
    match array.value:
        case [[rows, cols], Tagged(tag=tag, value=content)]:
            if is_natural(rows) and is_natural(cols):
                return (rows, cols), tag, content
    raise WireError("tag 40 without [[rows, columns], typed array]")


def _codec(content: object, itemsize: int) -> tuple[Codec, memoryview]:
    """Return codec and bytes of a typed array's content (tag 56500 or a byte string)."""
    if isinstance(content, memoryview):
        return Codec.NONE, content
    match content:
        case Tagged(tag=56500, value=[algorithm, modifier, memoryview() as payload]):
            pass
        case _:
            raise WireError(f"typed array of {shown(content)}; expected bytes or tag 56500")
    if algorithm == "lz4":
        return Codec.LZ4_HDF5, payload
    if algorithm != "bslz4":
        raise WireError(f"compression algorithm {shown(algorithm)}; expected bslz4 or lz4")
    if modifier != itemsize:
        raise WireError(f"bslz4 element size {shown(modifier)}; the typed array has {itemsize}")
    return Codec.BSLZ4, payload


def _rational_ns(value: object) -> int | None:
    """Return a Rational of seconds in nanoseconds, rounded."""
    match value:
        case [n, clock_hz] if is_natural(n) and is_natural(clock_hz) and clock_hz:
            ns = (n * 1_000_000_000 + clock_hz // 2) // clock_hz
            return ns if ns <= MAX_INTEGER else None
    return None


def _appendix(user_data: object) -> bytes | None:
    """Return an image's user data as V1 sends it: a text's bytes, else JSON."""
    if user_data is None:
        return None
    if isinstance(user_data, str):
        return user_data.encode()
    return json.dumps(plain(user_data)).encode()


def _start(series: int, series_uid: str | None, raw: dict[Any, Any]) -> SeriesStart:
    fields = Fields(raw)
    if series_uid is None and "series_unique_id" in raw:
        fields.warn(f"series_unique_id {shown(raw['series_unique_id'])} is not used as a name")
    shape = fields.shape("image_size_x", "image_size_y")
    channels = _channels(raw.get("channels"), fields)
    dtype = fields.text("image_dtype")
    return SeriesStart(
        series=series,
        series_uid=series_uid,
        n_frames=fields.bounded_n_frames(fields.integer("number_of_images")),
        shape=shape,
        dtype=dtype if dtype in PIXEL_TYPES else None,
        channels=channels,
        photon_energy_eV=fields.photon_energy_eV("incident_energy", "incident_wavelength"),
        clen_m=_clen_m(raw.get("detector_translation"), fields),
        beam_center_px=fields.pair("beam_center_x", "beam_center_y"),
        pixel_size_m=fields.positive_pair("pixel_size_x", "pixel_size_y"),
        sensor_thickness_m=fields.positive("sensor_thickness"),
        sensor_material=fields.text("sensor_material"),
        saturation_value=fields.integer("saturation_value"),
        count_time_s=fields.positive("count_time"),
        frame_time_s=fields.positive("frame_time"),
        detector=fields.text("detector_description"),
        serial_number=fields.text("detector_serial_number"),
        arm_date=fields.text("arm_date"),
        pixel_mask=_header_array(raw, "pixel_mask", np.uint32, channels, shape, fields),
        flatfield=_header_array(raw, "flatfield", np.float32, channels, shape, fields),
        header=plain(raw),
        warnings=tuple(fields.warnings),
    )


def _channels(value: object, fields: Fields) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, list) and len(value) <= MAX_CHANNELS:
        if all(isinstance(name, str) and _CHANNEL.fullmatch(name) for name in value):
            return tuple(value)
    fields.warn(f"channels is {shown(value)}; expected up to {MAX_CHANNELS} names")
    return ()


def _clen_m(translation: object, fields: Fields) -> float | None:
    """Return the camera length: z of the detector's position, negative on real ones [REAL2]."""
    if translation is None:
        return None
    match translation:
        case [_, _, float() | int() as z_m] if -MAX_CLEN_M < z_m < MAX_CLEN_M:
            return abs(float(z_m)) or None
    fields.warn(f"detector_translation is {shown(translation)}; expected three numbers")
    return None


def _header_array(
    raw: dict[Any, Any],
    key: str,
    dtype: type[np.generic],
    channels: tuple[str, ...],
    shape: tuple[int, int] | None,
    fields: Fields,
) -> NDArray[Any] | None:
    """Return the first channel's pixel mask or flatfield, or None and a warning."""
    arrays = raw.get(key)
    if arrays is None:
        return None
    try:
        if not isinstance(arrays, dict) or not arrays:
            raise WireError(f"it is {shown(arrays)}; expected a map of channels")
        channel = next((name for name in channels if name in arrays), next(iter(arrays)))
        array = _array(arrays[channel])
        if shape is not None and array.shape != shape:
            raise WireError(f"shape (ss, fs) = {array.shape}; the detector has {shape}")
        if array.dtype.kind != ("f" if dtype is np.float32 else "u"):
            raise WireError(f"values are {array.dtype}; expected {dtype.__name__}")
    except WireError as error:
        fields.warn(f"the {key} of the header is not used: {error}")
        return None
    return array.astype(dtype)


def _array(array: object) -> NDArray[Any]:
    """Return a MultiDimArray of the header, decoded, (ss, fs), in the wire's own type."""
    shape, tag, content = _multi_dim_array(array)
    if tag not in TYPED_ARRAYS:
        raise WireError(f"typed array tag {tag}; expected one of RFC 8746")
    dtype = np.dtype(TYPED_ARRAYS[tag])
    codec, payload = _codec(content, dtype.itemsize)
    if codec is Codec.NONE:
        n_bytes = shape[0] * shape[1] * dtype.itemsize
        if len(payload) != n_bytes:
            raise WireError(f"{len(payload)} bytes; shape (ss, fs) = {shape} needs {n_bytes}")
        return np.frombuffer(payload, dtype).reshape(shape)
    # Decoding moves bytes only: unsigned pixels of the same width stand for any type.
    blob = Blob("", shape, f"uint{8 * dtype.itemsize}", codec, dtype.itemsize, payload)
    pixels = np.empty(checked_blob(blob).shape, blob.dtype)
    decode_into(blob, pixels)
    return pixels.view(dtype)
