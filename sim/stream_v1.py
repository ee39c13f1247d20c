"""The wire messages of stream V1 (`legacy`): JSON and raw parts, no I/O.

Its one rule: every function returns the parts of one multipart message. Part order, field names
and spelling as a real detector's: sorted keys without spaces ([REAL1]); protocol note, section 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hitfinder.sim.detector import (
    PIXEL_BITS,
    DetectorConfig,
    ExposureTimes,
    Series,
    simplon_values,
)
from hitfinder.sim.encoding import EncodedImage

COUNTRATE_ROWS = 1000


def start(config: DetectorConfig, series: Series) -> list[bytes]:
    """Return the global header: 1, 2 or 8 parts by `header_detail`, one more with appendix."""
    detail = config.header_detail
    parts = [_json(header_detail=detail, htype="dheader-1.0", series=series.number)]
    if detail != "none":
        parts.append(_json(**simplon_values(config)))
    if detail == "all":
        parts += _tables(config)
    if config.header_appendix:
        parts.append(config.header_appendix.encode())
    return parts


def image(
    config: DetectorConfig,
    series: Series,
    frame: int,
    images: Sequence[EncodedImage],
    times: ExposureTimes,
) -> list[bytes]:
    """Return one image: 4 parts, 5 with appendix. V1 has one channel: the first is sent."""
    blob = images[0]
    parts = [
        _json(frame=frame, hash=blob.md5, htype="dimage-1.0", series=series.number),
        _json(
            encoding=encoding_name(blob),
            htype="dimage_d-1.0",
            shape=list(reversed(blob.shape)),
            size=len(blob.payload),
            type=blob.dtype,
        ),
        blob.payload,
        _json(
            htype="dconfig-1.0",
            real_time=times.real_ns // config.tick_ns,
            start_time=times.start_ns // config.tick_ns,
            stop_time=times.stop_ns // config.tick_ns,
        ),
    ]
    if config.image_appendix:
        parts.append(config.image_appendix.encode())
    return parts


def end(series: Series) -> list[bytes]:
    """Return the end-of-series message."""
    return [_json(htype="dseries_end-1.0", series=series.number)]


def encoding_name(blob: EncodedImage) -> str:
    """Return V1's encoding string: `bs16-lz4<`, `lz4<` or `<` (note, 3.1)."""
    if blob.compression == "bslz4":
        return f"bs{PIXEL_BITS[blob.dtype]}-lz4<"
    return "lz4<" if blob.compression == "lz4" else "<"


def _tables(config: DetectorConfig) -> list[bytes]:
    """Return parts 3 to 8: flatfield, pixel mask, count rate table, each announced."""
    raw = np.linspace(0, config.saturation_value, COUNTRATE_ROWS, dtype="<f4")
    tables = (
        ("dflatfield-1.0", config.flat().astype("<f4", copy=False)),
        ("dpixelmask-1.0", config.mask().astype("<u4", copy=False)),
        ("dcountrate_table-1.0", np.column_stack((raw, raw))),
    )
    parts = []
    for htype, table in tables:
        # Shapes are announced fastest axis first: (x, y), and (2, N) for the table.
        shape = list(reversed(table.shape))
        parts += [_json(htype=htype, shape=shape, type=table.dtype.name), table.tobytes()]
    return parts


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
