"""One frame's stages, each alone, one thread, with the functions that the daemon calls.

One rule: stages take turns, a few frames each, with the memcpy among them, and are timed by the
thread's core time, so that another user of the machine disturbs all alike and the ratios hold.
Only what waits for a disk or a GPU is timed by the wall clock.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import torch

from hitfinder.models.judgement import Judgement
from hitfinder.models.pipeline import Pipeline
from hitfinder.sim.detector import Protocol
from hitfinder.stream import bslz4, wire
from hitfinder.stream.messages import Blob, Frame, SeriesStart
from hitfinder.stream.reduction import Reduction, mask_of
from hitfinder.stream.results import Outcome, Peaks, Record
from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.stream.series_folder import JudgedFrame, SeriesFolder
from hitfinder.workers.bench_frames import BenchFrames
from hitfinder.workers.config import GeometryConfig, WorkersConfig
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.reduction import pool

# Buffers a copy goes round in, so that it does not stay in cache: 16 frames are 140 MB.
COPIES = 16
# Slots, one a frame of the pool: the first 20 hold all data sets and four hits.
SLOTS = 20
# Frames that a sink writes in one go when the daemon is busy.
SINK_BATCH = 16
ROUNDS = 10
# Evenly lit frames, by pixel type and photons a pixel, and how many of each.
FLUXES = (
    *(("uint16", flux) for flux in (0.002, 0.02, 0.2, 2.0)),
    ("uint8", 0.02),
    ("uint32", 0.02),
)
EVEN = 3

Step = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage costs; medians.

    Attributes:
        ms: milliseconds a frame.
        x_memcpy: the same as a multiple of copying the decoded frame.
    """

    stage: str
    ms: float
    frames_per_s: float
    x_memcpy: float


@dataclass(frozen=True, slots=True)
class _Timed:
    """A stage and how many frames one call of it handles."""

    stage: str
    step: Step
    frames: int = 1
    clock: Callable[[], float] = time.thread_time


