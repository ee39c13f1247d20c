"""The whole daemon under load: rate, core time, latency, drops.

One rule: core time and rates are differences over the middle of a series, so neither start-up nor
the first frames' tables count. Frames are packed beforehand; the sender runs beside the daemon,
on the same cores, but its time is not the daemon's. The memcpy that costs are compared with is
taken in between, beside the same sender and daemon.
"""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hitfinder.sim.detector import Protocol
from hitfinder.sim.emulator import Emulator, EmulatorOptions
from hitfinder.sim.encoding import EncodedImage
from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.workers.bench_frames import POOL, BenchFrames, Memcpy
from hitfinder.workers.config import RingConfig
from hitfinder.workers.daemon_process import DaemonError, DaemonProcess
from hitfinder.workers.spent import Spent

# How far the receiver may be ahead of what is published: the part that counts ends so many frames
# before the series does, so that both its ends see the same lead.
LEAD = RingConfig().slots
# Frames to learn the rate from, and to warm caches and files; the shortest series.
WARM_UP = 60 + LEAD
# Shares of a series before and after the part that counts.
MIDDLE = (0.1, 0.9)
# A latency is of interest where frames do not queue: half of what the daemon can take.
RELAXED = 0.5
SEND_HWM = 64
SEND_TIMEOUT_S = 60.0


