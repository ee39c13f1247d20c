"""A worker's models: those in force, and what is offered to take their place, loaded beside.

One rule: frames do not wait. What is offered is read and prepared by a thread while frames are
judged; between two frames it is at hand, or refused with a reason. What is in force and not at
hand, as after this worker's start, is read at once.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hitfinder import HitfinderError
from hitfinder.models import weights
from hitfinder.models.frame_gate import FrameGate
from hitfinder.models.judgement import Judgement
from hitfinder.models.pipeline import Pipeline
from hitfinder.stream.candidate import Candidate, Offer
from hitfinder.stream.controls import Controls, model_path
from hitfinder.stream.ring import Ring
from hitfinder.workers.decoders import Terms
from hitfinder.workers.series_terms import SeriesTerms, TermsName

# A model's gate, and the open series' terms under another mask.
Loaded = tuple[FrameGate | None, dict[TermsName, Terms]]


class Replacements:
    """The models of one worker.

    Args:
        role: this worker's.
        runtime: folder that the daemon's processes share.
        pipeline: whose candidate is set while a model is compared.
        terms: of the worker's series.
    """

    def __init__(
        self,
        ring: Ring,
        role: int,
        runtime: Path,
        pipeline: Pipeline,
        terms: SeriesTerms,
    ) -> None:
        self._candidate, self._controls = Candidate(ring), Controls(ring)
        self._role, self._runtime, self._pipeline = role, runtime, pipeline
        self._terms = terms
        self._gates: dict[str | None, FrameGate] = {None: pipeline.gate}
        self._thread = ThreadPoolExecutor(1, "replacement")
        self._offer: Offer | None = None
        self._loading: Future[Loaded] | None = None
        for change in self._controls.all():
            self.gate_of(change.model)

    def gate_of(self, model: str | None) -> FrameGate:
        """Return a model's gate, by its sha256; None for the configured one."""
        if model not in self._gates:
            self._gates[model] = self._read(model or "")
        return self._gates[model]

    def step(self) -> None:
        """Take note of an offer, or of what the thread has prepared; costs a look."""
        number = self._candidate.number
        if number != (self._offer.number if self._offer else 0):
            self._begin(number)
        elif self._loading is not None and self._loading.done():
            self._finish(self._loading)
            self._loading = None

    def count(self, judgement: Judgement) -> None:
        """Count a frame that the model in force and the one that is offered have judged."""
        if judgement.p_candidate is not None and self._offer is not None:
            would_be_hit = judgement.p_candidate > self._offer.threshold
            self._candidate.count(self._role, is_hit=judgement.is_hit, would_be_hit=would_be_hit)

    # ------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        """Forget the last offer, unless it holds now, and have the next one loaded."""
        self._pipeline.candidate, self._loading, self._offer = None, None, None
        if not number:
            in_force = {change.model for change in self._controls.all()}
            self._gates = {m: g for m, g in self._gates.items() if m is None or m in in_force}
            return
        offer = self._candidate.read()
        if offer.number == number:  # else it is being written: the next look
            self._offer = offer
            self._loading = self._thread.submit(self._load, offer)

    def _load(self, offer: Offer) -> Loaded:
        gate = None
        if offer.model is not None:
            gate = self._gates.get(offer.model) or self._read(offer.model)
        return gate, self._terms.under_offer(offer)

    def _finish(self, loading: Future[Loaded]) -> None:
        if self._offer is None:
            return
        refusal = ""
        try:
            gate, self._terms.prepared = loading.result()
        except HitfinderError as error:
            refusal = str(error)
        else:
            if gate is not None:
                self._gates[self._offer.model] = self._pipeline.candidate = gate
        self._candidate.answer(self._role, self._offer.number, refusal)

    def _read(self, model: str) -> FrameGate:
        path = model_path(self._runtime, model)
        return FrameGate(weights.load(path), self._pipeline.mode)
