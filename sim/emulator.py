"""A detector that is not there: state machine and ZMQ PUSH sender of an Eiger.

Its one rule: what a client may see follows the protocol note: states (section 9), life of a
series (6), a bound PUSH socket that drops when nobody takes (1). Messages come from the pure
producers `stream_v1` and `stream_v2`; frames from a caller's function. Times go in by config,
commands may come from several threads: one lock orders them, one event interrupts a trigger.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hitfinder import HitfinderError
from hitfinder.sim import stream_v1, stream_v2
from hitfinder.sim.detector import (
    DetectorConfig,
    Protocol,
    Series,
    exposure_times,
    new_uid,
    with_changes,
)
from hitfinder.sim.encoding import EncodedImage, Encoder
from hitfinder.sim.faults import FaultInjector, WireMessage
from hitfinder.sim.push import PushSocket

logger = logging.getLogger(__name__)

Images = NDArray[Any] | EncodedImage | Sequence[NDArray[Any] | EncodedImage]
# (series number, frame) -> what the detector sees, one image a channel, and what is true of it.
FrameSource = Callable[[int, int], tuple[Images, Any]]
FrameListener = Callable[[int, int, Any], None]

# How long the end message of a stopped series waits for a client whose queue is full.
END_WAIT_s = 2.0


class EmulatorError(HitfinderError):
    """A command the detector cannot obey in its present state."""


class State(StrEnum):
    """SIMPLON's detector states that an emulator can be in."""

    NA = "na"
    IDLE = "idle"
    READY = "ready"
    ACQUIRE = "acquire"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """How the emulator behaves where real units differ or nobody knows.

    Attributes:
        bind: ZMQ endpoint; port `*` or 0 takes a free one, see `Emulator.endpoint`.
        protocol: wire format; SIMPLON's `format` config can change it later.
        rate_Hz: images a second on an absolute schedule, None for as fast as they are taken.
        send_hwm: messages queued for each connected client.
        send_timeout_s: how long a message waits to be taken before it is lost. After one was
            lost the next do not wait until somebody takes messages again.
        wait_for_client_s: how long arm waits for somebody to connect, 0 to not care.
        linger_s: how long `close` waits for queued messages to leave.
    """

    bind: str = "tcp://127.0.0.1:31001"
    protocol: Protocol = "v2"
    rate_Hz: float | None = None
    send_hwm: int = 1000
    send_timeout_s: float = 0.0
    wait_for_client_s: float = 0.0
    linger_s: float = 10.0


