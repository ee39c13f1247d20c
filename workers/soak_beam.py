"""The detector of a soak: series after series, with another rate and other faults each time.

One rule: all is drawn from the seed, and every image that left whole is known, so that the
daemon's account can be held against it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hitfinder.sim.detector import DetectorConfig
from hitfinder.sim.emulator import Emulator, EmulatorError, EmulatorOptions
from hitfinder.sim.encoding import EncodedImage
from hitfinder.sim.faults import AppliedFault, FaultInjector, Faults
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import Detector
from hitfinder.sim.pool import FrameTruth, PooledSource

DATASET, POOL = "02", 32
N_FRAMES = (50, 400)
# As long as a killed daemon's successor may take to listen, on a busy machine.
CLIENT_WAIT_S = 180.0
# An image that met one of these left all the same, and as it was.
HARMLESS = ("duplicate", "reorder", "interleave")


@dataclass(frozen=True, slots=True)
class Sent:
    """One series that was sent.

    Attributes:
        uid: unique id.
        n_produced: images taken, from 0 on.
        faults: those made in it.
        n_untaken: images that nobody took in time.
    """

    uid: str
    n_produced: int
    faults: tuple[AppliedFault, ...]
    n_untaken: int

    def harmed(self) -> dict[int, str]:
        """Return frame -> fault, of the frames that did not leave whole."""
        return {f.frame: f.kind for f in self.faults if f.frame >= 0 and f.kind not in HARMLESS}


def drawn_faults(rng: np.random.Generator, n_frames: int) -> Faults:
    """Return what goes wrong in the next two series; nothing, two times in five."""
    at = int(rng.integers(1, n_frames))
    cut = ("cancel", "abort", "rearm", "initialize")[int(rng.integers(4))]
    every: Sequence[Faults] = (
        Faults(drop=0.02, duplicate=0.02, corrupt=0.02, truncate=0.02),
        Faults(reorder=int(rng.integers(2, 16))),
        Faults(gap=(at, min(at + 10, n_frames))),
        Faults(late=at),
        Faults(thief=int(rng.integers(2, 4))),
        Faults(promise=n_frames + 20),
        Faults(disconnect=at),
        Faults(cut=(cut, at)),
        Faults(cut=(cut, at)),
        Faults(interleave=n_frames // 2),
        Faults(no_header=True),
        Faults(no_end=True),
    )
    return Faults() if rng.random() < 0.4 else every[int(rng.integers(len(every)))]


class Beam:
    """A thread that is a detector until told to stop.

    Args:
        shape: (ss, fs) of the images.
        max_rate_Hz: the rate of a series is drawn between half of this and this.
        has_faults: whether anything goes wrong.

    Attributes:
        sent: series that are over.
        failure: why it gave up by itself, empty if it did not.
    """

    def __init__(
        self, shape: tuple[int, int], max_rate_Hz: float, seed: int, *, has_faults: bool
    ) -> None:
        self.sent: list[Sent] = []
        self.failure = ""
        self._rng = np.random.default_rng(seed)
        self._max_rate_Hz, self._has_faults = max_rate_Hz, has_faults
        detector = Detector(shape=shape)
        frames = FrameSource(FrameSettings(datasets=(DATASET,)), seed, detector=detector)
        self._source = PooledSource(frames, DATASET, POOL)
        self._injector = FaultInjector(Faults(), seed)
        options = EmulatorOptions(
            bind="tcp://127.0.0.1:0",
            send_hwm=50,
            send_timeout_s=CLIENT_WAIT_S,
            wait_for_client_s=CLIENT_WAIT_S,
            linger_s=CLIENT_WAIT_S,
        )
        config = DetectorConfig(
            shape=shape, clen_m=0.15, photon_energy_eV=7000.0, beam_center_px=detector.center_px
        )
        self._emulator = Emulator(config, self._see, options, faults=self._injector)
        self._source.fill(POOL, self._emulator.encoder)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beam")

    @property
    def endpoint(self) -> str:
        """Where to listen."""
        return self._emulator.endpoint

    def start(self) -> None:
        """Begin with the first series."""
        self._thread.start()

    def stop(self) -> None:
        """End the series that is under way, and send no more."""
        self._stop.set()
        self._emulator.interrupt()
        self._thread.join()
        self._emulator.close()

    def _see(self, _series: int, frame: int) -> tuple[EncodedImage, FrameTruth]:
        shown = self._source.show(frame, self._emulator.encoder)
        return shown.image, shown.truth

    def _run(self) -> None:
        self._emulator.initialize()
        n_frames = N_FRAMES[0]
        while not self._stop.is_set():
            if self._injector.n_series % 2 == 0:  # what befalls a series ends with the next
                n_frames = int(self._rng.integers(*N_FRAMES))
                self._injector.faults = (
                    drawn_faults(self._rng, n_frames) if self._has_faults else Faults()
                )
            self._send(n_frames)

    def _send(self, n_frames: int) -> None:
        rate_Hz = self._max_rate_Hz * float(self._rng.uniform(0.5, 1.0))
        emulator, n_faults = self._emulator, len(self._injector.applied)
        emulator.options = replace(emulator.options, rate_Hz=rate_Hz)
        emulator.configure(n_images=n_frames)
        try:
            emulator.arm()
            uid = emulator.series.uid
            emulator.trigger()
        except EmulatorError as error:
            self.failure = "" if self._stop.is_set() else str(error)
            self._stop.set()
            return
        n_produced = emulator.n_produced
        emulator.disarm()
        faults = tuple(self._injector.applied[n_faults:])
        self.sent.append(Sent(uid, n_produced, faults, emulator.dropped))