# One memcpy for so many results: a few per cent of one core.
MEMCPY_EVERY = 8


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """What one process of the daemon spends on a frame.

    Attributes:
        core_ms: user + system time.
        minor_faults: pages given memory or mapped.
        switches: times that its threads left a core, waiting or not.
    """

    process: str
    core_ms: float
    system_ms: float
    x_memcpy: float
    minor_faults: float
    switches: float


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """One series through the whole daemon.

    Attributes:
        name: how it was sent.
        sent_per_s: rate asked of the sender, None for as fast as frames were taken.
        n_frames: frames of the series; the next four add up to it.
        n_other: corrupt, lost or missing.
        memcpy_ms: median of copying a decoded frame while the daemon ran, on the same cores.
        core_ms: user + system time of the daemon's processes a frame.
        latency_p50_ms: from reception to publication; of fewer than a thousand frames the last of
            the three is nearly the longest.
    """

    name: str
    sent_per_s: float | None
    n_frames: int
    n_hits: int
    n_misses: int
    n_dropped: int
    n_other: int
    frames_per_s: float
    memcpy_ms: float
    core_ms: float
    x_memcpy: float
    processes: list[ProcessCost]
    latency_p50_ms: float
    latency_p99_ms: float
    latency_p999_ms: float


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a measurement began or ended."""

    n: int
    at_s: float
    spent: dict[str, Spent]


class Feed:
    """An emulated detector that shows the pool again and again, at any pace."""

    def __init__(self, frames: BenchFrames, protocol: Protocol = "v2") -> None:
        self._frames, self._rate_Hz, self._begin_s = frames, 0.0, 0.0
        self._stop = threading.Event()
        options = EmulatorOptions(
            bind="tcp://127.0.0.1:0",
            protocol=protocol,
            send_hwm=SEND_HWM,
            send_timeout_s=SEND_TIMEOUT_S,
            wait_for_client_s=SEND_TIMEOUT_S,
        )
        self._emulator = Emulator(frames.config, self._show, options)
        self._emulator.initialize()
        self._thread = ThreadPoolExecutor(1, "feed")
        self.endpoint = self._emulator.endpoint

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_reason: object) -> None:
        self._stop.set()
        self._emulator.interrupt()
        self._thread.shutdown()
        self._emulator.close(0)

    def send(self, n: int, rate_Hz: float | None) -> Future[None]:
        """Send a series of `n` frames from a thread; None for as fast as they are taken."""
        self._emulator.configure(n_images=n)
        self._rate_Hz = rate_Hz or 0.0
        return self._thread.submit(self._run)

    def _run(self) -> None:
        self._emulator.arm()
        self._begin_s = time.monotonic()
        self._emulator.trigger()

    def _show(self, series: int, frame: int) -> tuple[EncodedImage, None]:
        if self._rate_Hz:
            due_s = self._begin_s + frame / self._rate_Hz
            self._stop.wait(max(0.0, due_s - time.monotonic()))
        return self._frames.images[frame % POOL], None


def measure_end_to_end(
    frames: BenchFrames, seconds: float, decoders: int, device: str
) -> list[EndToEnd]:
    """Send a series as fast as it is taken, and one at half that rate, for `seconds` each.

    Raises:
        DaemonError: the daemon did not run, or did not give every frame a verdict.
    """
    memcpy = Memcpy(frames.memory())
    with tempfile.TemporaryDirectory() as folder, Feed(frames) as feed:
        config = Path(folder) / "bench.toml"
        config.write_text(f"[workers]\ndecoders = {decoders}\n")
        arguments = ("--config", str(config), "--device", device)
        with DaemonProcess(feed.endpoint, Path(folder) / "run", arguments) as daemon:
            daemon.wait_ready()
            warm_up = _run(daemon, feed, "warm-up", WARM_UP, None, memcpy)
            n = _series_length(warm_up.frames_per_s, seconds)
            flat_out = _run(daemon, feed, "as fast as taken", n, None, memcpy)
            rate_Hz = RELAXED * flat_out.frames_per_s
            n = _series_length(rate_Hz, seconds)
            relaxed = _run(daemon, feed, f"at {rate_Hz:.0f}/s", n, rate_Hz, memcpy)
    return [flat_out, relaxed]


def _series_length(frames_per_s: float, seconds: float) -> int:
    return min(max(round(frames_per_s * seconds), WARM_UP), MAX_FRAMES)


def _run(
    daemon: DaemonProcess, feed: Feed, name: str, n: int, rate_Hz: float | None, memcpy: Memcpy
) -> EndToEnd:
    sending = feed.send(n, rate_Hz)
    first, last = round(MIDDLE[0] * n), min(round(MIDDLE[1] * n), n - LEAD)
    marks: list[_Mark] = []
    latencies_ms: list[float] = []
    memcpys_s: list[float] = []
    end: dict[str, Any] = {}
    n_results = 0
    for topic, message in daemon.series():
        if topic == "series.end":
            end = message
        elif topic.startswith("result."):
            n_results += 1
            if n_results in (first, last):
                published_s = message["t_published_ns"] * 1e-9
                marks.append(_Mark(n_results, published_s, daemon.spent()))
            if len(marks) == 1 and n_results % MEMCPY_EVERY == 0:
                memcpys_s.append(_core_s_of(memcpy, n_results // MEMCPY_EVERY))
            if len(marks) == 1 and message["t_received_ns"] is not None:
                taken_ns = message["t_published_ns"] - message["t_received_ns"]
                latencies_ms.append(taken_ns * 1e-6)
    sending.result(SEND_TIMEOUT_S)
    if n_results != n:
        raise DaemonError(f"{n} frames sent, {n_results} verdicts published")
    memcpy_ms = 1e3 * float(np.median(memcpys_s))
    return _figures(name, rate_Hz, end, marks, latencies_ms, memcpy_ms)


def _core_s_of(memcpy: Memcpy, k: int) -> float:
    begin_s = time.thread_time()
    memcpy(k)
    return time.thread_time() - begin_s


def _figures(
    name: str,
    rate_Hz: float | None,
    end: dict[str, Any],
    marks: list[_Mark],
    latencies_ms: list[float],
    memcpy_ms: float,
) -> EndToEnd:
    begin, done = marks
    n = done.n - begin.n
    costs = [
        _cost(job, begin.spent.get(job, Spent()), spent, n, memcpy_ms)
        for job, spent in sorted(done.spent.items())
    ]
    core_ms = sum(c.core_ms for c in costs)
    p50_ms, p99_ms, p999_ms = np.percentile(latencies_ms, (50, 99, 99.9))
    return EndToEnd(
        name=name,
        sent_per_s=rate_Hz,
        n_frames=end["announced"],
        n_hits=end["hit"],
        n_misses=end["miss"],
        n_dropped=end["dropped"],
        n_other=end["corrupt"] + end["lost"] + end["missing"],
        frames_per_s=n / (done.at_s - begin.at_s),
        memcpy_ms=memcpy_ms,
        core_ms=core_ms,
        x_memcpy=core_ms / memcpy_ms,
        processes=costs,
        latency_p50_ms=float(p50_ms),
        latency_p99_ms=float(p99_ms),
        latency_p999_ms=float(p999_ms),
    )


def _cost(job: str, before: Spent, after: Spent, n: int, memcpy_ms: float) -> ProcessCost:
    core_ms = 1e3 * (after.core_s - before.core_s) / n
    return ProcessCost(
        process=job,
        core_ms=core_ms,
        system_ms=1e3 * (after.system_s - before.system_s) / n,
        x_memcpy=core_ms / memcpy_ms,
        minor_faults=(after.minor_faults - before.minor_faults) / n,
        switches=(after.switches - before.switches) / n,
    )
