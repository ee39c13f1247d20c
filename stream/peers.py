"""A receiver's line to the others at the same detector, which deals each message to one of them.

One rule: what the detector said to us is told to the others as the bytes that came, and what they
tell is taken as if it had come to us; it is never told again. Only headers and ends go this way
(protocol note, section 5): every receiver needs them, and one gets them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import zmq

from hitfinder.stream.messages import SeriesEnd, SeriesStart

log = logging.getLogger(__name__)

START, END = b"start", b"end"
# Headers and ends under way; a series has two.
QUEUE = 16
# Time for the last end to get out when the receiver stops.
LINGER_MS = 1000


class Peers:
    """Tells and hears headers and ends, through whoever holds `endpoint` for all receivers.

    Messages have the kind, `start` or `end`, before the parts as the detector sent them.

    Args:
        endpoint: of our host's relay, on this machine.
        max_bytes: of one part; who announces more is disconnected.
    """

    def __init__(self, endpoint: str, max_bytes: int) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.set(zmq.SNDHWM, QUEUE)
        self.socket.set(zmq.RCVHWM, QUEUE)
        self.socket.set(zmq.MAXMSGSIZE, max_bytes)
        self.socket.set(zmq.LINGER, LINGER_MS)
        self.socket.connect(endpoint)

    def tell(self, message: SeriesStart | SeriesEnd, parts: Sequence[memoryview]) -> None:
        """Tell the others what the detector said; they do without it where nobody takes it."""
        kind = START if isinstance(message, SeriesStart) else END
        try:
            self.socket.send_multipart([kind, *parts], zmq.NOBLOCK)
        except zmq.Again:
            log.error("series %d: nobody takes its %s for the other hosts", message.series, kind)

    def hear(self, timeout_s: float) -> list[memoryview] | None:
        """Return the parts of the next header or end that another got, None if none comes."""
        if not self.socket.poll(round(timeout_s * 1000)):
            return None
        return [part.buffer for part in self.socket.recv_multipart(copy=False)[1:]]

    def close(self) -> None:
        """Close the socket once the last message is out."""
        self.socket.close()
        self._context.term()