class Emulator:
    """An Eiger: `initialize`, `arm`, `trigger`, `disarm`, `cancel`, `abort`.

    Args:
        config: settings at power-up; `configure` changes them between series.
        frame_source: called once an image, in order; may return packed images.
        on_frame: told of every image produced, sent or dropped: (series, frame, truth).
        faults: changes what leaves the socket; None for a faultless detector.

    Raises:
        BindError: the address to send from is taken.

    Attributes:
        n_sent: messages handed to ZMQ since power-up.
        n_lost: messages nobody took since power-up.
        dropped: images nobody took since the last arm (SIMPLON `stream/status/dropped`).
        enabled: False silences the stream (SIMPLON `stream/config/mode`).
        latest: the last image produced, (series, frame, images), for the monitor.
    """

    def __init__(
        self,
        config: DetectorConfig,
        frame_source: FrameSource,
        options: EmulatorOptions | None = None,
        *,
        on_frame: FrameListener | None = None,
        faults: FaultInjector | None = None,
    ) -> None:
        self.options = options or EmulatorOptions()
        self.config = config
        self.protocol: Protocol = self.options.protocol
        self.enabled = True
        self.n_sent = 0
        self.n_lost = 0
        self.dropped = 0
        self.latest: tuple[int, int, tuple[EncodedImage, ...]] | None = None
        self._frame_source = frame_source
        self._on_frame = on_frame
        self._faults = faults
        self._state = State.NA
        self._series = Series(0, "", datetime.now(UTC), datetime.now(UTC))
        self._next_frame = 0
        self._is_taken = True
        self._commands = threading.RLock()
        self._stop = threading.Event()
        self._external: threading.Thread | None = None
        o = self.options
        self._push = PushSocket(o.bind, o.send_hwm, o.linger_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The bound address, with the real port."""
        return self._push.endpoint

    @property
    def state(self) -> State:
        """SIMPLON's detector state."""
        return self._state

    @property
    def series(self) -> Series:
        """The last armed series; number 0 before the first since `initialize`."""
        return self._series

    @property
    def n_produced(self) -> int:
        """Images produced in the present series."""
        return self._next_frame

    @property
    def encoder(self) -> Encoder:
        """How images are packed at the present settings."""
        c = self.config
        return Encoder(self.protocol, c.compression, c.dtype, c.block_bytes)

    def configure(self, **changes: Any) -> None:
        """Change fields of the config, as a client does between series.

        Raises:
            EmulatorError: while armed.
        """
        with self._command("configure", State.NA, State.IDLE):
            self.config = with_changes(self.config, changes)

    def select_protocol(self, protocol: Protocol) -> None:
        """Change the wire format between series; the bound address stays.

        Raises:
            EmulatorError: while armed.
        """
        with self._command("change the stream format", State.NA, State.IDLE):
            self.protocol = protocol

    def initialize(self) -> None:
        """Reset: a running series is ended, series ids restart at 1."""
        self.interrupt()
        with self._commands:
            self._end_series()
            self._series = replace(self._series, number=0)
            self._state = State.IDLE

    def arm(self) -> int:
        """Announce a new series and return its number; external triggers start by themselves.

        Raises:
            EmulatorError: not initialized or already armed; no client where one is awaited.
        """
        with self._command("arm", State.IDLE):
            self._stop.clear()
            self._wait_for_client()
            self._next_frame = 0
            self.dropped = 0
            self._is_taken = True
            now = datetime.now(UTC)
            self._series = series = Series(self._series.number + 1, new_uid(), now, now)
            self._state = State.READY
            logger.info("series=%d armed, %d frames", series.number, self.config.n_frames)
            produce = stream_v1.start if self.protocol == "v1" else stream_v2.start
            self._send(WireMessage("start", series.number, produce(self._promised(), series)))
        if self.config.trigger_mode not in ("ints", "inte"):
            self._external = threading.Thread(target=self._run_external, name="external-trigger")
            self._external.start()
        return series.number

    def trigger(self, count_time_s: float | None = None) -> int:
        """Expose one trigger's images and return how many were produced; blocks until done.

        The detector disarms itself after the last trigger's last image, or where a fault cuts
        the series short.

        Args:
            count_time_s: exposure time of this trigger (`inte`), None for the configured one.

        Raises:
            EmulatorError: not armed.
        """
        with self._command("trigger", State.READY):
            if self._next_frame == 0:
                self._series = replace(self._series, start_date=datetime.now(UTC))
            self._state = State.ACQUIRE
            try:
                n_frames = self._expose(self._series, count_time_s)
            finally:
                self._state = State.READY
            cut = self._cut()
            if cut is not None or self._next_frame >= self.config.n_frames:
                self._end_series()
            if cut == "initialize":
                self._series = replace(self._series, number=0)
            return n_frames

    def disarm(self) -> int:
        """End the series after the images of a running trigger; return its number."""
        with self._commands:
            return self._end_series()

    def cancel(self) -> int:
        """Stop after the current image, then end the series; return its number."""
        self.interrupt()
        with self._commands:
            return self._end_series()

    def abort(self) -> int:
        """Stop at once, then end the series; return its number."""
        return self.cancel()

    def interrupt(self) -> None:
        """Make a running trigger or a waiting arm return early; safe in a signal handler."""
        self._stop.set()

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait for externally triggered images to be done; return whether they are."""
        if self._external is not None:
            self._external.join(timeout_s)
            return not self._external.is_alive()
        return self._state is not State.ACQUIRE

    def stream_initialize(self) -> None:
        """Silence the stream: images of a running series stop, no end is sent [S18]."""
        self.enabled = False

    def close(self, linger_s: float | None = None) -> None:
        """Switch the power off: no end message.

        Args:
            linger_s: how long queued messages get to leave, None for the option's value.
        """
        self.interrupt()
        if self._external is not None:
            self._external.join()
        with self._commands:
            self._state = State.NA
            self._push.close(linger_s)

    def _run_external(self) -> None:
        """Be the beamline's trigger source of an `ext*` mode."""
        for _ in range(self.config.n_trigger):
            with self._commands:
                if self._stop.is_set() or self._state is not State.READY:
                    return
                self.trigger()

    def _expose(self, series: Series, count_time_s: float | None) -> int:
        """Produce and send images on an absolute schedule; stop between images when told."""
        produce = stream_v1.image if self.protocol == "v1" else stream_v2.image
        encoder, rate_Hz = self.encoder, self.options.rate_Hz
        n_frames, begin_s = self.config.images_per_trigger, _now()
        for k in range(n_frames):
            content, truth = self._frame_source(series.number, self._next_frame)
            images = _encode_all(content, encoder, len(self.config.channels))
            if rate_Hz is not None and self._stop.wait(max(0, begin_s + k / rate_Hz - _now())):
                return k
            if self._stop.is_set() or self._cut() is not None:
                return k
            frame = self._next_frame
            if self._faults is not None and frame == self._faults.faults.disconnect:
                self._push.reopen()
            times = exposure_times(self.config, frame, count_time_s)
            parts = produce(self.config, series, frame, images, times)
            self.latest = (series.number, frame, images)
            if self._on_frame is not None:
                self._on_frame(series.number, frame, truth)
            self._send(WireMessage("image", series.number, parts, frame, images[0].payload))
            self._next_frame += 1
        return n_frames

    def _promised(self) -> DetectorConfig:
        """Return the config as the header tells it."""
        promise = None if self._faults is None else self._faults.faults.promise
        if promise is None:
            return self.config
        return replace(self.config, n_images=promise, n_trigger=1, trigger_mode="ints")

    def _cut(self) -> str | None:
        """Return what ends the series before its next frame, None if nothing does."""
        cut = None if self._faults is None else self._faults.cut
        return cut[0] if cut is not None and self._next_frame >= cut[1] else None

    def _end_series(self) -> int:
        """Send the end of an armed series; return the last number."""
        number = self._series.number
        if self._state in (State.READY, State.ACQUIRE):
            produce = stream_v1.end if self.protocol == "v1" else stream_v2.end
            self._send(WireMessage("end", number, produce(self._series)))
            logger.info("series=%d ended after %d frames", number, self._next_frame)
            self._state = State.IDLE
        return number

    def _send(self, message: WireMessage) -> None:
        if not self.enabled:
            return
        messages = [message] if self._faults is None else self._faults.feed(message)
        for m in messages:
            is_sent = self._deliver(m)
            self.n_sent += is_sent
            self.n_lost += not is_sent
            if not is_sent and m.kind == "image":
                self.dropped += 1
            elif not is_sent:
                logger.warning("series=%d: nobody took the %s message", m.series, m.kind)

    def _deliver(self, message: WireMessage) -> bool:
        """Send one message, not waiting where the last one was lost; note what became of it."""
        wait_s = self.options.send_timeout_s if self._is_taken else 0.0
        if message.kind == "image":
            is_sent = self._push.send(message.parts, wait_s, self._stop.is_set)
        else:
            is_stopped = self._stop.is_set()
            is_sent = self._push.send(
                message.parts, min(wait_s, END_WAIT_s) if is_stopped else wait_s
            )
        # An image given up by an abort says nothing about the client: the end still waits.
        self._is_taken = is_sent or self._stop.is_set()
        return is_sent

    def _wait_for_client(self) -> None:
        wait_s = self.options.wait_for_client_s
        if wait_s and not self._push.wait_for_client(wait_s, self._stop.is_set):
            raise EmulatorError(
                f"no client connected to {self.endpoint} within {wait_s:g} s; "
                "start the receiver first"
            )

    @contextmanager
    def _command(self, command: str, *states: State) -> Iterator[None]:
        """Hold the lock for a command; refuse at once where it would wait only to be refused."""
        self._need(command, *states)
        with self._commands:
            self._need(command, *states)
            yield

    def _need(self, command: str, *states: State) -> None:
        if self._state not in states:
            raise EmulatorError(
                f"{command} in state {self._state}; expected {' or '.join(states)}"
            )


def _encode_all(content: Images, encoder: Encoder, n_channels: int) -> tuple[EncodedImage, ...]:
    """Return packed images, packing those that are not yet; one image serves all channels."""
    images = [content] if isinstance(content, np.ndarray | EncodedImage) else content
    packed = tuple(i if isinstance(i, EncodedImage) else encoder(i) for i in images)
    return packed * n_channels if len(packed) == 1 else packed


def _now() -> float:
    return time.monotonic()
