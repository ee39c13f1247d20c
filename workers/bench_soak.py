"""Whether the daemon's memory stays flat: small frames, and what each process holds meanwhile.

One rule: readings are alike but for the number of frames: one in the middle of each of many equal
series, so what grows by the frame and what grows by the series both show. Frames are small
because what leaks, leaks by the frame whatever its size.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hitfinder.stream.results import Outcome
from hitfinder.workers.bench_end_to_end import DaemonSettings
from hitfinder.workers.bench_feed import SEND_TIMEOUT_S, Feed
from hitfinder.workers.bench_frames import BenchFrames
from hitfinder.workers.daemon_process import DaemonProcess
from hitfinder.workers.held import Held

# The daemon remembers sixteen series and fills its caches meanwhile: that is no growth.
WARM_UP_SERIES = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """What the daemon held when so many frames had been published.

    Attributes:
        at_s: since the first series began.
        jobs: process of the daemon -> what it held.
    """

    n_frames: int
    at_s: float
    jobs: dict[str, Held]

    @property
    def total(self) -> Held:
        """All processes together."""
        return sum(self.jobs.values(), Held())


@dataclass(frozen=True, slots=True)
class Soak:
    """A daemon's memory over many frames.

    Attributes:
        counts: outcome -> frames, over all series.
        grown_bytes_per_frame: private and shared memory of all processes: the slope of a straight
            line through the readings after the first twenty series; None before.
    """

    n_frames: int
    n_series: int
    seconds: float
    counts: dict[str, int]
    readings: list[Reading]
    grown_bytes_per_frame: float | None


def soak(
    frames: BenchFrames,
    n_frames: int,
    n_series: int,
    settings: DaemonSettings,
    device: str,
    progress: Callable[[Reading], None],
) -> Soak:
    """Send series of small frames as fast as they are taken, and read what is held.

    An interrupt (Ctrl-C) ends it early, with what was read so far.

    Args:
        frames: what is sent, again and again.
        n_frames: in all; what no series has an equal share of is not sent.
        n_series: among which they are divided.
        settings: of the daemon.
        device: `cpu` or `cuda:N`.
        progress: called with each reading.

    Raises:
        DaemonError: the daemon did not run, or fell silent.
    """
    n_each = max(n_frames // n_series, 1)
    counts = dict.fromkeys((o.value for o in Outcome), 0)
    readings: list[Reading] = []
    with tempfile.TemporaryDirectory() as folder, Feed(frames) as feed:
        out, config = Path(folder) / "run", Path(folder) / "bench.toml"
        config.write_text(settings.as_toml())
        arguments = ("--config", str(config), "--device", device)
        with DaemonProcess(feed.endpoint, out, arguments) as daemon:
            daemon.wait_ready()
            begin_s = time.monotonic()
            with suppress(KeyboardInterrupt):
                for _ in range(n_series):
                    sending = feed.send(n_each, None)
                    for topic, message in daemon.series():
                        if not topic.startswith("result."):
                            continue
                        counts[message["outcome"]] += 1
                        n = sum(counts.values())
                        if n % n_each == n_each // 2:
                            at_s = time.monotonic() - begin_s
                            readings.append(Reading(n, at_s, daemon.held()))
                            progress(readings[-1])
                    sending.result(SEND_TIMEOUT_S)
                    for done in out.glob("series_*"):
                        shutil.rmtree(done)  # the disk is not what is measured
            seconds = time.monotonic() - begin_s
    n = sum(counts.values())
    return Soak(n, n // n_each, seconds, counts, readings, _growth(readings))


def _growth(readings: Sequence[Reading]) -> float | None:
    late = readings[WARM_UP_SERIES:]
    if len(late) < 2:
        return None
    held = [r.total.private_bytes + r.total.shared_bytes for r in late]
    return float(np.polyfit([r.n_frames for r in late], held, 1)[0])
