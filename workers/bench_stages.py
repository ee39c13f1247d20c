"""One frame's stages, each alone, one thread, with the functions that the daemon calls.

One rule: stages take turns, a few frames each, with the memcpy among them, and are timed by the
thread's core time, so that another user of the machine disturbs all alike and the ratios hold.
Only what waits for a GPU is timed by the wall clock.
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

from hitfinder.models.image import mask_of
from hitfinder.models.judgement import Judgement
from hitfinder.models.pipeline import Pipeline
from hitfinder.sim.detector import Protocol
from hitfinder.stream import bslz4, wire
from hitfinder.stream.messages import Blob, Frame, SeriesStart
from hitfinder.stream.results import Outcome, Peaks, Record
from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.stream.series_folder import JudgedFrame, SeriesFolder
from hitfinder.workers.bench_frames import BenchFrames, Memcpy
from hitfinder.workers.config import GeometryConfig, WorkersConfig
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.reduction import FrameReduction, pool, reductions_on

# Slots, one a frame of the pool: the first 20 hold all data sets and four hits.
SLOTS = 20
# Frames that a sink writes in one go when the daemon is busy.
SINK_BATCH = 16
ROUNDS = 10

Step = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage costs; medians.

    Attributes:
        ms: milliseconds a frame.
        x_memcpy: the same as a multiple of copying the decoded frame.
        share: process of the daemon -> share of all frames that it takes through this stage.
    """

    stage: str
    ms: float
    frames_per_s: float
    x_memcpy: float
    share: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Timed:
    """A stage and how many frames one call of it handles."""

    stage: str
    step: Step
    share: dict[str, float]
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
    median_s = [float(np.median(seconds[t.stage])) for t in timed]
    return [
        Stage(t.stage, 1e3 * took, 1 / took, took / median_s[0], t.share)
        for t, took in zip(timed, median_s, strict=True)
    ]


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
        self._new_reduction = reductions_on(device)
        self._reduced = [self._reduce(self._ring.blobs(slot)[0]) for slot in range(SLOTS)]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_reason: object) -> None:
        os.close(self._fd)

    def stages(self, folder: Path) -> list[_Timed]:
        """Return what is to be timed in a frame's order, the memcpy first, where frames are."""
        memcpy = Memcpy(self._frames.memory())
        f_hit = self._frames.mix.hit_fraction
        f_miss = 1 - f_hit
        blanks = [k for k in range(SLOTS) if not self._frames.is_hit[k]]
        hits = [k for k in range(SLOTS) if self._frames.is_hit[k]]
        records = {s: self._record(s, self._judge([s])[0]) for s in range(SLOTS)}
        encode = msgspec.msgpack.Encoder().encode
        batch = 1 if self._device == "cpu" else WorkersConfig().batch
        clock = time.thread_time if self._device == "cpu" else time.perf_counter
        on_device = "" if self._device == "cpu" else f", on {self._device}"
        judge = f"on {self._device}" + (f", {batch} at a time" if batch > 1 else "")
        arriving = [
            _Timed("memcpy of the decoded frame", memcpy, {}),
            _Timed("decode V2 message (CBOR)", lambda k: self._read("v2", k), {"receiver": 1}),
            _Timed("decode V1 message (JSON + parts)", lambda k: self._read("v1", k), {}),
            _Timed(
                "header and packed bytes into a slot",
                lambda k: self._fill(k % SLOTS),
                {"receiver": 1},
            ),
            _Timed(
                "decode, mask and pool in one pass" + on_device,
                self._reducing([self._ring.blobs(s)[0] for s in range(SLOTS)]),
                {"worker": 1},
                clock=clock,
            ),
            _Timed("bslz4 decode alone", lambda k: self._decode(k % SLOTS), {}),
            _Timed("pool 4 x 4 alone", lambda k: pool(self._images[k % SLOTS], self._valid), {}),
        ]
        judged = [
            _Timed(f"judge a {name}, {judge}", self._judging(some, batch), share, batch, clock)
            for name, some, share in (
                ("blank", blanks, {"worker": f_miss}),
                ("hit", hits, {"worker": f_hit}),
            )
            if some
        ]
        written = [
            _Timed(
                f"write a {outcome.value}, {SINK_BATCH} at a time",
                self._sink(folder / outcome.value, some, records, outcome),
                share,
                SINK_BATCH,
            )
            for outcome, some, share in (
                (Outcome.HIT, hits, {"sink": f_hit}),
                (Outcome.MISS, blanks, {"sink": f_miss}),
            )
            if some
        ]
        leaving = [
            _Timed(
                "record out of the slot",
                lambda k: self._ring.record(k % SLOTS),
                {"sink": 1, "supervisor": 1},
            ),
            _Timed(
                "encode a record",
                lambda k: encode(records[k % SLOTS]),
                {"supervisor": 1},
            ),
        ]
        return arriving + judged + written + leaving

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
        memory = [self._reduce(blobs[0]) for _ in range(2)]
        return lambda k: memory[k % 2].take(blobs[k % len(blobs)], self._mask)

    def _reduce(self, blob: Blob) -> FrameReduction:
        reduction = self._new_reduction(blob.shape, blob.dtype)
        reduction.take(blob, self._mask)
        return reduction

    def _judge(self, slots: list[int]) -> list[Judgement]:
        images = [self._reduced[s].image for s in slots]
        pooled = [self._reduced[s].pooled for s in slots]
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
        record.model = self._pipeline.gate.model_id
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
