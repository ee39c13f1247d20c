"""Another model or mask brought into force while frames come, from the supervisor's side.

One rule: first a copy, then every worker has it at hand, then both models judge the same frames
and their disagreement is known; only then it may hold, from a stated frame on. Whatever fails on
the way leaves all as it was. It runs in the thread of the one who asks: the loop does not wait.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hitfinder.models import weights_file
from hitfinder.models.errors import GeometryError, ModelError
from hitfinder.models.vouched import card_path
from hitfinder.stream.candidate import Candidate, Offer
from hitfinder.stream.controls import DIGITS, Change, Controls, Replacement, mask_path, model_path
from hitfinder.stream.ring import Ring
from hitfinder.workers.mask_copy import copy_mask
from hitfinder.workers.refusal import RefusedError
from hitfinder.workers.session import FIRST_WORKER_ROLE

log = logging.getLogger(__name__)

# A worker that was just restarted loads first what is in force.
LOADED_S = 120.0
LOOK_S = 0.02
CONFIGURED = "configured"
WATER = ("water.q_inv_A", "water.f2_e2")


class Candidates:
    """Copies, offers and compares.

    Args:
        runtime: folder that the daemon's processes share.
        n_workers: who all must have it.
        configured: the configured weights.

    Attributes:
        latest: the latest candidate and how far it came, as `status` tells it; None before the
            first.
    """

    def __init__(self, ring: Ring, runtime: Path, n_workers: int, configured: Path) -> None:
        self._ring, self._runtime, self._configured = ring, runtime, configured
        self._candidate, self._controls = Candidate(ring), Controls(ring)
        self._workers = range(FIRST_WORKER_ROLE, FIRST_WORKER_ROLE + n_workers)
        self.latest: dict[str, Any] | None = None

    def weights(self, model: str | None) -> Path:
        """Return the file of a model by its sha256; of the configured one if None."""
        return self._configured if model is None else model_path(self._runtime, model)

    def copy_model(self, file: str) -> Replacement:
        """Copy weights and card to where every worker finds them.

        Raises:
            RefusedError: they are not ours, not as the card says, or with another water table.
        """
        source = self._configured if file == CONFIGURED else Path(file)
        try:
            found, now = weights_file.read(source), weights_file.read(self._configured)
            if not all(np.array_equal(found.arrays[n], now.arrays[n]) for n in WATER):
                raise ModelError(
                    f"{source.name}: another table of water than the configured model's; "
                    "restart with gate.model"
                )
            to = model_path(self._runtime, found.sha256)
            shutil.copyfile(source, to)
            shutil.copyfile(card_path(source), card_path(to))
        except (ModelError, OSError) as error:
            raise RefusedError(400, str(error)) from error
        except KeyError as error:
            raise RefusedError(400, f"{source.name}: no array {error}") from error
        return Replacement(found.sha256)

    def copy_mask(self, file: str) -> Replacement:
        """Copy a mask likewise.

        Raises:
            RefusedError: it is none.
        """
        if file == CONFIGURED:
            return Replacement(None)
        try:
            return Replacement(copy_mask(file, self._runtime))
        except GeometryError as error:
            raise RefusedError(400, str(error)) from error

    def compare(
        self, would_be: Change, n_frames: int, within_s: float, *, has_model: bool
    ) -> dict[str, Any]:
        """Have every worker prepare it; of a model, have it judge the frames that come.

        Args:
            would_be: all that would hold.
            n_frames: judged by both models; 0 for none.
            within_s: less frames will do after this time, but not none.
            has_model: the model is to be changed.

        Returns:
            What `latest` says; the offer stands until `end`.

        Raises:
            RefusedError: a worker cannot take it, or nothing came that both could judge.
        """
        offer = self._candidate.offer(would_be, has_model=has_model)
        n_wanted = n_frames if has_model else 0
        try:
            self._say(offer, "loading", n_wanted)
            self._load(offer)
            if n_wanted:
                self._say(offer, "comparing", n_wanted)
                self._judge(offer, n_wanted, within_s)
            return self._say(offer, "compared", n_wanted)
        except RefusedError as error:
            self._say(offer, f"refused: {error}", n_wanted)
            raise

    def put_in_force(self) -> None:
        """Note that the latest holds."""
        self._tell("in force")

    def end(self, model: Replacement | None, mask: Replacement | None) -> None:
        """Withdraw the offer, once it holds or will not, and drop the copies no change names.

        Until then workers keep what they have loaded.
        """
        self._candidate.withdraw()
        changes = self._controls.all()
        for kept, path_of, named in (
            (model, model_path, {c.model for c in changes}),
            (mask, mask_path, {c.mask for c in changes}),
        ):
            if kept is not None and kept.sha256 is not None and kept.sha256 not in named:
                path = path_of(self._runtime, kept.sha256)
                for file in (path, card_path(path)):
                    file.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------

    def _load(self, offer: Offer) -> None:
        def is_over() -> bool:
            refusals = self._candidate.refusals(offer.number, self._workers)
            if refusals:
                raise RefusedError(409, refusals[0])
            return not self._candidate.waits_for(offer.number, self._workers)

        if not self._until(is_over, LOADED_S):
            raise RefusedError(409, f"a worker did not load it within {LOADED_S:.0f} s")

    def _judge(self, offer: Offer, n_wanted: int, within_s: float) -> None:
        def n_judged() -> int:
            found = self._candidate.judged(offer.number, self._workers)
            self._tell("comparing", found)
            return int(found.sum())

        if not self._until(lambda: n_judged() >= n_wanted, within_s) and not n_judged():
            raise RefusedError(
                409,
                f"no frame came within {within_s:g} s that both models could judge; "
                "shadow_frames = 0 takes it unseen",
            )

    def _until(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Wait; returns whether it came to hold.

        Raises:
            RefusedError: the daemon stops.
        """
        deadline_s = time.monotonic() + within_s
        while not holds():
            if self._ring.control["stop"][0]:
                raise RefusedError(503, "the daemon stops")
            if time.monotonic() > deadline_s:
                return False
            time.sleep(LOOK_S)
        return True

    def _say(self, offer: Offer, step: str, n_wanted: int) -> dict[str, Any]:
        judged = self._candidate.judged(offer.number, self._workers)
        digests = {"model": offer.model, "mask": offer.mask}
        self.latest = {
            **{name: digest and digest[:DIGITS] for name, digest in digests.items()},
            "n_wanted": n_wanted,
        }
        return self._tell(step, judged)

    def _tell(self, step: str, judged: Any = None) -> dict[str, Any]:
        """Make `latest` anew: the page's threads may be reading the old one."""
        told = {**(self.latest or {}), "step": step}
        if judged is not None:
            (both_miss, only_then), (only_now, both_hit) = judged.tolist()
            told |= {
                "n_frames": both_miss + only_then + only_now + both_hit,
                "hits_of_both": both_hit,
                "hits_now_only": only_now,
                "hits_of_candidate_only": only_then,
            }
        self.latest = told
        return told
