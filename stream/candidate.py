"""Another model or mask on its way into force, in shared memory: offered to all workers at once.

One rule: nothing is put in force that a worker has not at hand. The supervisor offers, each worker
loads it beside its work and answers; of a model each also counts the frames that both have judged.
Whoever starts meanwhile finds the same offer. Writers: the supervisor of the offer, a worker of
its own answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hitfinder.stream import _kernels
from hitfinder.stream.controls import Change
from hitfinder.stream.ring import Ring


class Offer(NamedTuple):
    """What is offered.

    Attributes:
        number: counts the offers of one daemon, from 1.
        model: sha256 of the weights, None if the model stays.
        mask: sha256 of the mask; None for the configured one.
        n_masks: as in `Change` once it holds.
        threshold: of the model's p_hit, for the comparison.
    """

    number: int
    model: str | None
    mask: str | None
    n_masks: int
    threshold: float


class Candidate:
    """The offer of the moment, in whichever process."""

    def __init__(self, ring: Ring) -> None:
        self._ring, self._row = ring, ring.candidate
        self._n_offers = 0

    def offer(self, would_be: Change, *, has_model: bool) -> Offer:
        """Offer what would be changed to; the supervisor's.

        Args:
            would_be: all that would hold.
            has_model: the model is to be changed, too.
        """
        self.withdraw()
        self._n_offers += 1
        row, threshold = self._row[0], would_be.threshold
        model = would_be.model if has_model else None
        row["model"], row["mask"] = (model or "").encode(), (would_be.mask or "").encode()
        row["n_masks"], row["threshold"] = would_be.n_masks, threshold or 0.0
        self._store_number(self._n_offers)
        return Offer(self._n_offers, model, would_be.mask, would_be.n_masks, threshold or 0.0)

    def withdraw(self) -> None:
        """End the offer, taken or not."""
        self._store_number(0)

    @property
    def number(self) -> int:
        """The number of the offer of the moment, 0 if there is none."""
        return int(self._row["number"][0])

    def read(self) -> Offer:
        """Return the offer of the moment."""
        row = self._row[0]
        model, mask = (row[n].decode() or None for n in ("model", "mask"))
        return Offer(int(row["number"]), model, mask, int(row["n_masks"]), float(row["threshold"]))

    def answer(self, role: int, number: int, refusal: str = "") -> None:
        """Say that a worker has it at hand, or why it cannot be; its count begins."""
        row = self._row[0]
        row["judged"][role] = 0
        row["refusal"][role] = refusal.encode()[:240]
        row["answered"][role] = number

    def count(self, role: int, *, is_hit: bool, would_be_hit: bool) -> None:
        """Count a frame that both models have judged."""
        self._row["judged"][0, role, int(is_hit), int(would_be_hit)] += 1

    def waits_for(self, number: int, roles: range) -> list[int]:
        """Return the workers that have not answered."""
        return [role for role in roles if self._row["answered"][0, role] != number]

    def refusals(self, number: int, roles: range) -> list[str]:
        """Return why workers cannot take it."""
        answered = [role for role in roles if self._row["answered"][0, role] == number]
        texts = [self._row["refusal"][0, role].decode(errors="replace") for role in answered]
        return [text for text in texts if text]

    def judged(self, number: int, roles: range) -> NDArray[np.uint64]:
        """Return frames by verdict, uint64 (2, 2): miss or hit now, miss or hit as it would be."""
        mine = [role for role in roles if self._row["answered"][0, role] == number]
        total: NDArray[np.uint64] = self._row["judged"][0, mine].sum(0, dtype=np.uint64)
        return total

    def _store_number(self, number: int) -> None:
        at = self._ring.layout.offsets["candidate"]
        _kernels.store_u32(self._ring.memory, at, number)
