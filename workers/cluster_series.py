"""A series as the collector of several hosts knows it, until its end is published."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from hitfinder.stream.joining import Death
from hitfinder.stream.ledger import record_of
from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.stream.results import OUTCOMES, Record
from hitfinder.workers.cluster_member import Member

# A host that has not begun a series which is over elsewhere gets so long to begin it: its header
# may be on the way. One with a full ring may have it in its queue, and a silent one too.
SETTLE_S, BLOCKED_S = 3.0, 100.0
_ROWS = 4096


@dataclass(eq=False)
class Collected:
    """A series of which some host has said something.

    Attributes:
        begun, ended: names of the members that have.
        published: a byte a frame, 1 once it is.
        counts: of what is published.
        deaths: of members while it was open.
        settled_s: when a member ended it or died last.
        n_announced: frames, as far as any header said.
        rest: what is left to publish, once it is joined; end: what its end will say then.
    """

    series: int
    uid: str | None
    begun: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=lambda: {o.value: 0 for o in OUTCOMES})
    published: bytearray = field(default_factory=bytearray)
    deaths: list[Death] = field(default_factory=list)
    settled_s: float = 0.0
    is_announced: bool = False
    n_announced: int = 0
    rest: Iterator[Record] | None = None
    end: dict[str, Any] = field(default_factory=dict)

    def is_new(self, frame: int) -> bool:
        """Say whether a frame was not published yet, and note that it is."""
        if not 0 <= frame < MAX_FRAMES:
            return False
        if frame >= len(self.published):
            n = len(self.published)
            self.published.extend(bytes(max(frame + 1, 2 * n) - n))
        is_new = not self.published[frame]
        self.published[frame] = 1
        return is_new

    def bury(self, member: Member) -> None:
        """Note that a member died; what it had of this series may be lost."""
        if member.name not in self.ended:
            self.deaths.append(Death(member.name, member.node, time.time_ns()))
            self.settled_s = time.monotonic()

    def is_over(self, living: Sequence[Member]) -> bool:
        """Say whether no member has, or may still get, a frame of it."""
        if not living or (not self.ended and not self.deaths):
            return False
        if any(m.name in self.begun and m.name not in self.ended for m in living):
            return False
        waited_s = time.monotonic() - self.settled_s
        may_begin = [m for m in living if m.name not in self.begun]
        if any(m.is_blocked() for m in may_begin) and waited_s < BLOCKED_S:
            return False
        return not may_begin or waited_s > SETTLE_S

    def unpublished(self, ledger: Path) -> Iterator[Record]:
        """Yield the rows of the joined ledger that were not published yet."""
        with h5py.File(ledger, "r") as file:
            for begin in range(0, len(file["ledger"]), _ROWS):
                for row in file["ledger"][begin : begin + _ROWS]:
                    if self.is_new(int(row["frame"])):
                        yield record_of(row)

    def progress(self) -> dict[str, Any]:
        """Return how far it is, as `status` says it."""
        return {
            "series": self.series,
            "series_uid": self.uid,
            "announced": self.n_announced or None,
            "counts": dict(self.counts),
            "hosts_ended": sorted(self.ended),
        }
