"""What the frames of a series say together, in shared memory: counts added up, and the estimate.

One rule: nothing is half written to a reader. Each worker adds to its own block, into the copy
that nobody reads, and then flips; so a killed worker leaves its last whole frame. A frame carries
its slot's number into the block, so that judging it again does not count it again.

Hits and misses are counted apart. Who estimates is settled by a claim on the series' clock: one
worker at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream import _kernels
from hitfinder.stream.ring import EVIDENCE, MAX_ROLES, POSTERIOR, Ring

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Total:
    """The frames of a series so far, all workers together.

    Attributes:
        counts: float64 (bins,), background photons.
        exposure: float64 (bins,), counted pixels times each frame's photons.
        n_frames: judged frames in it.
    """

    counts: Counts
    exposure: Counts
    n_frames: int


class Evidence:
    """The shared evidence of all series, in whichever process."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._at = ring.layout.offsets

    def add(
        self,
        entry: int,
        role: int,
        slot: int,
        version: int,
        counts: Counts,
        exposure: Counts,
        *,
        is_hit: bool,
    ) -> None:
        """Count a judged frame in, unless it is already.

        Args:
            entry: the series'; role: this worker's.
            slot: where the frame lies.
            version: of the series' header; frames judged under an older one are forgotten.
            counts, exposure: float64 (bins,), at most `MAX_BINS`; see `Total`.
        """
        key, seq = int(self._ring.series["key"][entry]), int(self._ring.slots["seq"][slot])
        latest = self._blocks(entry)
        if any(int(b["key"]) == key and int(b["last_seq"]) == seq for b in latest):
            return
        place = self._ring.evidence[entry, role, int(is_hit)]
        unread = 1 - int(place["active"])
        old, new = latest[2 * role + is_hit], place["copies"][unread]
        n_bins = len(counts)
        goes_on = (int(old["key"]), int(old["version"]), int(old["n_bins"])) == (
            key,
            version,
            n_bins,
        )
        new["key"], new["version"], new["n_bins"], new["last_seq"] = key, version, n_bins, seq
        new["n_frames"] = 1 + (int(old["n_frames"]) if goes_on else 0)
        for name, one in (("counts", counts), ("exposure", exposure)):
            if goes_on:
                np.add(old[name][:n_bins], one, out=new[name][:n_bins])
            else:
                new[name][:n_bins] = one
        offset = (
            self._at["evidence"] + ((entry * MAX_ROLES + role) * 2 + is_hit) * EVIDENCE.itemsize
        )
        _kernels.store_u32(self._ring.memory, offset, unread)

    def total(self, entry: int, version: int, n_bins: int, *, is_hit: bool) -> Total:
        """Return what all workers counted of a series' hits or misses under one header."""
        key = int(self._ring.series["key"][entry])
        counts, exposure, n_frames = np.zeros(n_bins), np.zeros(n_bins), 0
        for block in self._blocks(entry)[int(is_hit) :: 2]:
            if (block["key"], block["version"], block["n_bins"]) == (key, version, n_bins):
                counts += block["counts"][:n_bins]
                exposure += block["exposure"][:n_bins]
                n_frames += int(block["n_frames"])
        return Total(counts, exposure, n_frames)

    def n_frames(self, entry: int) -> int:
        """Return how many frames of a series were counted under its newest header."""
        key = int(self._ring.series["key"][entry])
        mine = [b for b in self._blocks(entry) if int(b["key"]) == key]
        newest = max((int(b["version"]) for b in mine), default=0)
        return sum(int(b["n_frames"]) for b in mine if int(b["version"]) == newest)

    def claim(self, entry: int, now_ms: int, period_ms: int) -> bool:
        """Say whether the caller should estimate now: nobody has within the period."""
        offset = self._at["posteriors"] + entry * POSTERIOR.itemsize
        last = int(self._ring.posteriors["claimed_ms"][entry])
        if last and (now_ms - last) % 2**32 < period_ms:
            return False
        return _kernels.cas_u32(self._ring.memory, offset, last, now_ms % 2**32 or 1)

    def store(self, entry: int, said: Mapping[str, Any]) -> None:
        """Put an estimate in the place of the last one; keys as the fields of `ESTIMATE`."""
        place = self._ring.posteriors[entry]
        unread = 1 - int(place["active"])
        estimate = place["copies"][unread]
        estimate["key"] = self._ring.series["key"][entry]
        for name, value in said.items():
            estimate[name] = value
        place["active"] = unread

    def estimate(self, entry: int) -> dict[str, Any] | None:
        """Return the latest estimate as plain values, None if there is none of this series."""
        place = self._ring.posteriors[entry]
        latest = place["copies"][int(place["active"])].copy()
        if not latest["key"] or latest["key"] != self._ring.series["key"][entry]:
            return None
        names = (name for name in latest.dtype.names or () if name != "key")
        return {name: latest[name].tolist() for name in names}

    def said(self, entry: int) -> dict[str, Any] | None:
        """Return the latest estimate as it is published: unknown is None, not NaN."""
        latest = self.estimate(entry)
        if latest is None:
            return None
        if latest.pop("look") < 0:
            latest["header_chance"] = latest["header_mismatch"] = None
        return latest

    def is_settled(self, entry: int) -> bool:
        """Say whether the latest estimate holds every frame that was counted."""
        latest = self.estimate(entry)
        return self.n_frames(entry) == (0 if latest is None else latest["n_frames"])

    def _blocks(self, entry: int) -> list[Any]:
        """Return the whole copies of all roles: misses and hits of the first, of the next, ..."""
        places = self._ring.evidence[entry].ravel()
        return [place["copies"][int(place["active"])] for place in places]
