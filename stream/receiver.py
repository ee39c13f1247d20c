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
# A message at which this many receivers died, none of them while it waited for room, is the fault.
MAX_TRIES = 3


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
