"""The emulated detector's states, series and losses, seen by a client on a real socket."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zmq

from hitfinder.sim.detector import DetectorConfig
from hitfinder.sim.emulator import Emulator, EmulatorError, EmulatorOptions, State
from hitfinder.sim.encoding import Encoder
from hitfinder.sim.faults import AppliedFault, FaultInjector, Faults
from hitfinder.sim.push import BindError
from hitfinder.stream import bslz4, wire
from hitfinder.stream.messages import Frame, Message, SeriesEnd, SeriesStart

SHAPE = (16, 24)
IMAGE = np.random.default_rng(0).poisson(1.0, SHAPE).astype(np.uint16)
CONFIG = DetectorConfig(shape=SHAPE, n_images=3)
OPTIONS = EmulatorOptions(bind="tcp://127.0.0.1:0", send_timeout_s=10.0, wait_for_client_s=10.0)
DEADLINE_S = 10.0


def show(series: int, frame: int) -> tuple[Any, str]:
    return IMAGE + np.uint16(frame), f"{series}/{frame}"


class Client:
    """One PULL socket and what it received."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, receive_hwm: int = 100) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.setsockopt(zmq.RCVHWM, receive_hwm)
        self.socket.connect(endpoint)

    def take(self, n: int) -> list[Message]:
        messages = []
        for _ in range(n):
            assert self.socket.poll(int(1000 * DEADLINE_S)), f"only {len(messages)} messages came"
            messages.append(wire.decode(self.socket.recv_multipart()))
        return messages

    def is_quiet(self) -> bool:
        return not self.socket.poll(0)


@contextmanager
def detector(
    config: DetectorConfig = CONFIG,
    options: EmulatorOptions = OPTIONS,
    receive_hwm: int = 100,
    **more: Any,
) -> Iterator[tuple[Emulator, Client]]:
    with (
        zmq.Context() as context,
        Emulator(config, more.pop("source", show), options, **more) as emulator,
    ):
        client = Client(context, emulator.endpoint, receive_hwm)
        try:
            yield emulator, client
        finally:
            client.socket.close(0)


def said(messages: list[Message]) -> list[str]:
    words = {SeriesStart: "start", SeriesEnd: "end"}
    return [
        str(m.header.frame) if isinstance(m, Frame) else f"{words[type(m)]} {m.series}"
        for m in messages
    ]


def eventually(condition: Any) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "condition not met in time"
        threading.Event().wait(0.005)


