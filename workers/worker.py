"""A worker: takes frames, reduces them, has the pipeline judge them, hands them on.

One rule: a slot is JUDGING while this process holds it and JUDGED once its verdict stands in it,
so a successor knows what is left. `cpu` and `cuda` are one path with different devices.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path

from hitfinder.models.frame_gate import FrameGate
from hitfinder.models.judgement import Judgement
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.resolution import d_min_A
from hitfinder.stream import bslz4
from hitfinder.stream.controls import Change, Controls
from hitfinder.stream.errors import WireError
from hitfinder.stream.malformed import Malformed
from hitfinder.stream.messages import Blob, Codec, SeriesStart
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import MAX_PEAKS, Bells, Ring, State
from hitfinder.workers.config import Config, GeometryConfig
from hitfinder.workers.decoders import Decoders, Planned, Terms
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.knowledge import Knowledge
from hitfinder.workers.pinned import lock_pages
from hitfinder.workers.replacements import Replacements
from hitfinder.workers.series_estimates import SeriesEstimates
from hitfinder.workers.series_terms import SeriesTerms
from hitfinder.workers.session import FIRST_WORKER_ROLE, Pulse, Session

log = logging.getLogger(__name__)

WAIT_S = 0.1
# While so many frames, or a quarter of the ring, queue to be judged nobody waits for a single
# result: the sink is woken for as many at once, since it and the publisher spend most of a wake-up
# on waking up. From a shorter queue each frame is handed on at once.
HAND_ON_TOGETHER = 16
# A header energy or camera length this many sigma from what the pixels say is a mismatch.
MISMATCH_SIGMA = 5.0


# The image of a rehearsal.
REHEARSED, REHEARSED_BYTES = (64, 64), 64 * 64 * 2


class Worker:
    """Judges the frames of all series on one device.

    Args:
        role: this worker's place among the children; owner of the slots it holds.
        device: `cpu` or `cuda:N`.
        n_decoders: threads that reduce frames ahead.
        is_live: frames come from a detector, not from recordings.
    """

    def __init__(
        self,
        ring: Ring,
        bells: Bells,
        runtime: Path,
        config: Config,
        role: int,
        device: str,
        n_decoders: int,
        *,
        is_live: bool,
    ) -> None:
        self.ring, self.bells, self.runtime, self.config = ring, bells, runtime, config
        self.role, self.number = role, role - FIRST_WORKER_ROLE
        self.bell = f"worker{self.number}"
        self.estimates, self.controls = SeriesEstimates(ring, role), Controls(ring)
        self.pipeline = Pipeline(
            Path(config.gate.model) if config.gate.model else None,
            device=device,
            mode=config.gate.mode,
            max_false_positive_rate=config.gate.max_false_positive_rate,
            threshold=config.gate.threshold,
        )
        # A CPU gains nothing from a batch, and waiting for one only costs time.
        on_cpu = device == "cpu"
        self._batch = 1 if on_cpu else config.workers.batch
        self._max_wait_s = 0.0 if on_cpu else config.workers.max_wait_s
        self._ahead = max(self._batch, n_decoders)
        self._decoders = Decoders(n_decoders, device)
        if not on_cpu:
            lock_pages(ring.payload)
        self._malformed = Malformed(ring)
        self.terms = SeriesTerms(ring, role, runtime, config, self.pipeline, is_live=is_live)
        self._replacements = Replacements(ring, role, runtime, self.pipeline, self.terms)
        self._together = min(HAND_ON_TOGETHER, -(-ring.layout.n_slots // 4))
        self._threshold = self.pipeline.threshold
        self._queue: deque[int] = deque()
        self._n_unannounced = 0

    def rehearse(self) -> None:
        """Judge a dark frame that nobody sent: on a device that fails no frame's worker dies."""
        dark = Blob("", REHEARSED, "uint16", Codec.NONE, 2, memoryview(bytes(REHEARSED_BYTES)))
        start = SeriesStart(0, shape=REHEARSED, dtype="uint16")
        geometry = OperatorGeometry(GeometryConfig()).of_series(start, bslz4.decode(dark))
        context = self.pipeline.begin(geometry.geometry, geometry.valid)
        terms = Terms(0, geometry, context, Knowledge(self.runtime, self.number, is_live=False))
        self._decoders.plan(-1, dark, terms)
        (frame,) = self._decoders.take(1)
        image, maps = frame.wait()
        self.pipeline.judge([image], context, [maps])
        self._decoders.give_back([frame])

    def run_once(self, timeout_s: float) -> None:
        """Take frames, judge a batch, hand it on; or wait for the doorbell."""
        self._replacements.step()
        self._take()
        if not self._decoders.planned:
            self._announce()  # another worker may have taken the rest of the queue
        self.estimates.step()
        frames = self._decoders.take(self._batch)
        if not frames:
            self.bells.wait(self.bell, timeout_s)
            return
        alike: dict[tuple[Terms, FrameGate, float], list[Planned]] = {}
        for frame in frames:
            # A message states its image's shape, and nothing makes it that of its neighbour.
            alike.setdefault((frame.terms, *self._gate_of(frame.slot)), []).append(frame)
        for (terms, gate, threshold), of_series in alike.items():
            self.pipeline.gate, self.pipeline.threshold = gate, threshold
            self._judge(terms, of_series)
        self._decoders.give_back(frames)
        self._n_unannounced += len(frames)
        if self._n_unannounced >= self._together or len(self._queue) < self._together:
            self._announce()

    # ------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Claim the oldest frames: a batch, or what came in time for one, and a few more."""
        self._claim()
        planned = self._decoders.planned
        if 0 < len(planned) < self._batch and self._max_wait_s:
            received_ns = int(self.ring.slots["t_received_ns"][planned[0].slot])
            left_s = self._max_wait_s - (time.time_ns() - received_ns) * 1e-9
            if left_s > 0:
                self._announce()
                self.bells.wait(self.bell, left_s)
                self._claim()

    def _announce(self) -> None:
        """Wake the sink for what is judged; it would find it by itself within its timeout."""
        if self._n_unannounced:
            self.bells.ring("sink")
            self._n_unannounced = 0

    def _claim(self) -> None:
        attempts, planned = self.ring.slots["attempts"], self._decoders.planned
        # A long queue is not searched again for every frame of it.
        if len(self._queue) < self._together:
            self._queue = deque(self.ring.in_state(State.RECEIVED))
        while self._queue:
            slot = self._queue[0]
            # What a dead worker held is judged alone: only the frame that kills is given up.
            is_alone = attempts[slot] > 0 or (planned and attempts[planned[0].slot] > 0)
            if len(planned) >= (1 if is_alone else self._batch + self._ahead):
                return
            self._queue.popleft()
            if self.ring.claim(slot, State.RECEIVED, State.JUDGING, self.role):
                self._plan(slot)

    def _plan(self, slot: int) -> None:
        blob = self.ring.blobs(slot)[0]
        try:
            terms = self.terms.of(int(self.ring.slots["key"][slot]), blob, self._held(slot))
        except WireError as error:
            self._settle_corrupt(slot, error)
        else:
            self._decoders.plan(slot, blob, terms)

    def _held(self, slot: int) -> Change:
        """Return what the operator has changed for a slot's frame."""
        header = self.ring.slots[slot]
        return self.controls.at(int(header["key"]), int(header["frame"]))

    def _gate_of(self, slot: int) -> tuple[FrameGate, float]:
        """Return the model and the threshold that hold for a frame."""
        held = self._held(slot)
        threshold = self._threshold if held.threshold is None else held.threshold
        return self._replacements.gate_of(held.model), threshold

    def _settle_corrupt(self, slot: int, error: WireError) -> None:
        header = self.ring.slots[slot]
        self._malformed.note(f"frame {header['frame']} of series {header['series']}: {error}")
        self.ring.settle(slot, Outcome.CORRUPT, str(error))
        self.bells.ring("sink")

    def _judge(self, terms: Terms, frames: list[Planned]) -> None:
        slots, images, pooled = [], [], []
        for frame in frames:
            try:
                image, maps = frame.wait()
            except WireError as error:
                self._settle_corrupt(frame.slot, error)
            else:
                slots.append(frame.slot)
                images.append(image)
                pooled.append(maps)
        context, geometry = terms.context, terms.geometry
        numbers = [int(self.ring.slots["frame"][s]) for s in slots]
        n_learned = context.series.version
        judgements = self.pipeline.judge(images, context, pooled, numbers)
        if context.series.version > n_learned:
            self.terms.keep(int(self.ring.slots["key"][slots[0]]), terms)
        for slot, judgement in zip(slots, judgements, strict=True):
            self._write(slot, judgement, terms)
            self._replacements.count(judgement)
            self.estimates.add(slot, terms.version, context.heads, geometry, judgement)
            self.ring.set_state(slot, State.JUDGED)

    def _write(self, slot: int, judgement: Judgement, terms: Terms) -> None:
        j, stated = judgement, terms.geometry.geometry
        spots, n_peaks = j.peaks, min(len(j.peaks), MAX_PEAKS)
        columns = (spots.fs, spots.ss, spots.intensity, spots.snr, spots.p)
        for row, column in enumerate(columns):
            self.ring.peaks[slot, row, :n_peaks] = column[:n_peaks]
        self.ring.write_verdict(
            slot,
            outcome=OUTCOMES.index(Outcome.HIT if j.is_hit else Outcome.MISS),
            mismatch=mismatch(j, stated.photon_energy_eV, stated.clen_m),
            tells_parameters=j.tells_parameters,
            n_peaks=n_peaks,
            p_hit=j.p_hit,
            threshold=j.threshold,
            p_any=j.p_any,
            p_spots3=j.p_spots3,
            photon_energy_eV=j.photon_energy_eV,
            photon_energy_sigma_eV=j.photon_energy_sigma_eV,
            clen_m=j.clen_m,
            clen_sigma_m=j.clen_sigma_m,
            header_photon_energy_eV=stated.photon_energy_eV or None,
            header_clen_m=stated.clen_m or None,
            d_min_A=d_min_A(j.peaks, stated, j.photon_energy_eV, j.clen_m),
            background_photons_per_px=j.background_photons_per_px,
            flux_scale=j.flux_scale,
            n_photons=j.n_photons,
            n_learned=j.n_learned,
            learned_by=terms.knowledge.number,
            model=self.pipeline.gate.model_id.encode(),
            mask=(terms.geometry.mask or "").encode(),
        )


