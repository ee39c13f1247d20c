"""A worker: takes frames, reduces them, has the pipeline judge them, hands them on.

One rule: a slot is JUDGING while this process holds it and JUDGED once its verdict stands in it,
so a successor knows what is left. `cpu` and `cuda` are one path with different devices.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch

from hitfinder.models.judgement import Judgement
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.resolution import d_min_A
from hitfinder.models.series_context import SeriesContext
from hitfinder.stream import bslz4
from hitfinder.stream.controls import Controls
from hitfinder.stream.errors import WireError
from hitfinder.stream.intake import header_path
from hitfinder.stream.malformed import Malformed
from hitfinder.stream.messages import Blob, unpack_start
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import MAX_PEAKS, Bells, Ring, State
from hitfinder.stream.series import SeriesTable
from hitfinder.workers.config import Config
from hitfinder.workers.decoders import Decoders, Planned, Terms
from hitfinder.workers.geometry import OperatorGeometry, SeriesGeometry
from hitfinder.workers.knowledge import Knowledge
from hitfinder.workers.series_estimates import SeriesEstimates
from hitfinder.workers.session import FIRST_WORKER_ROLE, Pulse, Session

log = logging.getLogger(__name__)

WAIT_S = 0.1
# While frames queue to be judged nobody waits for a single result: the sink is woken for so many
# at once, or a quarter of the ring, since it and the publisher spend most of a wake-up on waking
# up. The last of a queue, and each frame where there is none, is handed on at once.
HAND_ON_TOGETHER = 16
# A header energy or camera length this many sigma from what the pixels say is a mismatch.
MISMATCH_SIGMA = 5.0
# Terms kept beside the newest: a detector has one series open, and one shape of image.
MAX_TERMS = 8

# Numbers of workers that a daemon has to itself among those that share a detector.
WORKERS_A_MEMBER = 100

# (series key, version of its header, image shape)
TermsName = tuple[int, int, tuple[int, int]]


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
        # What it learned is named by this, which no worker of another host has.
        self._learned_by = WORKERS_A_MEMBER * config.member.number + self.number
        self.series = SeriesTable(ring)
        self.estimates, self.controls = SeriesEstimates(ring, role), Controls(ring)
        self._operator = OperatorGeometry(config.geometry)
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
        self._malformed = Malformed(ring)
        self._terms: dict[TermsName, Terms] = {}
        self._knowledge = Knowledge(runtime, self._learned_by, is_live=is_live)
        self._together = min(HAND_ON_TOGETHER, -(-ring.layout.n_slots // 4))
        self._threshold = self.pipeline.threshold
        self._n_unannounced = 0

    def run_once(self, timeout_s: float) -> None:
        """Take frames, judge a batch, hand it on; or wait for the doorbell."""
        self._take()
        if not self._decoders.planned:
            self._announce()
        self.estimates.step()
        frames = self._decoders.take(self._batch)
        if not frames:
            self.bells.wait(self.bell, timeout_s)
            return
        alike: dict[tuple[Terms, float], list[Planned]] = {}
        for frame in frames:
            # A message states its image's shape, and nothing makes it that of its neighbour.
            alike.setdefault((frame.terms, self._threshold_of(frame.slot)), []).append(frame)
        for (terms, threshold), of_series in alike.items():
            self.pipeline.threshold = threshold
            self._judge(terms, of_series)
        self._decoders.give_back(frames)
        self._n_unannounced += len(frames)
        if self._n_unannounced >= self._together:
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
        for slot in self.ring.in_state(State.RECEIVED):
            # What a dead worker held is judged alone: only the frame that kills is given up.
            is_alone = attempts[slot] > 0 or (planned and attempts[planned[0].slot] > 0)
            if len(planned) >= (1 if is_alone else self._batch + self._ahead):
                return
            if self.ring.claim(slot, State.RECEIVED, State.JUDGING, self.role):
                self._plan(slot)

    def _plan(self, slot: int) -> None:
        blob = self.ring.blobs(slot)[0]
        try:
            terms = self._terms_of(int(self.ring.slots["key"][slot]), blob)
        except WireError as error:
            self._settle_corrupt(slot, error)
        else:
            self._decoders.plan(slot, blob, terms)

    def _threshold_of(self, slot: int) -> float:
        """Return the threshold that holds for a frame: the operator's latest, or as configured."""
        header = self.ring.slots[slot]
        change = self.controls.at(int(header["key"]), int(header["frame"]))
        changed = None if change is None else change.threshold
        return self._threshold if changed is None else changed

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
            self._keep(int(self.ring.slots["key"][slots[0]]), geometry, context)
        for slot, judgement in zip(slots, judgements, strict=True):
            self._write(slot, judgement, geometry)
            self.estimates.add(slot, terms.version, context.heads, geometry, judgement)
            self.ring.set_state(slot, State.JUDGED)

    def _terms_of(self, key: int, blob: Blob) -> Terms:
        """Return what is in force for a series' images of this shape; a late header counts.

        Raises:
            WireError: the first such image does not decode.
        """
        entry = self.series.entry_of(key)
        version = 0 if entry is None else int(self.ring.series["start_version"][entry])
        name = (key, version, blob.shape)
        if name not in self._terms:
            start = unpack_start(header_path(self.runtime, key).read_bytes())
            geometry = self._operator.of_series(start, bslz4.decode(blob))
            known = self._knowledge.of_series(key, geometry.valid)
            context = self.pipeline.begin(geometry.geometry, geometry.valid, known)
            self._keep(key, geometry, context)
            # Those of a series that is over would keep some 17 MB each of a 4M detector's tables.
            still = {int(self.ring.series["key"][e]) for e in self.series.open_entries()}
            in_use = [n for n in self._terms if n[0] in still]
            kept = {n: self._terms[n] for n in in_use[-MAX_TERMS:]}
            self._terms = {**kept, name: Terms(version, geometry, context)}
        return self._terms[name]

    def _keep(self, key: int, geometry: SeriesGeometry, context: SeriesContext) -> None:
        """Keep what a series has taught, before a verdict that rests on it goes out."""
        self._knowledge.keep(key, geometry.valid, context.series.entries)
        self.ring.control["n_hot"][0, self.role] = context.series.n_hot

    def _write(self, slot: int, judgement: Judgement, geometry: SeriesGeometry) -> None:
        j, stated = judgement, geometry.geometry
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
            learned_by=self._learned_by,
            model=self.pipeline.model_id.encode(),
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
    # The decoders and the other workers want the cores too; one thread is also the fastest here.
    torch.set_num_threads(1)
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
    pulse.ready()
    bells.ring("supervisor")
    go_on = pulse.until(2)
    while go_on():
        worker.run_once(WAIT_S)
