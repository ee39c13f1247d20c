"""The daemon's state of health: what `status` publishes, `/metrics` counts and the page shows.

One rule: it is made once a second by the supervisor's own loop, as a new map that nobody changes
afterwards; the page's threads only read it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from hitfinder.stream.ring import Ring, State
from hitfinder.workers.alarms import alarms_of
from hitfinder.workers.children import Child
from hitfinder.workers.control import Control
from hitfinder.workers.publisher import Publisher

log = logging.getLogger(__name__)

PERIOD_S = 1.0


class DaemonState:
    """The latest state, and what it is made from.

    Attributes:
        latest: the map; keys as in the runbook's table.
    """

    def __init__(
        self, ring: Ring, publisher: Publisher, children: Sequence[Child], control: Control
    ) -> None:
        self._ring, self._publisher, self._children = ring, publisher, children
        self._control = control
        self._started_s, self._due_s = time.monotonic(), 0.0
        self.latest: dict[str, Any] = {"alarms": []}
        self.renew()

    def is_due(self) -> bool:
        """Say whether a second has passed."""
        return time.monotonic() >= self._due_s

    def renew(self) -> None:
        """Make the state anew."""
        now_s = time.monotonic()
        self._due_s = now_s + PERIOD_S
        state = self._counters(now_s - self._started_s)
        history = self._publisher.history
        history.step(state, time.time())
        newest = state["series_open"][-1]["counts"] if state["series_open"] else None
        state |= history.rates(newest)
        state["lately"] = history.lately()
        state["alarms"] = alarms_of(state)
        before = {alarm["name"] for alarm in self.latest["alarms"]}
        for alarm in state["alarms"]:
            if alarm["name"] not in before:
                log.warning("alarm %s: %s", alarm["name"], alarm["text"])
        self.latest = state

    def _counters(self, uptime_s: float) -> dict[str, Any]:
        control, publisher = self._ring.control, self._publisher
        p50, p99 = publisher.latency_s()
        return {
            "t_monotonic_s": time.monotonic(),
            "uptime_s": uptime_s,
            "counts": dict(publisher.counts),
            "n_messages": int(control["n_messages"][0]),
            "n_bytes": int(control["n_bytes"][0]),
            "n_malformed": int(control["n_malformed"][0]),
            "n_stale": int(control["n_stale"][0]),
            "connected": int(control["connected"][0]),
            "ring_slots": self._ring.layout.n_slots,
            "ring_slots_used": int((self._ring.states != State.FREE).sum()),
            "latency_p50_s": p50,
            "latency_p99_s": p99,
            "n_series_open": len(publisher.series.open_entries()),
            "n_series_closed": publisher.n_released,
            "series_open": publisher.open_series(),
            "source_total": int(control["source_total"][0]),
            "n_judges": int(control["n_judges"][0]),
            "n_judges_up": int(control["n_judges_up"][0]),
            "n_nodes": int(control["n_nodes"][0]),
            "n_hot_pixels": int(control["n_hot"][0].max()),
            "brightest": publisher.samples.brightest(),
            "children": [
                {
                    "name": c.name,
                    "alive": c.alive,
                    "ready": c.is_ready(self._ring),
                    "done": c.done,
                    "starts": c.n_starts,
                    "last_exit": c.last_exit,
                }
                for c in self._children
            ],
            "changes": self._control.latest(),
            "errors": self._ring.errors(),
        }
