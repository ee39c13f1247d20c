"""What a detector says, whatever the wire format: three frozen message types.

V1's and V2's own names meet only in `eiger_v1.py` and `eiger_v2.py`; everything behind them
uses these. Arrays are (ss, fs) = (row, column), C order. Unknown values are None, never guessed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.errors import WireError

# Largest image taken from the wire. The biggest EIGER2 has 18.1 Mpixel; an absurd shape must
# not make anyone allocate (protocol note, section 12.2).
MAX_PIXELS = 1 << 26
# Highest frame number taken from the wire: over an hour at 1 kHz. `frame` is untrusted.
MAX_FRAMES = 1 << 22

PIXEL_TYPES = ("uint8", "uint16", "uint32")


class Codec(StrEnum):
    """How a blob's bytes stand for pixels (protocol note, section 3)."""

    BSLZ4 = "bslz4"  # 12-byte header, bitshuffled LZ4 blocks: HDF5 filter 32008
    LZ4_BLOCK = "lz4-block"  # V1 `lz4<`: one bare LZ4 block
    LZ4_HDF5 = "lz4-hdf5"  # V2 `lz4`: 12-byte header, LZ4 blocks: HDF5 filter 32004
    NONE = "none"  # raw little-endian pixels


@dataclass(frozen=True, slots=True)
class Blob:
    """One channel's image as it stands in a message; `payload` borrows the message's buffer.

    Attributes:
        channel: threshold name, e.g. `threshold_1`.
        shape: (ss, fs).
        dtype: `uint8`, `uint16` or `uint32`.
        codec: how `payload` is packed. After decoding a message in lenient mode the payload of a
            sender without a valid 12-byte header is the body alone; see `has_header`.
        elem_size: bitshuffle element size in bytes (1, 2, 4, 8); the pixel size otherwise.
        payload: the bytes as received.
        has_header: False only in lenient mode, when the 12-byte header is absent from `payload`
            (block size is then bitshuffle's default of 8192 bytes).
    """

    channel: str
    shape: tuple[int, int]
    dtype: str
    codec: Codec
    elem_size: int
    payload: memoryview
    has_header: bool = True

    @property
    def n_bytes(self) -> int:
        """Size of the decoded image in bytes."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Which exposure a frame is, and when the detector says it was taken.

    Times are in nanoseconds on the detector's clock as its message states them (V1 of firmware
    1.6 counts 20 ns ticks: `eiger_v1.tick_ns` tells which).
    """

    series: int
    frame: int
    series_uid: str | None = None
    start_ns: int | None = None
    stop_ns: int | None = None
    real_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One exposure, all its channels. The first blob is judged, all are kept."""

    header: FrameHeader
    blobs: tuple[Blob, ...]
    appendix: bytes | None = None


@dataclass(frozen=True, slots=True)
class SeriesEnd:
    """The detector says that a series is over."""

    series: int
    series_uid: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SeriesStart:
    """The detector's header of a series: all optional but the id (protocol note, section 2.1).

    Attributes:
        series: id; restarts after `initialize`, so not unique in a session.
        n_frames: announced number of images, None if the header does not say.
        shape: (ss, fs) pixels.
        beam_center_px: (x, y) = (fs, ss), in pixels.
        pixel_size_m: (x, y) = (fs, ss).
        pixel_mask: uint32 (ss, fs), bits as in protocol note section 7, of the first channel.
        flatfield: float32 (ss, fs), of the first channel.
        header: the remaining plain values as received, JSON-like, for the record.
        warnings: what was odd but survivable in the header, one sentence each.
    """

    series: int
    series_uid: str | None = None
    n_frames: int | None = None
    shape: tuple[int, int] | None = None
    dtype: str | None = None
    channels: tuple[str, ...] = ()
    photon_energy_eV: float | None = None
    clen_m: float | None = None
    beam_center_px: tuple[float, float] | None = None
    pixel_size_m: tuple[float, float] | None = None
    sensor_thickness_m: float | None = None
    sensor_material: str | None = None
    saturation_value: int | None = None
    count_time_s: float | None = None
    frame_time_s: float | None = None
    detector: str | None = None
    serial_number: str | None = None
    arm_date: str | None = None
    pixel_mask: NDArray[np.uint32] | None = None
    flatfield: NDArray[np.float32] | None = None
    header: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


Message = SeriesStart | Frame | SeriesEnd


def check_shape(shape: tuple[int, int], dtype: str) -> None:
    """Refuse a shape or pixel type that no Eiger has, before anybody allocates for it.

    Raises:
        WireError: a dimension below 1, more than `MAX_PIXELS`, or an unknown pixel type.
    """
    if dtype not in PIXEL_TYPES:
        raise WireError(f"pixel type {dtype!r}; expected one of {', '.join(PIXEL_TYPES)}")
    if min(shape) < 1 or math.prod(shape) > MAX_PIXELS:
        raise WireError(f"image shape (ss, fs) = {shape}; expected 1 to {MAX_PIXELS} pixels")


def pack_start(start: SeriesStart) -> bytes:
    """Return a header as msgpack, so that processes can hand it on through a file."""
    plain: dict[str, Any] = {f.name: getattr(start, f.name) for f in fields(start)}
    for name in ("pixel_mask", "flatfield"):
        array = plain[name]
        if array is not None:
            about = {"dtype": array.dtype.str, "shape": array.shape}
            plain[name] = {**about, "bytes": array.tobytes()}
    return msgspec.msgpack.encode(_encodable(plain))


def _encodable(value: Any) -> Any:
    """Return a value whose texts are UTF-8: JSON may carry half a surrogate pair, msgpack not."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_encodable(k): _encodable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(v) for v in value]
    return value


def unpack_start(packed: bytes) -> SeriesStart:
    """Return the header that `pack_start` wrote."""
    plain = msgspec.msgpack.decode(packed)
    for name in ("pixel_mask", "flatfield"):
        if plain[name] is not None:
            a = plain[name]
            plain[name] = np.frombuffer(a["bytes"], a["dtype"]).reshape(a["shape"])
    for name in ("shape", "channels", "beam_center_px", "pixel_size_m", "warnings"):
        if plain[name] is not None:
            plain[name] = tuple(plain[name])
    return SeriesStart(**plain)
