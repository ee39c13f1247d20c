"""`capture`: the wire's messages into a file, unread, to be replayed later."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from hitfinder.stream.capture import CaptureWriter
from hitfinder.stream.connection import MAX_MESSAGE_BYTES, RECEIVE_QUEUE

POLL_MS = 100


def capture(
    endpoints: Sequence[str],
    path: Path,
    *,
    max_messages: int | None,
    stopping: Callable[[], bool],
    progress: Callable[[int, int], None] = lambda n_messages, n_bytes: None,
) -> int:
    """Write every message of the endpoints to `path`; returns how many.

    Args:
        max_messages: stop after so many, None for ever.
        stopping: asked between messages.
        progress: called with the messages and bytes so far.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.set(zmq.RCVHWM, RECEIVE_QUEUE)
    socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    for endpoint in endpoints:
        socket.connect(endpoint)
    n, n_bytes = 0, 0
    writer = CaptureWriter(path)
    try:
        while not stopping() and (max_messages is None or n < max_messages):
            if not socket.poll(POLL_MS):
                continue
            parts = [frame.buffer for frame in socket.recv_multipart(copy=False)]
            writer.write(parts, time.time_ns())
            n, n_bytes = n + 1, n_bytes + sum(len(p) for p in parts)
            progress(n, n_bytes)
    finally:
        writer.close()
        socket.close(0)
        context.term()
    return n
