"""The detector's sockets: one PULL, any number of endpoints, every message into the intake.

One rule: read whole multipart messages, judge each by its own bytes, never stop for a bad one
(protocol note, sections 1, 2.4 and 5). A PUSH socket deals messages to whoever is connected, so
this process is the only reader of its endpoints, or has `Peers` who tell what it did not get.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import zmq
from zmq.utils.monitor import recv_monitor_message

from hitfinder.stream import wire
from hitfinder.stream.intake import Intake
from hitfinder.stream.messages import Frame, FrameHeader, SeriesEnd, SeriesStart
from hitfinder.stream.peers import Peers

log = logging.getLogger(__name__)

# Messages that libzmq and bytes that the kernel may hold for us. Small: what waits here dies with
# this process, what waits at the detector does not. 1 MiB in flight is 10 GB/s at 0.1 ms.
RECEIVE_QUEUE = 4
RECEIVE_BYTES = 1 << 20
# The largest message is a V2 header of a 16M detector, flatfields and masks of three channels.
# A peer that announces more is disconnected before libzmq has given it memory.
MAX_MESSAGE_BYTES = 536870912
POLL_MS = 50
# libzmq tries a lost connection again by itself, within 0.1 s; one that broke its protocol, or
# announced too large a message, it gives up for good, and then we connect anew.
RECONNECT_S = 1.0
# Told to stop, we read until the wire has been quiet this long, or the bound is reached.
QUIET_S, DRAIN_S = 0.25, 5.0
# The first frame of a series waits so long for the header that a peer got: without it the frame
# would be judged without mask and geometry. A header that died with its host costs this once.
HEADER_WAIT_S = 0.5


class Receiver:
    """Reads the detector's messages until told to stop.

    Args:
        context: the process's ZMQ context.
        endpoints: `tcp://HOST:PORT` of one or several detectors or sockets of one.
        protocol: `v1`, `v2`, or `auto` to tell by each message's own bytes.
        lenient: accept the two simulators whose blob headers are wrong.
        peers: endpoint of the relay to other receivers of this detector; None if there are none.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Sequence[str],
        intake: Intake,
        *,
        protocol: wire.Protocol = "auto",
        lenient: bool = False,
        peers: str | None = None,
    ) -> None:
        self.intake, self._decoder = intake, wire.WireDecoder(protocol, lenient)
        self._socket = context.socket(zmq.PULL)
        self._socket.set(zmq.RCVHWM, RECEIVE_QUEUE)
        self._socket.set(zmq.RCVBUF, RECEIVE_BYTES)
        self._socket.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.set(zmq.LINGER, 0)
        events = zmq.EVENT_CONNECTED | zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_DISCONNECTED
        self._monitor = self._socket.get_monitor_socket(events)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._peers = Peers(context, peers, MAX_MESSAGE_BYTES) if peers is not None else None
        if self._peers is not None:
            self._poller.register(self._peers.socket, zmq.POLLIN)
        self._unreachable: set[str] = set()
        self._given_up_s: dict[str, float] = {}
        for endpoint in endpoints:
            self._socket.connect(endpoint)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Read until `stopping` says so and the wire is quiet, or the drain's bound is reached."""
        stop_at, last = None, time.monotonic()
        while True:
            now = time.monotonic()
            if stopping() and stop_at is None:
                stop_at = now + DRAIN_S
            if stop_at is not None and (now > stop_at or now - last > QUIET_S):
                return
            self.intake.seal()
            if not self.intake.beat():  # nobody is left to judge what would be read
                return
            ready = dict(self._poller.poll(POLL_MS))
            if self._monitor in ready:
                self._watch_connections()
            if self._given_up_s:
                self._connect_anew(now)
            if self._peers is not None and self._peers.socket in ready:
                self._hear(self._peers, 0.0)
            if self._socket in ready:
                self._receive()
                last = time.monotonic()

    def close(self) -> None:
        """Close the sockets; what the detector has not sent stays with it."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        if self._peers is not None:
            self._peers.close()

    # ------------------------------------------------------------------------------------

    def _receive(self) -> None:
        parts = self._socket.recv_multipart(copy=False)
        buffers = [part.buffer for part in parts]
        control = self.intake.ring.control
        control["n_bytes"][0] += sum(len(b) for b in buffers)
        message = self._decoder.decode(buffers)
        if self._peers is not None:
            if isinstance(message, SeriesStart | SeriesEnd):
                self._peers.tell(message, buffers)
            elif isinstance(message, Frame):
                self._await_header(self._peers, message.header)
        self.intake.take(message)

    def _hear(self, peers: Peers, timeout_s: float) -> None:
        parts = peers.hear(timeout_s)
        if parts is not None:
            self.intake.take(self._decoder.decode(parts))

    def _await_header(self, peers: Peers, header: FrameHeader) -> None:
        """Hold the first frame of a series that a peer may have the header of."""
        series, until_s = self.intake.series, time.monotonic() + HEADER_WAIT_S
        while not series.is_known(header.series, header.series_uid, time.monotonic_ns()):
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            self._hear(peers, left_s)

    def _watch_connections(self) -> None:
        """Say when an endpoint cannot be reached, is reached, or is gone; libzmq retries."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            endpoint = event["endpoint"].decode(errors="replace")
            connected = self.intake.ring.control["connected"]
            self._given_up_s.pop(endpoint, None)
            if event["event"] == zmq.EVENT_CONNECTED:
                connected[0] += 1
                self._unreachable.discard(endpoint)
                log.info("connected to %s", endpoint)
            elif event["event"] == zmq.EVENT_DISCONNECTED:
                connected[0] = max(0, int(connected[0]) - 1)
                self._given_up_s[endpoint] = time.monotonic() + RECONNECT_S
                log.warning("%s closed the connection; waiting for it to come back", endpoint)
            elif endpoint not in self._unreachable:
                self._unreachable.add(endpoint)
                log.warning("cannot reach %s yet; retrying until it answers", endpoint)

    def _connect_anew(self, now_s: float) -> None:
        """Connect to those whose loss libzmq has not answered with a try of its own."""
        for endpoint in [e for e, at_s in self._given_up_s.items() if now_s > at_s]:
            del self._given_up_s[endpoint]
            log.warning("%s broke the protocol or its bounds; connecting anew", endpoint)
            self._socket.connect(endpoint)