def measure_stages(frames: BenchFrames, n: int, device: str) -> list[Stage]:
    """Measure every stage `n` times; the first row is the memcpy."""
    with tempfile.TemporaryDirectory() as folder, _one_thread(), Bench(frames, device) as bench:
        timed = bench.stages(Path(folder))
        per_round = -(-n // ROUNDS)
        seconds: dict[str, list[float]] = {t.stage: [] for t in timed}
        for turn in range(min(ROUNDS, n)):
            for t in timed:
                for k in range(turn * per_round, min((turn + 1) * per_round, n)):
                    begin_s = t.clock()
                    t.step(k)
                    seconds[t.stage].append((t.clock() - begin_s) / t.frames)
    median_s = {stage: float(np.median(taken)) for stage, taken in seconds.items()}
    memcpy_s = median_s[timed[0].stage]
    return [Stage(s, 1e3 * took, 1 / took, took / memcpy_s) for s, took in median_s.items()]


class Bench:
    """A ring with frames in it, a pipeline with a series begun, and the stages over them."""

    def __init__(self, frames: BenchFrames, device: str) -> None:
        self._frames, self._device = frames, device
        self._layout = Layout(SLOTS, frames.memory().nbytes)
        self._fd = create_memory(self._layout)
        self._ring = Ring(self._fd, self._layout)
        start = wire.decode(frames.start())
        if not isinstance(start, SeriesStart):
            raise AssertionError("the simulator's start message is one")
        self._start = start
        self._messages: dict[Protocol, list[list[bytes]]] = {
            "v2": [frames.message(k, "v2") for k in range(SLOTS)],
            "v1": [frames.message(k, "v1") for k in range(SLOTS)],
        }
        self._received = [self._decoded(k) for k in range(SLOTS)]
        for slot in range(SLOTS):
            self._fill(slot)
        self._images = [bslz4.decode(self._ring.blobs(slot)[0]) for slot in range(SLOTS)]
        in_force = OperatorGeometry(GeometryConfig()).of_series(start, self._images[0])
        self._valid, self._mask = in_force.valid, mask_of(in_force.valid)
        self._pipeline = Pipeline(device=device)
        self._context = self._pipeline.begin(in_force.geometry, in_force.valid)
        self._pooled = [pool(image, self._valid) for image in self._images]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_reason: object) -> None:
        os.close(self._fd)

    def stages(self, folder: Path) -> list[_Timed]:
        """Return what is to be timed, in a frame's order; the memcpy first."""
        source = self._frames.memory()
        copies = [source.copy() for _ in range(COPIES)]
        blanks = [k for k in range(SLOTS) if not self._frames.is_hit[k]]
        hits = [k for k in range(SLOTS) if self._frames.is_hit[k]]
        records = {s: self._record(s, self._judge([s])[0]) for s in range(SLOTS)}
        encode = msgspec.msgpack.Encoder().encode
        batch = 1 if self._device == "cpu" else WorkersConfig().batch
        clock = time.thread_time if self._device == "cpu" else time.perf_counter
        judge = f"on {self._device}" + (f", {batch} at a time" if batch > 1 else "")
        return [
            _Timed("memcpy of the decoded frame", lambda k: np.copyto(copies[k % COPIES], source)),
            _Timed("decode V2 message (CBOR)", lambda k: self._read("v2", k)),
            _Timed("decode V1 message (JSON + parts)", lambda k: self._read("v1", k)),
            _Timed("header and packed bytes into a slot", lambda k: self._fill(k % SLOTS)),
            _Timed(
                "decode, mask and pool in one pass",
                self._reducing([self._ring.blobs(s)[0] for s in range(SLOTS)]),
            ),
            *(
                _Timed(
                    f"  the same, {dtype}, {flux:g} photons a pixel",
                    self._reducing([self._frames.even(dtype, flux, k) for k in range(EVEN)]),
                )
                for dtype, flux in FLUXES
            ),
            _Timed("bslz4 decode alone", lambda k: self._decode(k % SLOTS)),
            _Timed("pool 4 x 4 alone", lambda k: pool(self._images[k % SLOTS], self._valid)),
            _Timed(f"judge a blank, {judge}", self._judging(blanks, batch), batch, clock),
            _Timed(f"judge a hit, {judge}", self._judging(hits, batch), batch, clock),
            _Timed("record out of the slot", lambda k: self._ring.record(k % SLOTS)),
            _Timed(
                f"write a hit, {SINK_BATCH} at a time",
                self._sink(folder / "hits", hits, records, Outcome.HIT),
                SINK_BATCH,
                time.perf_counter,
            ),
            _Timed(
                f"write a miss, {SINK_BATCH} at a time",
                self._sink(folder / "misses", blanks, records, Outcome.MISS),
                SINK_BATCH,
                time.perf_counter,
            ),
            _Timed("encode a hit's record", lambda k: encode(records[hits[k % len(hits)]])),
        ]

    def _read(self, protocol: Protocol, k: int) -> object:
        return wire.decode(self._messages[protocol][k % SLOTS], protocol)

    def _decoded(self, k: int) -> Frame:
        return cast(Frame, self._read("v2", k))

    def _fill(self, slot: int) -> None:
        frame = self._received[slot]
        self._ring.describe(slot, frame.header, 1, time.time_ns())
        self._ring.store_blobs(slot, frame.blobs)

    def _decode(self, slot: int) -> None:
        bslz4.decode_into(self._ring.blobs(slot)[0], self._images[slot])

    def _reducing(self, blobs: list[Blob]) -> Step:
        # A frame is reduced while the one before it is judged.
        memory = [Reduction(blobs[0].shape, blobs[0].dtype) for _ in range(2)]
        return lambda k: memory[k % 2].take(blobs[k % len(blobs)], self._mask)

    def _judge(self, slots: list[int]) -> list[Judgement]:
        images = [self._images[s] for s in slots]
        # As the worker does: on a GPU pooling is a part of judging.
        pooled = [self._pooled[s] for s in slots] if self._device == "cpu" else None
        return self._pipeline.judge(images, self._context, pooled)

    def _judging(self, slots: list[int], batch: int) -> Step:
        def judge(k: int) -> None:
            self._judge([slots[(k * batch + i) % len(slots)] for i in range(batch)])

        return judge

    def _record(self, slot: int, judgement: Judgement) -> Record:
        record, j = self._ring.record(slot), judgement
        spots = j.peaks
        for name in ("p_hit", "threshold", "p_any", "p_spots3", "photon_energy_eV", "clen_m"):
            setattr(record, name, getattr(j, name))
        record.n_photons, record.background_photons_per_px = (
            j.n_photons,
            j.background_photons_per_px,
        )
        record.photon_energy_sigma_eV, record.clen_sigma_m = (
            j.photon_energy_sigma_eV,
            j.clen_sigma_m,
        )
        columns = (spots.fs, spots.ss, spots.intensity, spots.snr, spots.p)
        record.n_peaks, record.peaks = len(spots), Peaks(*(c.tobytes() for c in columns))
        record.model = self._pipeline.model_id
        return record

    def _sink(
        self, out: Path, slots: list[int], records: dict[int, Record], outcome: Outcome
    ) -> Step:
        series = SeriesFolder(out, self._start, {})

        def write(k: int) -> None:
            judged = []
            for i in range(SINK_BATCH):
                frame = k * SINK_BATCH + i
                slot = slots[frame % len(slots)]
                record = msgspec.structs.replace(records[slot], frame=frame, outcome=outcome)
                judged.append(JudgedFrame(record, self._ring.blobs(slot)))
            series.write(judged)

        return write


@contextmanager
def _one_thread() -> Iterator[None]:
    """Give torch one thread, as in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
