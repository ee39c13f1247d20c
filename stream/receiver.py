"""Messages from the inbox into the intake: the process that reads what strangers wrote.

One rule: judge each message by its own bytes, never stop for a bad one (protocol note, sections
2.4 and 5). A message is done with once the intake has taken it, so a killed receiver loses none;
one that kills receivers again and again is given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hitfinder.stream import wire
from hitfinder.stream.inbox import Inbox
from hitfinder.stream.intake import Intake
from hitfinder.stream.ring import Bells

POLL_S = 0.05
# Told to stop, we read until the wire has been quiet this long, or the bound is reached.
QUIET_S, DRAIN_S = 0.25, 5.0
# A message at which this many receivers died is the fault, not they. More than a frame's workers:
# one that waits long for room may meet deaths that are not its own.
MAX_TRIES = 5


class Receiver:
    """Takes the detector's messages in until told to stop.

    Args:
        protocol: `v1`, `v2`, or `auto` to tell by each message's own bytes.
        lenient: accept the two simulators whose blob headers are wrong.
    """

    def __init__(
        self,
        inbox: Inbox,
        bells: Bells,
        intake: Intake,
        *,
        protocol: wire.Protocol = "auto",
        lenient: bool = False,
    ) -> None:
        self.inbox, self.bells, self.intake = inbox, bells, intake
        self._decoder = wire.WireDecoder(protocol, lenient)

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
            self.intake.take(self._decoder.decode(parts), again=n_tries > 0)
        else:
            self.intake.give_up(f"message of {n_bytes} bytes: {n_tries} receivers died taking it")
        self.intake.ring.control["n_bytes"][0] += n_bytes
        self.inbox.done()
        self.bells.ring("connection")
        return True