def mismatch(judgement: Judgement, photon_energy_eV: float | None, clen_m: float | None) -> int:
    """Compare what the pixels say with what the header says: 1 they disagree, 0 not, -1 unknown.

    One frame rarely can tell; it speaks up only where its own sigma is small enough.
    """
    pairs = (
        (judgement.photon_energy_eV, judgement.photon_energy_sigma_eV, photon_energy_eV),
        (judgement.clen_m, judgement.clen_sigma_m, clen_m),
    )
    told = [
        abs(value - stated) > MISMATCH_SIGMA * sigma
        for value, sigma, stated in pairs
        if value is not None and sigma is not None and stated is not None
    ]
    return int(any(told)) if told else -1


def run_worker(session: Session, role: int) -> None:
    """Judge frames until all is stored, or the supervisor is gone."""
    ring, bells = session.attach()
    pulse = Pulse(ring, role)
    device = session.devices[role - FIRST_WORKER_ROLE]
    n_decoders = session.config.n_decoders(len(session.devices))
    worker = Worker(
        ring,
        bells,
        Path(session.runtime),
        session.config,
        role,
        device,
        n_decoders,
        is_live=not session.replay,
    )
    worker.rehearse()
    pulse.ready()
    bells.ring("supervisor")
    go_on = pulse.until(2)
    while go_on():
        worker.run_once(WAIT_S)
