"""Messages from the inbox into the intake: the process that reads what strangers wrote.

One rule: judge each message by its own bytes, never stop for a bad one (protocol note, sections
2.4 and 5). A message is done with once the intake has taken it, so a killed receiver loses none;
one that kills receivers again and again is given up. Other daemons may read the same detector:
then `Peers` tell what it did not get.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hitfinder.stream import wire
from hitfinder.stream.connection import MAX_MESSAGE_BYTES
from hitfinder.stream.errors import WireError
from hitfinder.stream.inbox import Inbox
from hitfinder.stream.intake import Intake
from hitfinder.stream.messages import Frame, FrameHeader, Message, SeriesEnd, SeriesStart
from hitfinder.stream.peers import Peers
from hitfinder.stream.ring import Bells

POLL_S = 0.05
# Told to stop, we read until the wire has been quiet this long, or the bound is reached.
QUIET_S, DRAIN_S = 0.25, 5.0
# A message at which this many receivers died, none of them while it waited for room, is the fault.
MAX_TRIES = 3
# The first frame of a series waits so long for the header that a peer got: without it the frame
# would be judged without mask and geometry. A header that died with its host costs this once.
HEADER_WAIT_S = 0.5


def waiting(inbox: Inbox, go_on: Callable[[], bool]) -> Callable[[], bool]:
    """Return the `beat` of an intake that takes from this inbox, for while it waits for room."""

    def beat() -> bool:
        inbox.forgive()
        return go_on()

    return beat


class Receiver:
    """Takes the detector's messages in until told to stop.

    Args:
        protocol: `v1`, `v2`, or `auto` to tell by each message's own bytes.
        lenient: accept the two simulators whose blob headers are wrong.
        peers: endpoint of the relay to other receivers of this detector; None if there are none.
    """

    def __init__(
        self,
        inbox: Inbox,
        bells: Bells,
        intake: Intake,
        *,
        protocol: wire.Protocol = "auto",
        lenient: bool = False,
        peers: str | None = None,
    ) -> None:
        self.inbox, self.bells, self.intake = inbox, bells, intake
        self._decoder = wire.WireDecoder(protocol, lenient)
        self._peers = Peers(peers, MAX_MESSAGE_BYTES) if peers is not None else None

    def run(self, stopping: Callable[[], bool], go_on: Callable[[], bool]) -> None:
        """Read until `stopping` says so and the wire is quiet, or the drain's bound is reached.

        Args:
            go_on: says whether there is anybody left to judge what would be read.
        """
        stop_at, last = None, time.monotonic()
        while True:
            now = time.monotonic()
            if stopping() and stop_at is None:
                stop_at = now + DRAIN_S
            if stop_at is not None and (now > stop_at or now - last > QUIET_S):
                return
            self.intake.seal()
            if not go_on():
                return
            if self._peers is not None:
                self._hear(self._peers, 0.0)
            if self.take_one():
                last = time.monotonic()
            else:
                self.bells.wait("inbox", POLL_S)

    def take_one(self) -> bool:
        """Take the oldest message in; False if there is none."""
        taken = self.inbox.take_up()
        if taken is None:
            return False
        parts, n_tries = taken
        n_bytes = sum(map(len, parts))
        if n_tries < MAX_TRIES:
            message = self._decoder.decode(parts)
            if self._peers is not None:
                self._share(self._peers, message, parts, again=n_tries > 0)
            self.intake.take(message, again=n_tries > 0)
        else:
            self.intake.give_up(f"message of {n_bytes} bytes: {n_tries} receivers died taking it")
        self.intake.ring.control["n_bytes"][0] += n_bytes
        self.inbox.done()
        self.bells.ring("connection")
        return True

    def close(self) -> None:
        """Leave the peers, once the last message is out to them."""
        if self._peers is not None:
            self._peers.close()

    # ------------------------------------------------------------------------------------

    def _share(
        self,
        peers: Peers,
        message: Message | WireError,
        parts: Sequence[memoryview],
        *,
        again: bool,
    ) -> None:
        if isinstance(message, Frame):
            self._await_header(peers, message.header)
        elif isinstance(message, SeriesStart | SeriesEnd) and (
            # Without a unique id (stream V1) a header that comes twice would begin a new series.
            message.series_uid is not None or not again
        ):
            peers.tell(message, parts)

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
