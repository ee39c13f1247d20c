"""The detector's end of the stream: one bound ZMQ PUSH socket that never waits for ever.

Its one rule: a send says whether the message was taken. PUSH queues nothing while nobody is
connected, and blocks when every queue is full (protocol note, section 1). Not thread safe: the
emulator's lock guards it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from hitfinder import HitfinderError

# How long a wait goes on before the caller's reason to give up is looked at again.
POLL_MS = 100


class BindError(HitfinderError):
    """The address to send from cannot be had."""


class PushSocket:
    """A bound PUSH socket.

    Args:
        bind: ZMQ endpoint; port `*` or 0 takes a free one, see `endpoint`.
        send_hwm: messages queued for each connected client.
        linger_s: how long `close` waits for queued messages to leave.

    Attributes:
        endpoint: the bound address, with the real port.

    Raises:
        BindError: the address is taken or none.
    """

    def __init__(self, bind: str, send_hwm: int, linger_s: float) -> None:
        self._send_hwm, self._linger_s = send_hwm, linger_s
        self._open(bind.removesuffix(":0") + ":*" if bind.endswith(":0") else bind)
        self.endpoint = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def _open(self, bind: str) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, self._send_hwm)
        self._socket.setsockopt(zmq.LINGER, round(self._linger_s * 1000))
        try:
            self._socket.bind(bind)
        except zmq.ZMQError as reason:
            self._context.destroy(linger=0)
            raise BindError(f"cannot bind {bind}: {reason}; choose a free port") from reason

    def send(
        self, parts: Sequence[bytes], timeout_s: float, give_up: Callable[[], bool] = bool
    ) -> bool:
        """Hand one multipart message over; False when nobody took it in time.

        Args:
            give_up: asked while waiting; True ends the wait.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
                return True
            except zmq.Again:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or give_up():
                    return False
                self._socket.poll(min(POLL_MS, math.ceil(left_s * 1000)), zmq.POLLOUT)

    def wait_for_client(self, timeout_s: float, give_up: Callable[[], bool]) -> bool:
        """Return whether somebody is connected, waiting for it."""
        deadline_s = time.monotonic() + timeout_s
        while not self._socket.poll(POLL_MS, zmq.POLLOUT):
            if time.monotonic() > deadline_s or give_up():
                return False
        return True

    def reopen(self) -> None:
        """Close the connections once what is queued has left, and bind the same address again."""
        self.close()
        self._open(self.endpoint)

    def close(self, linger_s: float | None = None) -> None:
        """Close for good; `linger_s` overrules what was set at the start."""
        self._socket.close(None if linger_s is None else round(linger_s * 1000))
        self._context.term()
