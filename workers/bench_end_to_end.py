"""The whole daemon under load: rate, core time, latency, drops.

One rule: core time and rates are differences over the middle of a series, so neither start-up nor
the first frames' tables count. Frames are packed beforehand; the sender runs beside the daemon,
on the same cores, but its time is not the daemon's.
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
from hitfinder.workers.bench_frames import POOL, BenchFrames
from hitfinder.workers.daemon_process import DaemonError, DaemonProcess

# Frames to learn the rate from, and to warm caches and files.
WARM_UP = 60
# Shares of a series before and after the part that counts.
MIDDLE = (0.1, 0.9)
# A latency is of interest where frames do not queue: half of what the daemon can take.
RELAXED = 0.5
# Nothing for so long means that nothing will come.
SILENCE_S = 60.0
SEND_HWM = 64
SEND_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """One series through the whole daemon.

    Attributes:
        name: how it was sent.
        sent_per_s: rate asked of the sender, None for as fast as frames were taken.
        n_frames: frames of the series; the next four add up to it.
        n_other: corrupt, lost or missing.
        core_ms: user + system time of the daemon's processes a frame.
        core_ms_by_job: the same, by process.
        latency_p50_ms: from reception to publication.
    """

    name: str
    sent_per_s: float | None
    n_frames: int
    n_hits: int
    n_misses: int
    n_dropped: int
    n_other: int
    frames_per_s: float
    core_ms: float
    core_ms_by_job: dict[str, float]
    x_memcpy: float
    latency_p50_ms: float
    latency_p99_ms: float


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where a measurement began or ended."""

    n: int
    at_s: float
    core_s: dict[str, float]


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
    frames: BenchFrames, seconds: float, decoders: int, device: str, memcpy_ms: float
) -> list[EndToEnd]:
    """Send a series as fast as it is taken, and one at half that rate, for `seconds` each.

    Raises:
        DaemonError: the daemon did not run, or did not give every frame a verdict.
    """
    with tempfile.TemporaryDirectory() as folder, Feed(frames) as feed:
        config = Path(folder) / "bench.toml"
        config.write_text(f"[workers]\ndecoders = {decoders}\n")
        arguments = ("--config", str(config), "--device", device)
        with DaemonProcess(feed.endpoint, Path(folder) / "run", arguments) as daemon:
            daemon.wait_ready()
            warm_up = _run(daemon, feed, "warm-up", WARM_UP, None, memcpy_ms)
            n = _series_length(warm_up.frames_per_s, seconds)
            flat_out = _run(daemon, feed, "as fast as taken", n, None, memcpy_ms)
            rate_Hz = RELAXED * flat_out.frames_per_s
            n = _series_length(rate_Hz, seconds)
            relaxed = _run(daemon, feed, f"at {rate_Hz:.0f}/s", n, rate_Hz, memcpy_ms)
    return [flat_out, relaxed]


def _series_length(frames_per_s: float, seconds: float) -> int:
    return min(max(round(frames_per_s * seconds), WARM_UP), MAX_FRAMES)


def _run(
    daemon: DaemonProcess, feed: Feed, name: str, n: int, rate_Hz: float | None, memcpy_ms: float
) -> EndToEnd:
    sending = feed.send(n, rate_Hz)
    first, last = round(MIDDLE[0] * n), round(MIDDLE[1] * n)
    marks: list[_Mark] = []
    latencies_ms: list[float] = []
    end: dict[str, Any] | None = None
    n_results, quiet_from_s = 0, time.monotonic()
    while end is None:
        for topic, message in daemon.messages(1.0):
            if topic.startswith("result."):
                n_results, quiet_from_s = n_results + 1, time.monotonic()
                if n_results in (first, last):
                    published_s = message["t_published_ns"] * 1e-9
                    marks.append(_Mark(n_results, published_s, daemon.core_s()))
                elif len(marks) == 1 and message["t_received_ns"] is not None:
                    taken_ns = message["t_published_ns"] - message["t_received_ns"]
                    latencies_ms.append(taken_ns * 1e-6)
            elif topic == "series.end":
                end = message
                break
        if time.monotonic() - quiet_from_s > SILENCE_S:
            raise daemon.failure(f"{n_results} of {n} frames published, then nothing")
    sending.result(SEND_TIMEOUT_S)
    if n_results != n:
        raise DaemonError(f"{n} frames sent, {n_results} verdicts published")
    return _figures(name, rate_Hz, end, marks, latencies_ms, memcpy_ms)


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
    by_job = {
        job: 1e3 * (core_s - begin.core_s.get(job, 0.0)) / n
        for job, core_s in sorted(done.core_s.items())
    }
    p50_ms, p99_ms = np.percentile(latencies_ms, (50, 99))
    return EndToEnd(
        name=name,
        sent_per_s=rate_Hz,
        n_frames=end["announced"],
        n_hits=end["hit"],
        n_misses=end["miss"],
        n_dropped=end["dropped"],
        n_other=end["corrupt"] + end["lost"] + end["missing"],
        frames_per_s=n / (done.at_s - begin.at_s),
        core_ms=sum(by_job.values()),
        core_ms_by_job=by_job,
        x_memcpy=sum(by_job.values()) / memcpy_ms,
        latency_p50_ms=float(p50_ms),
        latency_p99_ms=float(p99_ms),
    )
