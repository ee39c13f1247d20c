"""What `hitfinder-stream simulate` does: simulated diffraction out of an emulated Eiger.

Its one rule: everything sent is known: frames, hits and faults are functions of the seed, and
what was true of each frame can be written beside the stream. Frames from `frames.py`, wire and
states from `emulator.py`; without an API the series send themselves, with one a client decides.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from rich.console import Console
from rich.progress import Progress

from hitfinder import HitfinderError
from hitfinder.sim.detector import Compression, DetectorConfig, HeaderDetail, Protocol
from hitfinder.sim.emulator import Emulator, EmulatorError, EmulatorOptions
from hitfinder.sim.encoding import EncodedImage
from hitfinder.sim.faults import AppliedFault, FaultInjector, Faults, parse_faults
from hitfinder.sim.frames import FrameSource
from hitfinder.sim.physics import Detector, data_sets
from hitfinder.sim.pool import FrameTruth, PooledSource, TruthFile
from hitfinder.sim.presets import BLANK_KINDS
from hitfinder.sim.rest_server import RestServer
from hitfinder.sim.simplon import Simplon

SHIPPED_CRYSTAL_UM = 10.0
# Frames drawn and packed ahead when nothing is said: 64 packed 4M frames are about 40 MB.
DEFAULT_POOL = 64
# A receiver that does not take a frame within this time is gone.
SEND_TIMEOUT_s = 60.0
# Behind an API a client may be absent; then a series must not hang for long.
API_SEND_TIMEOUT_s = 2.0
# Told to stop, what is queued for a slow receiver is given up.
STOP_LINGER_s = 1.0
# Bounds what a stalled receiver makes us keep: about 100 MB of 4M frames, packed.
SEND_HWM = 200
WAIT_STEP_s = 0.2


class SimulateError(HitfinderError):
    """Options that contradict each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """The command's options.

    Attributes:
        bind: ZMQ endpoint to send from; port 0 takes a free one.
        frames: images of each series.
        series: how many are sent, the data sets in turn; 0 for one of each data set.
        rate_Hz: images a second; None for as fast as they are taken.
        hit_fraction: share of frames with a crystal in the beam.
        dataset: `01` to `09`, or `all` for nine series one after the other.
        crystal_um: edge of the crystals; other than 10 needs the pattern generator (slower).
        divergence_mrad: FWHM of the beam's divergence, which widens the spots.
        n_photons: photons a pulse, None for the model's own.
        strength: factor on the Bragg photons alone.
        hot_pixels: pixels that count without light, at fixed places for a seed.
        background: what is there besides water and crystals, a kind of `presets.BLANK_KINDS`.
        shape: (ss, fs) of a smaller detector for quick trials; None for the EIGER2 4M.
        api: HOST:PORT to serve SIMPLON on and wait for commands; None to send at once.
        faults: what shall go wrong, grammar of `parse_faults`.
        truth: file for what is true of each frame: `.jsonl` one object a line, `.json` a list.
        pool: frames drawn and packed ahead, then shown again and again; 0 draws each frame anew.
        wait_for_client_s: how long a series waits for the receiver to connect.
        progress: draw a progress bar; None to do so on a terminal.
    """

    bind: str = "tcp://127.0.0.1:31001"
    protocol: Protocol = "v2"
    frames: int = 1000
    series: int = 0
    rate_Hz: float | None = 100.0
    hit_fraction: float = 0.2
    dataset: str = "02"
    crystal_um: float = SHIPPED_CRYSTAL_UM
    divergence_mrad: float = 0.0
    n_photons: float | None = None
    strength: float = 1.0
    hot_pixels: int = 0
    background: str = "ideal"
    dtype: Literal["uint8", "uint16", "uint32"] = "uint16"
    shape: tuple[int, int] | None = None
    compression: Compression = "bslz4"
    header_detail: HeaderDetail = "basic"
    api: str | None = None
    seed: int = 0
    faults: str = ""
    truth: Path | None = None
    pool: int = DEFAULT_POOL
    wait_for_client_s: float = 60.0
    progress: bool | None = None


