"""The detector's sockets: one PULL, any number of endpoints, every message into the inbox.

One rule: this runs in the process that does not die alone. What libzmq and the kernel hold of a
connection dies with the process that holds it, and a PUSH socket never sends again (protocol
note, section 1); the receiver, which reads what strangers wrote, may be killed and costs nothing.
A PUSH socket deals messages to whoever is connected, so there is one reader of its endpoints.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from hitfinder.stream.inbox import Inbox
from hitfinder.stream.malformed import Malformed
from hitfinder.stream.ring import MAX_PARTS, MESSAGE_BYTES, Bells, Ring

log = logging.getLogger(__name__)

# Messages that libzmq and bytes that the kernel may hold for us. Small: what waits here dies with
# this process, what waits at the detector does not. 1 MiB in flight is 10 GB/s at 0.1 ms.
RECEIVE_QUEUE = 4
RECEIVE_BYTES = 1 << 20
# The largest part is a V2 header of a 16M detector, flatfields and masks of three channels.
# A peer that announces more is disconnected before libzmq has given it memory.
MAX_MESSAGE_BYTES = 536870912
POLL_MS = 50
# libzmq tries a lost connection again by itself, within 0.1 s; one that broke its protocol, or
# announced too large a message, it gives up for good, and then we connect anew.
RECONNECT_S = 1.0
# libzmq reads a connection in one of its threads.
MAX_IO_THREADS = 4


class Connection:
    """A thread that reads the detector's messages into the inbox while there is room.

    Args:
        endpoints: `tcp://HOST:PORT` of one or several detectors or sockets of one. One that stands
            there several times is connected to so often, for links that one TCP connection
            does not fill.
    """

    def __init__(self, ring: Ring, bells: Bells, endpoints: Sequence[str]) -> None:
        self._inbox, self._bells, self._control = Inbox(ring), bells, ring.control
        self._malformed = Malformed(ring)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(
            min(max(len(endpoints), 1), MAX_IO_THREADS)
        )
        self._socket = self._context.socket(zmq.PULL)
        self._socket.set(zmq.RCVHWM, RECEIVE_QUEUE)
        self._socket.set(zmq.RCVBUF, RECEIVE_BYTES)
        self._socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.set(zmq.LINGER, 0)
        events = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED
        self._monitor = self._socket.get_monitor_socket(events)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._unreachable: set[str] = set()
        self._given_up: list[tuple[str, float]] = []
        self._endpoints, self._stopping = endpoints, threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection", daemon=True)

    def start(self) -> None:
        """Connect, and read from now on."""
        for endpoint in self._endpoints:
            self._socket.connect(endpoint)
        self._thread.start()

    @property
    def has_failed(self) -> bool:
        """Say whether the thread ended by itself, which is an error; it stands in the log."""
        was_started = self._thread.ident is not None
        return was_started and not self._stopping.is_set() and not self._thread.is_alive()

    def close(self) -> None:
        """Close the sockets, once; what the detector has not sent stays with it."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()

    # ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._inbox.is_full:
                self._bells.wait("connection", POLL_MS * 1e-3)
                self._watch_connections()
                continue
            ready = dict(self._poller.poll(POLL_MS))
            if self._monitor in ready:
                self._watch_connections()
            if self._given_up:
                self._connect_anew(time.monotonic())
            if self._socket in ready:
                self._receive()

    def _receive(self) -> None:
        parts, n_parts, n_bytes, has_more = [], 0, 0, True
        while has_more:
            part = self._socket.recv(copy=False)
            n_parts, n_bytes, has_more = n_parts + 1, n_bytes + len(part), part.more
            if n_parts <= MAX_PARTS and n_bytes <= MESSAGE_BYTES:
                parts.append(part.buffer)
        if len(parts) < n_parts:
            self._malformed.note(
                f"message of {n_parts} parts, {n_bytes} bytes; expected at most {MAX_PARTS} "
                f"parts, {MESSAGE_BYTES} bytes"
            )
            return
        self._inbox.put(parts)
        self._bells.ring("inbox")

    def _watch_connections(self) -> None:
        """Say when an endpoint cannot be reached, is reached, or is gone; libzmq retries."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            endpoint = event["endpoint"].decode(errors="replace")
            connected = self._control["connected"]
            for lost in [lost for lost in self._given_up if lost[0] == endpoint][:1]:
                self._given_up.remove(lost)
            if event["event"] == zmq.EVENT_CONNECTED:
                connected[0] += 1
                self._unreachable.discard(endpoint)
                log.info("connected to %s", endpoint)
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                connected[0] = max(0, int(connected[0]) - 1)
                self._given_up.append((endpoint, time.monotonic() + RECONNECT_S))
                log.warning("%s closed the connection; waiting for it to come back", endpoint)
            elif endpoint not in self._unreachable:
                self._unreachable.add(endpoint)
                log.warning("cannot reach %s yet; retrying until it answers", endpoint)

    def _connect_anew(self, now_s: float) -> None:
        """Connect to those whose loss libzmq has not answered with a try of its own."""
        for lost in [lost for lost in self._given_up if now_s > lost[1]]:
            self._given_up.remove(lost)
            endpoint = lost[0]
            log.warning("%s broke the protocol or its bounds; connecting anew", endpoint)
            self._socket.connect(endpoint)
