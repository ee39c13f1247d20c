"""Stream V1 (legacy): one multipart ZMQ message in, one message type out; no I/O, no state.

The one rule: a message is read whole, by the position of its parts, and never across messages;
the bytes raise `WireError` or nothing. Format: protocol note, sections 2 and 3; marks such as
[REAL1] are that note's sources.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hitfinder.stream.blob import checked_blob
from hitfinder.stream.errors import WireError
from hitfinder.stream.fields import Fields, is_natural, located, natural, plain, shown
from hitfinder.stream.messages import (
    MAX_FRAMES,
    Blob,
    Codec,
    Frame,
    FrameHeader,
    Message,
    SeriesEnd,
    SeriesStart,
)

# V1 carries one channel only; the name is V2's for the same thing.
CHANNEL = "threshold_1"
# Header appendices and configurations are a few kB; nothing larger is parsed as JSON.
MAX_JSON_BYTES = 1 << 20
# Length of a clock tick of firmware 1.6, whose times are not nanoseconds (section 2.2).
FW16_TICK_NS = 20

_HTYPE = re.compile(r"(dheader|dimage|dseries_end)-1\.[0-9]+")
_ENCODING = re.compile(r"(?:bs(8|16|32|64))?-?(lz4)?([<>])")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_N_PARTS = {"none": 1, "basic": 2, "all": 8}


def decode(
    parts: Sequence[bytes | memoryview], *, lenient: bool = False, verify_hash: bool = False
) -> Message:
    """Turn one V1 message into what it says.

    Args:
        parts: the ZMQ parts in order. Blob payloads borrow from the third.
        lenient: read bslz4 blobs whose 12-byte header is missing or zero (section 3.4).
        verify_hash: compare part 3 with its MD5 where the message has one (0.6 ms for 0.3 MB).
            Off by default: the one recorded image of a real detector at hand has a hash that is
            not the MD5 of its blob, though its pixels are right.

    Raises:
        WireError: not a V1 message; `series` and `frame` are set if part 1 could be read.

    Source: protocol note, section 2.
    """
    if not parts:
        raise WireError("V1 message without parts; expected 1 to 9")
    views = [memoryview(part).cast("B").toreadonly() for part in parts]
    head = _json_object(views[0], "part 1")
    htype = head.get("htype")
    known = _HTYPE.fullmatch(htype) if isinstance(htype, str) else None
    if known is None:
        raise WireError(f"V1 htype {shown(htype)}; expected dheader, dimage or dseries_end, -1.x")
    series = natural(head, "series")
    if known[1] == "dseries_end":
        return SeriesEnd(series)
    if known[1] == "dheader":
        return _start(views, series, head)
    frame = head.get("frame")
    try:
        return _frame(views, series, head, lenient, verify_hash)
    except WireError as error:
        known_frame = frame if is_natural(frame, MAX_FRAMES - 1) else None
        raise located(error, series, known_frame) from error


def tick_ns(real_ns_raw: int | None, count_time_s: float | None) -> int:
    """Return the unit of an image's times, 1 or 20 ns: whichever fits the count time better.

    Firmware 1.6 of the first EIGER counts 20 ns ticks; without evidence the answer is 1.

    Args:
        real_ns_raw: `real_time` as the image states it.
        count_time_s: exposure time of the header, in seconds.

    Source: protocol note, section 2.2 [REAL1].
    """
    if not real_ns_raw or not count_time_s or min(real_ns_raw, count_time_s) < 0:
        return 1
    log_ratio = math.log(count_time_s * 1e9) - math.log(real_ns_raw)
    # Halfway between the two on the logarithmic scale.
    return FW16_TICK_NS if log_ratio > math.log(FW16_TICK_NS) / 2 else 1


def _json_object(part: memoryview, name: str) -> dict[str, Any]:
    if len(part) > MAX_JSON_BYTES:
        raise WireError(f"{name} has {len(part)} bytes; JSON parts have at most {MAX_JSON_BYTES}")
    try:
        value = json.loads(str(part, "utf-8"))
    except (ValueError, RecursionError):
        # ValueError is bad UTF-8, bad JSON and an integer of thousands of digits alike.
        raise WireError(f"{name} is not JSON text; {len(part)} bytes") from None
    if not isinstance(value, dict):
        raise WireError(f"{name} is a JSON {type(value).__name__}; expected an object")
    return value


def _frame(
    views: list[memoryview], series: int, head: dict[str, Any], lenient: bool, verify_hash: bool
) -> Frame:
    frame = natural(head, "frame", MAX_FRAMES - 1)
    if len(views) not in (4, 5):
        raise WireError(f"image message of {len(views)} parts; expected 4, or 5 with an appendix")
    about = _json_object(views[1], "part 2")
    times = _json_object(views[3], "part 4")
    blob = checked_blob(_blob(about, views[2]), lenient=lenient)
    if verify_hash:
        _check_hash(head.get("hash"), blob.payload if blob.has_header else views[2])
    header = FrameHeader(
        series,
        frame,
        start_ns=_time(times.get("start_time")),
        stop_ns=_time(times.get("stop_time")),
        real_ns=_time(times.get("real_time")),
    )
    return Frame(header, (blob,), bytes(views[4]) if len(views) == 5 else None)


def _blob(about: dict[str, Any], payload: memoryview) -> Blob:
    size = about.get("size", len(payload))
    if size != len(payload):
        raise WireError(f"size is {shown(size)}; part 3 has {len(payload)} bytes")
    dtype = about.get("type")
    if dtype not in ("uint8", "uint16", "uint32"):
        raise WireError(f"type is {shown(dtype)}; expected uint8, uint16 or uint32")
    codec, elem_size = _codec(about.get("encoding"), np.dtype(dtype).itemsize)
    return Blob(CHANNEL, _shape(about.get("shape")), dtype, codec, elem_size, payload)


def _codec(encoding: object, itemsize: int) -> tuple[Codec, int]:
    """Return codec and shuffle width of an encoding string (section 3.1)."""
    match = _ENCODING.fullmatch(encoding) if isinstance(encoding, str) else None
    if match is None:
        raise WireError(f"encoding is {shown(encoding)}; expected bsN-lz4<, lz4< or <")
    bits, lz4, order = match.groups()
    if order == ">":
        raise WireError(f"encoding {encoding} is big-endian; only little-endian pixels are read")
    if bits and not lz4:
        raise WireError(f"encoding {encoding} is shuffled but not compressed; expected bsN-lz4<")
    if bits:
        return Codec.BSLZ4, int(bits) // 8
    return (Codec.LZ4_BLOCK if lz4 else Codec.NONE), itemsize


def _shape(shape: object) -> tuple[int, int]:
    """Return (ss, fs) of the wire's [x, y] or [x, y, 1]."""
    if not isinstance(shape, list) or not all(is_natural(n) for n in shape):
        raise WireError(f"shape is {shown(shape)}; expected [x, y]")
    if len(shape) not in (2, 3) or shape[2:] not in ([], [1]):
        raise WireError(f"shape has {len(shape)} dimensions; expected [x, y] or [x, y, 1]")
    return shape[1], shape[0]


