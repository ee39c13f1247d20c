"""The whole daemon under load: rate, core time, latency, drops.

One rule: core time and rates are differences over the middle of a series, so neither start-up nor
the first frames' tables count. Frames are packed beforehand; the sender runs beside the daemon,
on the same cores, but its time is not the daemon's. The memcpy that costs are compared with is
taken in between, beside the same sender and daemon.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from hitfinder.stream.messages import MAX_FRAMES
from hitfinder.workers.bench_feed import SEND_TIMEOUT_S, Feed
from hitfinder.workers.bench_frames import BenchFrames, Memcpy
from hitfinder.workers.config import RingConfig, WorkersConfig
from hitfinder.workers.daemon_process import DaemonError, DaemonProcess
from hitfinder.workers.spent import Spent

# Frames to learn the rate from, and to warm caches and files, beyond those that fill the ring.
WARM_UP = 60
# Shares of a series before and after the part that counts.
MIDDLE = (0.1, 0.9)
# One memcpy for so many results: a few per cent of one core.
MEMCPY_EVERY = 8


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """What of the configuration is measured.

    Attributes:
        decoders: threads of a worker that reduce frames.
        batch: frames judged together, on a GPU.
        slots: of the ring.
    """

    decoders: int = 1
    batch: int = WorkersConfig().batch
    slots: int = RingConfig().slots

    def as_toml(self) -> str:
        """Return the configuration file that says so."""
        workers = f"[workers]\ndecoders = {self.decoders}\nbatch = {self.batch}\n"
        return f"{workers}[ring]\nslots = {self.slots}\n"


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


class LoadedDaemon:
    """A running daemon, warmed up, to which series of a pool's frames are sent.

    Args:
        frames: the pool.
        settings: of the daemon.
        device: `cpu` or `cuda:N`.

    Raises:
        DaemonError: it did not run; its methods say so too.
    """

    def __init__(self, frames: BenchFrames, settings: DaemonSettings, device: str) -> None:
        self._memcpy, self._n_slots = Memcpy(frames.memory()), settings.slots
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._feed = stack.enter_context(Feed(frames))
            config = folder / "bench.toml"
            config.write_text(settings.as_toml())
            arguments = ("--config", str(config), "--device", device)
            self._daemon = stack.enter_context(
                DaemonProcess(self._feed.endpoint, folder / "run", arguments)
            )
            self._daemon.wait_ready()
            self._rate_Hz = self._series("warm-up", self._fewest, None).frames_per_s
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_reason: object) -> None:
        self._stack.close()

    @property
    def _fewest(self) -> int:
        """Frames of the shortest series that can be measured."""
        return WARM_UP + self._n_slots

    def flat_out(self, seconds: float) -> EndToEnd:
        """Send as fast as frames are taken, for about so long."""
        return self._series("as fast as taken", self._n_frames(self._rate_Hz, seconds), None)

    def paced(self, rate_Hz: float, seconds: float) -> EndToEnd:
        """Send at a rate, for about so long."""
        n = self._n_frames(rate_Hz, seconds)
        return self._series(f"at {rate_Hz:.0f}/s", n, rate_Hz)

    def _n_frames(self, rate_Hz: float, seconds: float) -> int:
        return min(max(round(rate_Hz * seconds), self._fewest), MAX_FRAMES)

    def _series(self, name: str, n: int, rate_Hz: float | None) -> EndToEnd:
        # The receiver may be a whole ring ahead of what is published: the part that counts ends so
        # many frames before the series does, so that both its ends see the same lead.
        first, last = round(MIDDLE[0] * n), min(round(MIDDLE[1] * n), n - self._n_slots)
        sending = self._feed.send(n, rate_Hz)
        marks: list[_Mark] = []
        latencies_ms: list[float] = []
        memcpys_s: list[float] = []
        end: dict[str, Any] = {}
        n_results = 0
        for topic, message in self._daemon.series():
            if topic == "series.end":
                end = message
            elif topic.startswith("result."):
                n_results += 1
                if n_results in (first, last):
                    published_s = message["t_published_ns"] * 1e-9
                    marks.append(_Mark(n_results, published_s, self._daemon.spent()))
                if len(marks) == 1 and n_results % MEMCPY_EVERY == 0:
                    memcpys_s.append(_core_s_of(self._memcpy, n_results // MEMCPY_EVERY))
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
