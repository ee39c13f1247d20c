"""One image as an uncompressed TIFF, as the monitor interface and mask downloads send it.

Its one rule: the RFC 3339 time of an image stands at file offset 162, where the OM program
reads it (protocol note, section 9). Format from TIFF revision 6.0, baseline, one strip.
"""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

TIME_OFFSET = 162
TIME_BYTES = 30  # 29 characters and a zero
PIXEL_OFFSET = 192
SHORT, LONG, ASCII = 3, 4, 2
SAMPLE_UINT, SAMPLE_FLOAT = 1, 3


def tiff(image: NDArray[Any], taken: datetime) -> bytes:
    """Return an image as a little-endian TIFF file.

    Args:
        image: shape (ss, fs), unsigned integers or float32.
        taken: with time zone; written with milliseconds.
    """
    rows, columns = image.shape
    little = np.ascontiguousarray(image, image.dtype.newbyteorder("<"))
    entries = (
        (256, LONG, 1, columns),
        (257, LONG, 1, rows),
        (258, SHORT, 1, little.dtype.itemsize * 8),
        (259, SHORT, 1, 1),  # not compressed
        (262, SHORT, 1, 1),  # black is zero
        (270, ASCII, TIME_BYTES, TIME_OFFSET),
        (273, LONG, 1, PIXEL_OFFSET),
        (277, SHORT, 1, 1),
        (278, LONG, 1, rows),
        (279, LONG, 1, little.nbytes),
        (339, SHORT, 1, SAMPLE_FLOAT if image.dtype.kind == "f" else SAMPLE_UINT),
    )
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries))
    head += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    text = taken.isoformat(timespec="milliseconds").encode("ascii")
    stamp = text[: TIME_BYTES - 1].ljust(TIME_BYTES, b"\0")
    return (head.ljust(TIME_OFFSET, b"\0") + stamp).ljust(PIXEL_OFFSET, b"\0") + little.tobytes()
