"""`simulate`: what a receiver gets is what the report and the truth file say."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from hitfinder import HitfinderError
from hitfinder.sim.simulate import Listening, SimulateError, SimulateOptions, simulate
from hitfinder.stream import bslz4, wire
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Frame, Message, SeriesEnd, SeriesStart

SMALL = {"bind": "tcp://127.0.0.1:0", "shape": (256, 256), "rate_Hz": None, "progress": False}
DEADLINE_S = 20.0


class Receiver:
    """Connects when the simulator listens and keeps what comes until `n_ends` series ended."""

    def __init__(self, n_ends: int = 1) -> None:
        self.messages: list[Message | WireError] = []
        self._n_ends = n_ends
        self._thread: threading.Thread | None = None

    def __call__(self, listening: Listening) -> None:
        self._thread = threading.Thread(target=self._receive, args=(listening.endpoint,))
        self._thread.start()

    def done(self) -> list[Message | WireError]:
        assert self._thread is not None
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        return self.messages

    def _receive(self, endpoint: str) -> None:
        with zmq.Context() as context, context.socket(zmq.PULL) as pull:
            pull.connect(endpoint)
            while self._n_ends and pull.poll(int(1000 * DEADLINE_S)):
                try:
                    self.messages.append(wire.decode(pull.recv_multipart()))
                except WireError as error:
                    self.messages.append(error)
                self._n_ends -= isinstance(self.messages[-1], SeriesEnd)


def test_a_series_arrives_whole_and_its_truth_is_written(tmp_path: Path):
    receiver = Receiver()
    truth = tmp_path / "truth.jsonl"
    options = SimulateOptions(**SMALL, frames=30, pool=10, truth=truth, hit_fraction=0.5, seed=4)
    report = simulate(options, receiver)
    messages = receiver.done()
    start, end = messages[0], messages[-1]
    frames = [m for m in messages if isinstance(m, Frame)]
    assert isinstance(start, SeriesStart)
    assert isinstance(end, SeriesEnd)
    assert (start.photon_energy_eV, start.clen_m, start.n_frames) == (7000.0, 0.15, 30)
    assert [f.header.frame for f in frames] == list(range(30))
    assert (report.n_series, report.n_frames, report.n_messages, report.n_lost) == (1, 30, 32, 0)
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    assert [(t["series"], t["frame"], t["drawn"]) for t in lines] == [
        (1, k, k % 10) for k in range(30)
    ]
    assert sum(t["is_hit"] for t in lines) == report.n_hits
    assert 0 < report.n_hits < 30
    images = [bslz4.decode(f.blobs[0]) for f in frames]
    assert all(np.array_equal(images[k], images[k + 10]) for k in range(20))
    assert not np.array_equal(images[0], images[1])


def test_all_data_sets_are_nine_series_with_their_own_settings_and_frames(tmp_path: Path):
    receiver = Receiver(n_ends=9)
    truth = tmp_path / "truth.json"
    report = simulate(
        SimulateOptions(**SMALL, frames=2, dataset="all", protocol="v1", truth=truth), receiver
    )
    starts = [m for m in receiver.done() if isinstance(m, SeriesStart)]
    assert [s.series for s in starts] == list(range(1, 10))
    assert {(s.clen_m, s.photon_energy_eV) for s in starts} == {
        (clen_m, energy_eV) for clen_m in (0.15, 0.25, 0.35) for energy_eV in (6e3, 7e3, 8e3)
    }
    assert report.n_series == 9
    said = json.loads(truth.read_text())
    assert [t["dataset"] for t in said] == [f"0{k}" for k in range(1, 10) for _ in range(2)]


def test_the_same_seed_sends_the_same_pixels():
    def payloads(seed: int) -> list[bytes]:
        receiver = Receiver()
        simulate(SimulateOptions(**SMALL, frames=3, seed=seed, dtype="uint32"), receiver)
        return [bytes(m.blobs[0].payload) for m in receiver.done() if isinstance(m, Frame)]

    first = payloads(1)
    assert len(first) == 3
    assert first == payloads(1)
    assert first != payloads(2)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_each_fault_in_the_report_is_what_the_receiver_meets(protocol):
    receiver = Receiver()
    spec = "drop:0.1,duplicate:0.1,corrupt:0.1,truncate:0.1"
    options = SimulateOptions(**SMALL, frames=100, pool=4, faults=spec, protocol=protocol, seed=2)
    report = simulate(options, receiver)
    made = Counter(f.kind for f in report.faults)
    messages = receiver.done()
    frames = Counter(m.header.frame for m in messages if isinstance(m, Frame))
    bad = [m for m in messages if isinstance(m, WireError)]
    assert len(made) == 4
    assert len(bad) == made["corrupt"] + made["truncate"]
    assert sum(n == 2 for n in frames.values()) == made["duplicate"]
    assert 100 - len(frames) == made["drop"] + len(bad)
    corrupt = {f.frame for f in report.faults if f.kind == "corrupt"}
    assert corrupt <= {error.frame for error in bad}


def test_hot_pixels_are_lit_in_every_frame_of_every_series():
    receiver = Receiver(n_ends=9)
    options = SimulateOptions(**SMALL, frames=1, dataset="all", hit_fraction=0, hot_pixels=200)
    simulate(options, receiver)
    frames = [bslz4.decode(m.blobs[0]) for m in receiver.done() if isinstance(m, Frame)]
    bright = [set(np.flatnonzero((f.ravel() > 30) & (f.ravel() < 65535))) for f in frames]
    assert len(set.intersection(*bright)) > 50


def test_rate_sets_the_frame_time_that_the_header_says():
    receiver = Receiver()
    simulate(SimulateOptions(**SMALL | {"rate_Hz": 250.0}, frames=3), receiver)
    start = receiver.done()[0]
    assert isinstance(start, SeriesStart)
    assert start.frame_time_s == pytest.approx(0.004)


def test_a_signal_cuts_a_series_short_and_it_still_ends():
    receiver = Receiver()

    def listen(listening: Listening) -> None:
        receiver(listening)
        threading.Thread(target=terminate_once, args=(lambda: len(receiver.messages) > 3,)).start()

    before = signal.getsignal(signal.SIGTERM)
    report = simulate(
        SimulateOptions(**SMALL | {"rate_Hz": 100.0}, frames=100_000, pool=2), listen
    )
    messages = receiver.done()
    assert isinstance(messages[-1], SeriesEnd)
    assert len(messages) == report.n_frames + 2 == report.n_messages
    assert signal.getsignal(signal.SIGTERM) is before


def test_with_an_api_it_serves_until_a_signal_comes():
    ports = []

    def listen(listening: Listening) -> None:
        ports.append(listening.api_port)
        url = f"http://127.0.0.1:{listening.api_port}/detector/api/1.8.0/status/state"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as reply:
            assert json.loads(reply.read())["value"] == "na"
        threading.Thread(target=terminate_once, args=(lambda: True,)).start()

    report = simulate(SimulateOptions(**SMALL, frames=5, pool=2, api="127.0.0.1:0"), listen)
    assert (report.n_series, report.n_frames, report.n_messages) == (0, 0, 0)
    assert ports
    assert ports[0] > 0


def terminate_once(condition: Callable[[], bool]) -> None:
    """Send this process SIGTERM as soon as the condition holds."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition() and time.monotonic() < deadline_s:
        threading.Event().wait(0.005)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_truth_file_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(HitfinderError, match="truth file .*none.*; choose another"):
        simulate(SimulateOptions(**SMALL, truth=tmp_path / "none" / "truth.json"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"dataset": "10"}, "expected all or 01"),
        ({"dataset": "all", "api": "127.0.0.1:0"}, "nine settings"),
        ({"frames": 0}, "must be positive"),
        ({"rate_Hz": 0.0}, "must be positive"),
        ({"seed": -1}, "cannot be negative"),
        ({"hot_pixels": -1}, "cannot be negative"),
        ({"background": "none"}, "ideal, jitter, rings"),
        ({"api": "here"}, "expected HOST:PORT"),
    ],
)
def test_options_that_contradict_each_other_are_refused(wrong: dict[str, Any], said: str):
    with pytest.raises(SimulateError, match=said):
        simulate(SimulateOptions(**SMALL | wrong))
