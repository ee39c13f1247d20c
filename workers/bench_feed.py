"""The detector of a benchmark: an emulator that shows frames joined of a pool's."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from hitfinder.sim.detector import Protocol
from hitfinder.sim.emulator import Emulator, EmulatorOptions
from hitfinder.sim.encoding import EncodedImage
from hitfinder.workers.bench_frames import BenchFrames

SEND_HWM = 64
SEND_TIMEOUT_S = 60.0


class Feed:
    """An emulated detector that shows what is made of a pool, at any pace."""

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
        return self._frames.shown(frame), None
