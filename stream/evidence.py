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
from hitfinder.stream.packed import Packed
from hitfinder.stream.ring import COUNTS, EVIDENCE, MAX_ROLES, POSTERIOR, Ring

Counts = NDArray[np.float64]

HEAD = Packed(COUNTS, ("key", "version", "n_bins", "n_frames", "last_seq"))
COPIES_AT: int = dict(EVIDENCE.fields or {})["copies"][1]


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
        copies = ring.evidence["copies"]
        # Views of all blocks' fields: (entry, role, misses or hits), and with the copy behind.
        self._active = ring.evidence["active"]
        self._seq, self._keys = copies["last_seq"], copies["key"]
        self._versions, self._n_frames = copies["version"], copies["n_frames"]

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
        if (self._seq[entry] == seq).any():
            counted = self._latest(self._seq, entry) == seq
            if (self._latest(self._keys, entry)[counted] == key).any():
                return
        place_at = (
            self._at["evidence"] + ((entry * MAX_ROLES + role) * 2 + is_hit) * EVIDENCE.itemsize
        )
        place = self._ring.evidence[entry, role, int(is_hit)]
        active, n_bins = int(self._active[entry, role, int(is_hit)]), len(counts)
        unread = 1 - active
        old, new = place["copies"][active], place["copies"][unread]
        copy_at = place_at + COPIES_AT
        *was, n_frames, _ = HEAD.read(self._ring.memory, copy_at + active * COUNTS.itemsize)
        is_same = was == [key, version, n_bins]
        for name, one in (("counts", counts), ("exposure", exposure)):
            if is_same:
                np.add(old[name][:n_bins], one, out=new[name][:n_bins])
            else:
                new[name][:n_bins] = one
        n_frames = n_frames + 1 if is_same else 1
        new_at = copy_at + unread * COUNTS.itemsize
        HEAD.write(self._ring.memory, new_at, key, version, n_bins, n_frames, seq)
        _kernels.store_u32(self._ring.memory, place_at, unread)

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
        is_mine = self._latest(self._keys, entry) == key
        versions = self._latest(self._versions, entry)[is_mine]
        n_frames = self._latest(self._n_frames, entry)[is_mine]
        return int(n_frames[versions == versions.max(initial=0)].sum())

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

    def _latest(self, field: NDArray[Any], entry: int) -> NDArray[Any]:
        """Return a field of the whole copies of all roles, (MAX_ROLES, 2)."""
        active = self._active[entry]
        return np.where(active, field[entry, :, :, 1], field[entry, :, :, 0])