def _time(value: object) -> int | None:
    return value if is_natural(value) else None


def _check_hash(announced: object, payload: memoryview) -> None:
    """Compare the MD5, where there is one: simulators send other things (section 2.2)."""
    if not isinstance(announced, str) or not _MD5.fullmatch(announced):
        return
    found = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    if found != announced.lower():
        raise WireError(f"MD5 of the image blob is {found}; the message says {announced}")


def _start(views: list[memoryview], series: int, head: dict[str, Any]) -> SeriesStart:
    level = head.get("header_detail")
    n_parts = _N_PARTS.get(level) if isinstance(level, str) else None
    config: dict[str, Any] = {}
    problems: list[str] = []
    if n_parts is None:
        n_parts = 8 if len(views) >= 8 else min(len(views), 2)
        problems.append(f"header_detail is {shown(level)}; taken from the {len(views)} parts")
    if n_parts > 1:
        try:
            config = _json_object(_part(views, 2), "part 2")
        except WireError as error:
            problems.append(f"the detector configuration is missing: {error}")
    fields = Fields(config)
    fields.warnings.extend(problems)
    shape = fields.shape("x_pixels_in_detector", "y_pixels_in_detector")
    flatfield = mask = None
    if n_parts == 8:
        flatfield = _array(views, 3, "flatfield", np.float32, shape, fields)
        mask = _array(views, 5, "pixel mask", np.uint32, shape, fields)
    header = plain(config)
    if len(views) > n_parts:
        appendix = views[n_parts][:MAX_JSON_BYTES]
        header["header_appendix"] = str(appendix, "utf-8", "backslashreplace")
    if len(views) > n_parts + 1:
        fields.warn(f"{len(views)} parts; expected {n_parts} and at most one appendix")
    return _series_start(series, fields, shape, mask, flatfield, header)