def test_the_emulator_shares_no_code_with_the_receiving_floor():
    program = (
        "import sys, hitfinder.sim.simulate;"
        "print(sorted(m for m in sys.modules if m.startswith('hitfinder.stream')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_a_triggered_series_is_start_images_end_and_the_detector_disarms_itself(protocol):
    with detector(options=replace(OPTIONS, protocol=protocol)) as (emulator, client):
        assert emulator.state is State.NA
        emulator.initialize()
        assert emulator.state is State.IDLE
        assert emulator.arm() == 1
        assert emulator.state is State.READY
        assert emulator.trigger() == 3
        assert emulator.state is State.IDLE
        messages = client.take(5)
    assert said(messages) == ["start 1", "0", "1", "2", "end 1"]
    for frame, message in enumerate(messages[1:-1]):
        assert isinstance(message, Frame)
        assert np.array_equal(bslz4.decode(message.blobs[0]), IMAGE + np.uint16(frame))


def test_frame_numbers_run_on_through_all_triggers():
    with detector(replace(CONFIG, n_images=2, n_trigger=2)) as (emulator, client):
        emulator.initialize()
        emulator.arm()
        emulator.trigger()
        assert emulator.state is State.READY
        emulator.trigger()
        assert emulator.state is State.IDLE
        assert said(client.take(6)) == ["start 1", "0", "1", "2", "3", "end 1"]


def test_each_trigger_of_inte_is_one_image_with_its_own_exposure_time():
    config = replace(CONFIG, n_images=5, n_trigger=2, trigger_mode="inte")
    with detector(config) as (emulator, client):
        emulator.initialize()
        emulator.arm()
        emulator.trigger(0.5)
        emulator.trigger()
        messages = client.take(4)
    assert said(messages) == ["start 1", "0", "1", "end 1"]
    real_ns = [m.header.real_ns for m in messages if isinstance(m, Frame)]
    assert real_ns == [500_000_000, 9_900_000]


@pytest.mark.parametrize("mode", ["exts", "exte", "extg"])
def test_external_triggers_come_by_themselves(mode):
    with detector(replace(CONFIG, n_images=2, n_trigger=2, trigger_mode=mode)) as (
        emulator,
        client,
    ):
        emulator.initialize()
        emulator.arm()
        n_images = 2 if mode == "exte" else 4
        assert len(said(client.take(n_images + 2))) == n_images + 2
        assert emulator.wait_idle(DEADLINE_S)
        assert emulator.state is State.IDLE


def test_arm_and_disarm_without_a_trigger_send_start_and_end():
    with detector() as (emulator, client):
        emulator.initialize()
        emulator.arm()
        assert emulator.disarm() == 1
        assert said(client.take(2)) == ["start 1", "end 1"]


@pytest.mark.parametrize("command", ["cancel", "abort", "initialize"])
def test_a_running_series_can_be_stopped_and_still_ends(command):
    options = replace(OPTIONS, rate_Hz=100.0)
    with (
        ThreadPoolExecutor() as pool,
        detector(replace(CONFIG, n_images=100_000), options) as (emulator, client),
    ):
        emulator.initialize()
        emulator.arm()
        trigger = pool.submit(emulator.trigger)
        messages = client.take(3)
        getattr(emulator, command)()
        n_images = trigger.result(DEADLINE_S)
        messages += client.take(n_images - 1)
        assert emulator.state is State.IDLE
        assert client.is_quiet()
    assert said(messages)[-1] == "end 1"
    assert said(messages)[1:-1] == [str(k) for k in range(n_images)]


def test_series_ids_restart_after_initialize_and_unique_ids_do_not():
    with detector() as (emulator, client):
        uids = []
        for expected in (1, 2):
            emulator.initialize()
            assert emulator.arm() == 1
            emulator.disarm()
            assert emulator.arm() == 2
            emulator.disarm()
            uids += [m.series_uid for m in client.take(4) if isinstance(m, SeriesStart)]
            assert len(set(uids)) == 2 * expected


def test_commands_out_of_turn_are_refused_with_the_state():
    with detector() as (emulator, client):
        with pytest.raises(EmulatorError, match="arm in state na; expected idle"):
            emulator.arm()
        emulator.initialize()
        with pytest.raises(EmulatorError, match="trigger in state idle; expected ready"):
            emulator.trigger()
        emulator.arm()
        with pytest.raises(EmulatorError, match="configure in state ready"):
            emulator.configure(n_images=4)
        with pytest.raises(EmulatorError, match="stream format in state ready"):
            emulator.select_protocol("v1")
        client.take(1)


def test_a_longer_count_time_pushes_the_frame_time_up():
    with detector() as (emulator, _):
        emulator.configure(count_time_s=0.5)
        assert emulator.config.frame_time_s == pytest.approx(0.5 + 1e-7)


def test_the_wire_format_can_change_between_series():
    with detector() as (emulator, client):
        emulator.initialize()
        for protocol, n_parts in (("v1", 2), ("v2", 1)):
            emulator.select_protocol(protocol)
            emulator.arm()
            emulator.disarm()
            assert len(client.socket.recv_multipart()) == n_parts
            client.take(1)


def test_images_nobody_takes_are_dropped_and_counted_anew_at_each_arm():
    options = EmulatorOptions(bind="tcp://127.0.0.1:0")
    with Emulator(CONFIG, show, options) as emulator:
        emulator.initialize()
        for _ in range(2):
            emulator.arm()
            emulator.trigger()
            assert emulator.dropped == 3
        assert (emulator.n_sent, emulator.n_lost) == (0, 10)


def test_only_the_first_message_waits_for_a_client_that_is_not_there():
    options = EmulatorOptions(bind="tcp://127.0.0.1:0", send_timeout_s=0.2)
    with Emulator(replace(CONFIG, n_images=100), show, options) as emulator:
        emulator.initialize()
        begin_s = time.monotonic()
        emulator.arm()
        emulator.trigger()
        assert time.monotonic() - begin_s < 5.0
        assert emulator.dropped == 100


def test_a_full_queue_makes_the_sender_wait_and_loses_nothing():
    noise = np.random.default_rng(1).integers(0, 65535, (512, 512)).astype(np.uint16)
    config = DetectorConfig(shape=(512, 512), n_images=60, compression="none")
    options = replace(OPTIONS, send_hwm=2)
    with detector(config, options, source=lambda s, f: (noise, None)) as (emulator, client):
        emulator.initialize()
        emulator.arm()
        with ThreadPoolExecutor() as pool:
            trigger = pool.submit(emulator.trigger)
            messages = client.take(62)
            assert trigger.result(DEADLINE_S) == 60
        assert said(messages) == ["start 1", *map(str, range(60)), "end 1"]
        assert emulator.dropped == 0


@pytest.mark.parametrize("is_stalled", [True, False])
def test_abort_frees_a_sender_that_waits_and_the_end_comes_if_the_client_goes_on(is_stalled):
    noise = np.random.default_rng(1).integers(0, 65535, (1024, 1024)).astype(np.uint16)
    config = DetectorConfig(shape=(1024, 1024), n_images=10_000, compression="none")
    options = replace(OPTIONS, send_hwm=1, send_timeout_s=60.0)
    packed = Encoder("v2", "none", "uint16")(noise)
    with (
        ThreadPoolExecutor() as pool,
        detector(config, options, 1, source=lambda s, f: (packed, None)) as (emulator, client),
    ):
        emulator.initialize()
        emulator.arm()
        trigger = pool.submit(emulator.trigger)
        assert said(client.take(2)) == ["start 1", "0"]
        n_seen = [0]

        def is_waiting() -> bool:
            """The client reads nothing, so its queue fills until no image is produced any more."""
            before, n_seen[0] = n_seen[0], emulator.n_produced
            threading.Event().wait(0.1)
            return before == emulator.n_produced > 0

        eventually(is_waiting)
        abort = pool.submit(emulator.abort)
        while not is_stalled and not isinstance(client.take(1)[0], SeriesEnd):
            pass
        assert abort.result(DEADLINE_S) == 1
        assert trigger.result(DEADLINE_S) < 10_000
        assert emulator.state is State.IDLE
        emulator.close(linger_s=0.0)


def test_arming_without_the_awaited_client_says_where_to_connect():
    options = replace(OPTIONS, wait_for_client_s=0.05)
    with Emulator(CONFIG, show, options) as emulator:
        emulator.initialize()
        with pytest.raises(EmulatorError, match="no client connected to tcp://127.0.0.1:"):
            emulator.arm()
        assert emulator.state is State.IDLE


def test_a_taken_port_is_named():
    with Emulator(CONFIG, show, OPTIONS) as first:
        taken = replace(OPTIONS, bind=first.endpoint)
        with pytest.raises(BindError, match="cannot bind tcp://127.0.0.1:"):
            Emulator(CONFIG, show, taken)


def test_images_leave_on_schedule():
    options = replace(OPTIONS, rate_Hz=200.0)
    with detector(replace(CONFIG, n_images=41), options) as (emulator, client):
        emulator.initialize()
        emulator.arm()
        begin_s = time.monotonic()
        emulator.trigger()
        assert time.monotonic() - begin_s >= 40 / 200.0
        client.take(43)


def test_two_clients_share_the_messages_of_a_series():
    with detector() as (emulator, first), zmq.Context() as context:
        second = Client(context, emulator.endpoint)
        emulator.initialize()
        # Start and end alone go round robin, so both clients are connected once both have one.
        received: dict[str, list[Message]] = {"first": [], "second": []}

        def both_have_some() -> bool:
            emulator.arm()
            emulator.disarm()
            for name, client in (("first", first), ("second", second)):
                while not client.is_quiet():
                    received[name] += client.take(1)
            return bool(received["first"] and received["second"])

        eventually(both_have_some)
        second.socket.close(0)


def test_one_image_serves_every_channel_and_several_are_sent_apart():
    channels = ("threshold_1", "threshold_2")
    sources = {
        "same": lambda s, f: (IMAGE, None),
        "apart": lambda s, f: ([IMAGE, Encoder("v2", "bslz4", "uint16")(IMAGE * 2)], None),
    }
    config = replace(CONFIG, channels=channels, n_images=1)
    for name, source in sources.items():
        with detector(config, source=source) as (emulator, client):
            emulator.initialize()
            emulator.arm()
            emulator.trigger()
            frame = client.take(3)[1]
        assert isinstance(frame, Frame)
        first, second = (bslz4.decode(blob) for blob in frame.blobs)
        assert np.array_equal(first, IMAGE)
        assert np.array_equal(second, IMAGE if name == "same" else IMAGE * 2)


def test_a_disabled_stream_says_nothing_more_not_even_the_end():
    with detector(replace(CONFIG, n_images=1, n_trigger=2)) as (emulator, client):
        emulator.initialize()
        emulator.arm()
        emulator.trigger()
        emulator.stream_initialize()
        emulator.trigger()
        assert emulator.state is State.IDLE
        emulator.enabled = True
        emulator.arm()
        emulator.disarm()
        assert said(client.take(4)) == ["start 1", "0", "start 2", "end 2"]


def test_the_listener_hears_of_every_frame_with_its_truth_also_of_dropped_ones():
    heard: list[tuple[int, int, Any]] = []
    faults = FaultInjector(Faults(drop=0.5), seed=3)
    with detector(
        replace(CONFIG, n_images=20), on_frame=lambda *note: heard.append(note), faults=faults
    ) as (emulator, client):
        emulator.initialize()
        emulator.arm()
        emulator.trigger()
        messages = client.take(emulator.n_sent)
    assert heard == [(1, frame, f"1/{frame}") for frame in range(20)]
    lost = {f.frame for f in faults.applied}
    assert 0 < len(lost) < 20
    assert faults.applied[0] == AppliedFault(1, min(lost), "drop")
    assert said(messages) == ["start 1", *[str(k) for k in range(20) if k not in lost], "end 1"]
