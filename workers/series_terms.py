"""What a worker's series are judged by: geometry, mask and tables of each that is open.

One rule: they are made once, at a series' first frame, at the first under a late header, or, where
the operator brings another mask, by a thread before it holds; frames look them up.
"""

from __future__ import annotations

from pathlib import Path

from hitfinder.models import learned
from hitfinder.models.masks import read_mask_file
from hitfinder.models.pipeline import Pipeline
from hitfinder.stream import bslz4
from hitfinder.stream.candidate import Offer
from hitfinder.stream.controls import Change, Controls, mask_path
from hitfinder.stream.intake import header_path
from hitfinder.stream.messages import Blob, unpack_start
from hitfinder.stream.ring import MAX_ROLES, Ring
from hitfinder.stream.series import SeriesTable
from hitfinder.workers.config import Config
from hitfinder.workers.decoders import Terms
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.knowledge import Knowledge
from hitfinder.workers.session import FIRST_WORKER_ROLE

# Terms kept beside the newest: a detector has one series open, and one shape of image.
MAX_TERMS = 8

# Numbers of learned lists that a daemon has to itself among those that share a detector: one for
# each worker and mask.
LISTS_A_MEMBER = 10_000

# (series key, version of its header, image shape, times that the mask was changed)
TermsName = tuple[int, int, tuple[int, int], int]


class SeriesTerms:
    """The terms of one worker's series.

    Args:
        role: this worker's.
        runtime: folder that the daemon's processes share.
        config: for the operator's geometry, and which of several daemons this is.
        pipeline: makes the tables.
        is_live: frames come from a detector, not from recordings.

    Attributes:
        prepared: terms under a mask that may come into force.
    """

    def __init__(
        self,
        ring: Ring,
        role: int,
        runtime: Path,
        config: Config,
        pipeline: Pipeline,
        *,
        is_live: bool,
    ) -> None:
        self._ring, self._role, self._runtime, self._is_live = ring, role, runtime, is_live
        # No worker of another host has a list of this number.
        self._first_list = LISTS_A_MEMBER * config.member.number + role - FIRST_WORKER_ROLE
        self._series, self._controls = SeriesTable(ring), Controls(ring)
        self._operator, self._pipeline = OperatorGeometry(config.geometry), pipeline
        self._terms: dict[TermsName, Terms] = {}
        self.prepared: dict[TermsName, Terms] = {}

    def of(self, key: int, blob: Blob, held: Change) -> Terms:
        """Return what is in force for a series' images of this shape; a late header counts.

        Args:
            key: of the series.
            blob: an image of it.
            held: what the operator has changed for it.

        Raises:
            WireError: the first such image does not decode.
        """
        entry = self._series.entry_of(key)
        version = 0 if entry is None else int(self._ring.series["start_version"][entry])
        name = (key, version, blob.shape, held.n_masks)
        if name not in self._terms:
            terms = self.prepared.pop(name, None) or self._begin(name, blob, held.mask)
            self.keep(key, terms)
            # Those of a series that is over would keep some 17 MB each of a 4M detector's tables.
            still = self._open_keys()
            in_use = [n for n in self._terms if n[0] in still]
            kept = {n: self._terms[n] for n in in_use[-MAX_TERMS:]}
            self._terms = {**kept, name: terms}
        return self._terms[name]

    def keep(self, key: int, terms: Terms) -> None:
        """Keep what a series has taught, before a verdict that rests on it goes out."""
        series = terms.context.series
        terms.knowledge.keep(key, terms.geometry.valid, series.entries)
        self._ring.control["n_hot"][0, self._role] = series.n_hot

    def under_offer(self, offer: Offer) -> dict[TermsName, Terms]:
        """Prepare the open series under a mask that is offered; another thread's work.

        Raises:
            GeometryError: the mask is not of the detector's shape.
        """
        if offer.n_masks == self._controls.latest().n_masks:
            return {}
        still, found = self._open_keys(), {}
        for (key, version, shape, n_masks), terms in self._terms.items():
            if key in still and n_masks + 1 == offer.n_masks:
                name = (key, version, shape, offer.n_masks)
                found[name] = self._under_mask(terms, offer.mask, offer.n_masks)
        return found

    # ------------------------------------------------------------------------------------

    def _begin(self, name: TermsName, blob: Blob, mask: str | None) -> Terms:
        """Prepare a series from its header and its first image."""
        key, version, _, n_masks = name
        start = unpack_start(header_path(self._runtime, key).read_bytes())
        image = bslz4.decode(blob)
        geometry = self._operator.of_series(start, image, self._mask_file(mask))
        knowledge = self._knowledge(n_masks)
        known = knowledge.of_series(key, geometry.valid)
        context = self._pipeline.begin(geometry.geometry, geometry.valid, known)
        return Terms(version, geometry, context, knowledge)

    def _under_mask(self, terms: Terms, mask: str | None, n_masks: int) -> Terms:
        """Prepare a series' terms under another mask, with what its frames have taught so far."""
        file, now = self._mask_file(mask), terms.geometry
        if file is not None:
            read_mask_file(file, now.geometry.shape)
        geometry = self._operator.masked(now, file)
        known = terms.context.series.entries
        if (geometry.valid & ~now.valid).any():
            known = learned.for_more_pixels(known)
        context = self._pipeline.begin(geometry.geometry, geometry.valid, known)
        return Terms(terms.version, geometry, context, self._knowledge(n_masks))

    def _mask_file(self, mask: str | None) -> Path | None:
        return None if mask is None else mask_path(self._runtime, mask)

    def _knowledge(self, n_masks: int) -> Knowledge:
        number = self._first_list + n_masks * MAX_ROLES
        return Knowledge(self._runtime, number, is_live=self._is_live)

    def _open_keys(self) -> set[int]:
        return {int(self._ring.series["key"][e]) for e in self._series.open_entries()}