def _series_start(
    series: int,
    fields: Fields,
    shape: tuple[int, int] | None,
    mask: NDArray[np.uint32] | None,
    flatfield: NDArray[np.float32] | None,
    header: dict[str, Any],
) -> SeriesStart:
    """Map the configuration's names to ours (section 2.1); all of them may be missing."""
    depth = fields.integer("bit_depth_image")
    return SeriesStart(
        series=series,
        n_frames=_n_frames(fields),
        shape=shape,
        dtype=f"uint{depth}" if depth in (8, 16, 32) else None,
        channels=(CHANNEL,),
        photon_energy_eV=fields.photon_energy_eV("photon_energy", "incident_energy", "wavelength"),
        clen_m=fields.positive("detector_distance"),
        beam_center_px=fields.pair("beam_center_x", "beam_center_y"),
        pixel_size_m=fields.positive_pair("x_pixel_size", "y_pixel_size"),
        sensor_thickness_m=fields.positive("sensor_thickness"),
        sensor_material=fields.text("sensor_material"),
        saturation_value=fields.integer("countrate_correction_count_cutoff"),
        count_time_s=fields.positive("count_time"),
        frame_time_s=fields.positive("frame_time"),
        detector=fields.text("description"),
        serial_number=fields.text("detector_number"),
        arm_date=fields.text("data_collection_date"),
        pixel_mask=mask,
        flatfield=flatfield,
        header=header,
        warnings=tuple(fields.warnings),
    )


def _n_frames(fields: Fields) -> int | None:
    """Return how many images the series will have; None where only its end tells."""
    mode = fields.text("trigger_mode")
    nimages, ntrigger = fields.integer("nimages"), fields.integer("ntrigger")
    if mode in ("exte", "inte"):
        nimages = 1
    elif mode not in ("exts", "ints"):
        return None
    if nimages is None or ntrigger is None:
        return None
    return fields.bounded_n_frames(nimages * ntrigger)


def _part(views: list[memoryview], number: int) -> memoryview:
    if len(views) < number:
        raise WireError(f"part {number} is not there; the message has {len(views)} parts")
    return views[number - 1]


def _array(
    views: list[memoryview],
    number: int,
    name: str,
    dtype: DTypeLike,
    shape: tuple[int, int] | None,
    fields: Fields,
) -> NDArray[Any] | None:
    """Return the array of parts `number` and `number` + 1, or None and a warning."""
    try:
        announced = _shape(_json_object(_part(views, number), f"part {number}").get("shape"))
        values = _part(views, number + 1)
        n_bytes = math.prod(announced) * 4
        if len(values) != n_bytes or not n_bytes:
            raise WireError(f"{len(values)} bytes; shape (ss, fs) = {announced} needs {n_bytes}")
        if shape is not None and announced != shape:
            raise WireError(f"shape (ss, fs) = {announced}; the detector has {shape}")
    except WireError as error:
        fields.warn(f"the {name} of the header is not used: {error}")
        return None
    # A copy: the header outlives the message it came in.
    on_the_wire = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(values, on_the_wire).astype(dtype).reshape(announced)
