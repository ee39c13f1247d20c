"""A worker: takes decoded frames, has the pipeline judge them, hands them on.

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
from hitfinder.stream.bslz4 import Pixels
from hitfinder.stream.intake import header_path
from hitfinder.stream.messages import unpack_start
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.stream.ring import MAX_PEAKS, Bells, Ring, State
from hitfinder.stream.series import SeriesTable
from hitfinder.workers.config import Config
from hitfinder.workers.geometry import OperatorGeometry, SeriesGeometry
from hitfinder.workers.knowledge import Knowledge
from hitfinder.workers.reduction import pool
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
# Contexts kept beside the newest: a detector has one series open, and one shape of image.
MAX_CONTEXTS = 8

# (series key, version of its header, image shape)
ContextName = tuple[int, int, tuple[int, ...]]


class Worker:
    """Judges the frames of all series on one device.

    Args:
        role: this worker's place among the children; owner of the slots it holds.
        device: `cpu` or `cuda:N`.
    """

    def __init__(
        self, ring: Ring, bells: Bells, runtime: Path, config: Config, role: int, device: str
    ) -> None:
        self.ring, self.bells, self.runtime, self.config = ring, bells, runtime, config
        self.role, self.number = role, role - FIRST_WORKER_ROLE
        self.bell = f"worker{self.number}"
        self.series = SeriesTable(ring)
        self.estimates = SeriesEstimates(ring, role)
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
        self._contexts: dict[ContextName, tuple[SeriesGeometry, SeriesContext]] = {}
        self._knowledge = Knowledge(runtime, self.number)
        self._together = min(HAND_ON_TOGETHER, -(-ring.layout.n_slots // 4))
        self._n_unannounced = 0

    def run_once(self, timeout_s: float) -> None:
        """Take a batch, judge it, hand it on; or wait for the doorbell."""
        slots = self._take()
        if not slots:
            self._announce()
        self.estimates.step()
        if not slots:
            self.bells.wait(self.bell, timeout_s)
            return
        alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for slot in slots:
            # A message states its image's shape, and nothing makes it that of its neighbour.
            kind = (int(self.ring.slots["key"][slot]), self.ring.image(slot).shape)
            alike.setdefault(kind, []).append(slot)
        for (key, _), of_series in alike.items():
            self._judge(key, of_series)
        self._n_unannounced += len(slots)
        if self._n_unannounced >= self._together:
            self._announce()

    # ------------------------------------------------------------------------------------

    def _take(self) -> list[int]:
        """Claim the oldest decoded frames: a full batch, or what is here when its time is up."""
        waiting = self.ring.in_state(State.DECODED)
        if waiting and len(waiting) < self._batch and self._max_wait_s:
            received_ns = int(self.ring.slots["t_received_ns"][waiting[0]])
            left_s = self._max_wait_s - (time.time_ns() - received_ns) * 1e-9
            if left_s > 0:
                self.bells.wait(self.bell, left_s)
                waiting = self.ring.in_state(State.DECODED)
        taken = []
        for slot in waiting[: self._batch]:
            if self.ring.claim(slot, State.DECODED, State.JUDGING, self.role):
                taken.append(slot)
        return taken

    def _announce(self) -> None:
        """Wake the sink for what is judged; it would find it by itself within its timeout."""
        if self._n_unannounced:
            self.bells.ring("sink")
            self._n_unannounced = 0

    def _judge(self, key: int, slots: list[int]) -> None:
        images = [self.ring.image(s) for s in slots]
        version, geometry, context = self._context(key, images[0])
        pooled = [pool(image, context.valid) for image in images]
        frames = [int(self.ring.slots["frame"][s]) for s in slots]
        n_learned = context.series.version
        judgements = self.pipeline.judge(images, context, pooled, frames)
        if context.series.version > n_learned:
            self._keep(key, geometry, context)
        for slot, judgement in zip(slots, judgements, strict=True):
            self._write(slot, judgement, geometry)
            self.estimates.add(slot, version, context.heads, geometry, judgement)
            self.ring.set_state(slot, State.JUDGED)

    def _context(self, key: int, image: Pixels) -> tuple[int, SeriesGeometry, SeriesContext]:
        """Return what is in force for a series' images of this shape; a late header counts.

        With it the header's version.
        """
        entry = self.series.entry_of(key)
        version = 0 if entry is None else int(self.ring.series["start_version"][entry])
        name = (key, version, image.shape)
        if name not in self._contexts:
            start = unpack_start(header_path(self.runtime, key).read_bytes())
            geometry = self._operator.of_series(start, image)
            known = self._knowledge.of_series(key, geometry.valid)
            context = self.pipeline.begin(geometry.geometry, geometry.valid, known)
            self._keep(key, geometry, context)
            in_use = [n for n in self._contexts if self.series.entry_of(n[0]) is not None]
            kept = {n: self._contexts[n] for n in in_use[-MAX_CONTEXTS:]}
            self._contexts = {**kept, name: (geometry, context)}
        return version, *self._contexts[name]

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
            learned_by=self.number,
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
    worker = Worker(ring, bells, Path(session.runtime), session.config, role, device)
    pulse.ready()
    bells.ring("supervisor")
    go_on = pulse.until(2)
    while go_on():
        worker.run_once(WAIT_S)
