"""Decode a message of either protocol; "auto" looks at the bytes of each message alone.

The one rule: no format is remembered, since a detector may change it at any arm.
V1 starts with a JSON object, V2 with a CBOR map (protocol note, sections 2.4 and 4); no byte can
start both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from hitfinder.stream import eiger_v1, eiger_v2
from hitfinder.stream.errors import WireError
from hitfinder.stream.fields import MAX_INTEGER
from hitfinder.stream.messages import Frame, Message, SeriesStart

Protocol = Literal["auto", "v1", "v2"]

_SELF_DESCRIBE = b"\xd9\xd9\xf7"
_JSON_SPACE = b" \t\r\n"


def decode(
    parts: Sequence[bytes | memoryview],
    protocol: Protocol = "auto",
    lenient: bool = False,
    *,
    verify_hash: bool = False,
) -> Message:
    """Turn one ZMQ message into what it says.

    Args:
        parts: the ZMQ parts in order; the blobs of a frame borrow from them.
        protocol: which format to read, or "auto".
        lenient: read two simulators with faulty blob headers (protocol note, section 3.4).
        verify_hash: check a V1 image's MD5 where it has one.

    Raises:
        WireError: any other bytes; `series` and `frame` are set if they could be read.
    """
    if (told_apart(parts) if protocol == "auto" else protocol) == "v1":
        return eiger_v1.decode(parts, lenient=lenient, verify_hash=verify_hash)
    if len(parts) != 1:
        raise WireError(f"V2 message of {len(parts)} parts; expected one CBOR map")
    return eiger_v2.decode(parts[0], lenient=lenient)


class WireDecoder:
    """Decodes the messages of one connection or capture, and scales V1's times to nanoseconds.

    Firmware 1.6 counts ticks of 20 ns and does not say so; the header's exposure time tells
    (protocol note, section 2.2). That time is all that is remembered between messages.
    """

    def __init__(self, protocol: Protocol = "auto", lenient: bool = False) -> None:
        self.protocol, self.lenient = protocol, lenient
        self._count_time_s: float | None = None

    def decode(self, parts: Sequence[bytes | memoryview]) -> Message | WireError:
        """Return what a message says, or why it says nothing; arguments as `decode`."""
        try:
            message = decode(parts, self.protocol, self.lenient)
        except WireError as error:
            return error
        if isinstance(message, SeriesStart):
            self._count_time_s = message.count_time_s
        elif isinstance(message, Frame) and len(parts) > 1:
            return self._in_nanoseconds(message)
        return message

    def _in_nanoseconds(self, frame: Frame) -> Frame:
        header = frame.header
        tick = eiger_v1.tick_ns(header.real_ns, self._count_time_s)
        if tick == 1:
            return frame
        times: dict[str, Any] = {
            # What does not fit 64 bits was no time to begin with.
            name: value * tick if value is not None and value * tick <= MAX_INTEGER else None
            for name, value in (
                ("start_ns", header.start_ns),
                ("stop_ns", header.stop_ns),
                ("real_ns", header.real_ns),
            )
        }
        return replace(frame, header=replace(header, **times))


def told_apart(parts: Sequence[bytes | memoryview]) -> Literal["v1", "v2"]:
    """Tell which protocol a message follows, from its first bytes.

    Raises:
        WireError: neither.
    """
    start = bytes(parts[0][:64]) if parts else b""
    if start.lstrip(_JSON_SPACE)[:1] == b"{":
        return "v1"
    if start.startswith(_SELF_DESCRIBE) or 0xA0 <= start[:1].ljust(1, b"\0")[0] <= 0xBF:
        return "v2"
    raise WireError(f"message starts with {start[:8].hex(' ')!r}; neither JSON (V1) nor CBOR (V2)")