@dataclass(frozen=True, slots=True)
class SimulateReport:
    """What was sent.

    Attributes:
        uids: unique ids of the series that were armed here, in order; none behind an API.
        n_frames: images produced.
        n_hits: of these, with a crystal in the beam.
        n_messages: messages taken by receivers, start and end messages included.
        n_lost: messages that nobody took in time.
        faults: every fault made, in order.
        wall_s: from the first arm to the last message handed over.
    """

    endpoint: str
    n_series: int
    uids: tuple[str, ...]
    n_frames: int
    n_hits: int
    n_messages: int
    n_lost: int
    faults: tuple[AppliedFault, ...]
    wall_s: float


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the simulated detector can be reached; `api_port` is None without an API."""

    endpoint: str
    api_port: int | None


def simulate(
    options: SimulateOptions, announce: Callable[[Listening], None] = lambda _: None
) -> SimulateReport:
    """Be a detector until the series are sent or, with an API, until SIGTERM or SIGINT.

    Args:
        options: see there.
        announce: told once, when clients can connect.

    Raises:
        SimulateError: options that contradict each other.
        BindError: the address to send from is taken.
        EmulatorError: no receiver came.
        FaultsError: faults that do not follow the grammar.
    """
    datasets = _check(options)
    faults = FaultInjector(parse_faults(options.faults), options.seed)
    scenes = _scenes(options, datasets, faults.faults)
    settings = scenes[0].config, _emulator_options(options)

    def see(_series: int, frame: int) -> tuple[EncodedImage, FrameTruth]:
        # Numbers may begin again; how many were armed does not.
        scene = scenes[max(faults.n_series - 1, 0) % len(scenes)]
        shown = scene.source.show(frame, emulator.encoder)
        return shown.image, shown.truth

    with (
        TruthFile(options.truth) as truth,
        Emulator(settings[0], see, settings[1], on_frame=truth.note, faults=faults) as emulator,
        _stopped_by_signal(emulator) as stop,
    ):
        begin_s, uids = time.monotonic(), list[str]()
        if options.api is not None:
            _serve(options.api, emulator, stop, announce)
        else:
            announce(Listening(emulator.endpoint, None))
            uids = _send_all(options, scenes, emulator, stop)
        wall_s = time.monotonic() - begin_s
        emulator.close(STOP_LINGER_s if stop.is_set() else None)
    return SimulateReport(
        endpoint=emulator.endpoint,
        n_series=faults.n_series,
        uids=tuple(uids),
        n_frames=truth.n_frames,
        n_hits=truth.n_hits,
        n_messages=emulator.n_sent,
        n_lost=emulator.n_lost,
        faults=tuple(faults.applied),
        wall_s=wall_s,
    )


@dataclass(frozen=True, slots=True)
class _Scene:
    """What the detector is set to and sees in one series."""

    dataset: str
    config: DetectorConfig
    source: PooledSource


def _scenes(options: SimulateOptions, datasets: Sequence[str], faults: Faults) -> list[_Scene]:
    """Return a scene a series; series of the same settings share their frames."""
    made: dict[tuple[str, bool], _Scene] = {}
    scenes = []
    for k in range(options.series or len(datasets)):
        name = datasets[k % len(datasets)], k % 2 == 0 and (faults.shape or faults.depth)
        if name not in made:
            o = _otherwise(options, faults) if name[1] else options
            source = PooledSource(_frames(o, name[0]), name[0], o.pool)
            made[name] = _Scene(name[0], _config(o, name[0]), source)
        scenes.append(made[name])
    return scenes


def _otherwise(options: SimulateOptions, faults: Faults) -> SimulateOptions:
    """Return the options of the series that differ from their neighbours."""
    rows, columns = _detector(options).shape
    dtype: Literal["uint16", "uint32"] = "uint16" if options.dtype == "uint32" else "uint32"
    return replace(
        options,
        shape=(rows // 2, columns) if faults.shape else options.shape,
        dtype=dtype if faults.depth else options.dtype,
    )


def _send_all(
    options: SimulateOptions, scenes: Sequence[_Scene], emulator: Emulator, stop: threading.Event
) -> list[str]:
    """Send one series a scene; return their unique ids."""
    uids = []
    is_shown = sys.stderr.isatty() if options.progress is None else options.progress
    emulator.initialize()
    with Progress(console=Console(stderr=True), disable=not is_shown) as progress:
        for scene in scenes:
            bar = progress.add_task(f"data set {scene.dataset}", total=options.frames)
            changes = {f.name: getattr(scene.config, f.name) for f in fields(scene.config)}
            emulator.configure(**changes)
            scene.source.fill(options.frames, emulator.encoder)
            if stop.is_set():
                break
            try:
                emulator.arm()
            except EmulatorError:
                if stop.is_set():
                    break
                raise
            uids.append(emulator.series.uid)
            with _watched(progress, bar, emulator):
                emulator.trigger()
            if stop.is_set():
                emulator.cancel()
                break
    return uids


def _serve(
    address: str, emulator: Emulator, stop: threading.Event, announce: Callable[[Listening], None]
) -> None:
    """Obey clients until a signal comes."""
    host, _, port = address.rpartition(":")
    with RestServer(Simplon(emulator), host, int(port)) as server:
        announce(Listening(emulator.endpoint, server.port))
        while not stop.wait(WAIT_STEP_s):
            pass
        emulator.cancel()


@contextmanager
def _watched(progress: Progress, bar: Any, emulator: Emulator) -> Iterator[None]:
    """Move a progress bar along with the emulator, from a thread of its own."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(WAIT_STEP_s):
            progress.update(bar, completed=emulator.n_produced)
        progress.update(bar, completed=emulator.n_produced)

    thread = threading.Thread(target=follow, name="progress")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _stopped_by_signal(emulator: Emulator) -> Iterator[threading.Event]:
    """Yield an event set by SIGTERM or SIGINT, which also interrupt the emulator."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        emulator.interrupt()

    if threading.current_thread() is not threading.main_thread():
        yield stop  # Only the main thread may take signals; a caller's thread stops by itself.
        return
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, on_signal) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _check(options: SimulateOptions) -> tuple[str, ...]:
    """Return the data sets to show, one a series; refuse what cannot be done."""
    known = tuple(data_sets())
    if options.dataset != "all" and options.dataset not in known:
        raise SimulateError(f"data set {options.dataset!r}; expected all or {', '.join(known)}")
    if options.dataset == "all" and options.api is not None:
        raise SimulateError("data set all needs nine settings; with an API the client sets them")
    if options.series < 0:
        raise SimulateError("series cannot be negative; 0 sends one a data set")
    if options.frames < 1 or (options.rate_Hz is not None and options.rate_Hz <= 0):
        raise SimulateError("frames and rate must be positive; rate max has no limit")
    if options.background not in BLANK_KINDS:
        raise SimulateError(
            f"background {options.background!r}; expected one of {', '.join(BLANK_KINDS)}"
        )
    if options.hot_pixels < 0 or options.strength < 0:
        raise SimulateError("hot pixels and strength cannot be negative")
    if options.seed < 0 or options.pool < 0:
        raise SimulateError("seed and pool cannot be negative; pool 0 draws each frame anew")
    if options.api is not None and not options.api.rpartition(":")[2].isdigit():
        raise SimulateError(f"API address {options.api!r}; expected HOST:PORT")
    return known if options.dataset == "all" else (options.dataset,)


def _frames(options: SimulateOptions, dataset: str) -> FrameSource:
    is_shipped = options.crystal_um == SHIPPED_CRYSTAL_UM
    given: dict[str, Any] = {} if options.n_photons is None else {"n_photons": options.n_photons}
    if options.hot_pixels:
        given["n_hot_pixels"] = options.hot_pixels
    settings = replace(
        BLANK_KINDS[options.background],
        datasets=(dataset,),
        hit_fraction=options.hit_fraction,
        crystal_um=options.crystal_um,
        divergence_mrad=options.divergence_mrad,
        strength=options.strength,
        patterns="shipped" if is_shipped else "generator",
        dtype=options.dtype,
        **given,
    )
    return FrameSource(
        settings,
        seed=1000 * int(dataset) + options.seed,
        detector=_detector(options),
        # One detector takes all series: what is hot stays hot.
        detector_seed=options.seed,
    )


def _detector(options: SimulateOptions) -> Detector:
    return Detector() if options.shape is None else Detector(shape=options.shape)


def _config(options: SimulateOptions, dataset: str) -> DetectorConfig:
    detector = _detector(options)
    frame_time_s = 0.001 if options.rate_Hz is None else 1 / options.rate_Hz
    readout_time_s = DetectorConfig().readout_time_s
    return DetectorConfig(
        shape=detector.shape,
        dtype=options.dtype,
        compression=options.compression,
        header_detail=options.header_detail,
        n_images=options.frames,
        count_time_s=frame_time_s - readout_time_s,
        frame_time_s=frame_time_s,
        beam_center_px=detector.center_px,
        pixel_size_m=detector.pixel_size_m,
        **_setting_fields(dataset),
    )


def _setting_fields(dataset: str) -> dict[str, Any]:
    """Return the detector settings that a data set stands for."""
    setting = data_sets()[dataset]
    return {
        "clen_m": setting.clen_m,
        "photon_energy_eV": setting.photon_energy_eV,
        "threshold_energy_eV": (setting.photon_energy_eV / 2, setting.photon_energy_eV * 1.4),
    }


def _emulator_options(options: SimulateOptions) -> EmulatorOptions:
    """A series that sends itself loses nothing; behind an API the detector is a real one."""
    is_real = options.api is not None
    return EmulatorOptions(
        bind=options.bind,
        protocol=options.protocol,
        rate_Hz=options.rate_Hz,
        send_hwm=SEND_HWM,
        send_timeout_s=API_SEND_TIMEOUT_s if is_real else SEND_TIMEOUT_s,
        linger_s=SEND_TIMEOUT_s,
        wait_for_client_s=0.0 if is_real else options.wait_for_client_s,
    )
