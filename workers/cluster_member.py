"""A daemon of a run over several hosts as the collector hears it, and all of them together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

# A daemon says how it is once a second; after this it is not known any more.
STALE_S = 5.0
_SUMMED = ("n_messages", "n_bytes", "n_malformed", "n_stale", "connected")
_SUMMED_NOW = ("ring_slots", "ring_slots_used")


@dataclass(eq=False)
class Member:
    """One daemon.

    Attributes:
        name: of its folder; node: where it runs.
        socket: of its topic, closed once it is not `alive`.
        status: its latest; heard_s: when that came.
    """

    name: str
    node: str
    socket: zmq.Socket[bytes]
    status: dict[str, Any] = field(default_factory=dict)
    heard_s: float = 0.0
    alive: bool = True

    def is_blocked(self) -> bool:
        """Say whether it may have messages that it has not read."""
        if not self.status or time.monotonic() - self.heard_s > STALE_S:
            return True
        return bool(self.status["ring_slots_used"] >= self.status["ring_slots"])


def status_of(members: Sequence[Member], n_wanted: int) -> dict[str, Any]:
    """Return what `status` says of all hosts: sums over the living, and each for itself.

    Args:
        members: all there ever were.
        n_wanted: that should be alive.
    """
    living = [m for m in members if m.alive]
    down = {
        "name": "host_down",
        "urgency": "page",
        "text": f"{len(living)} of {n_wanted} hosts are up",
        "advice": "Ray starts another where a node is free: look at its nodes.",
    }
    return {
        **{name: sum(m.status.get(name, 0) for m in living) for name in _SUMMED + _SUMMED_NOW},
        "hosts": [
            {
                "name": m.name,
                "node": m.node,
                "alive": m.alive,
                "counts": m.status.get("counts"),
                "children": m.status.get("children"),
            }
            for m in members
        ],
        "alarms": [down] * (len(living) < n_wanted)
        + [
            {**alarm, "text": f"host {m.name} on {m.node}: {alarm['text']}"}
            for m in living
            for alarm in m.status.get("alarms", ())
        ],
    }
