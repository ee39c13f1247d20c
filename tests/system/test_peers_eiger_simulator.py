"""ALBA's eiger-simulator as a V1 sender: its lz4 stream strictly, its headless bslz4 in lenient.

It runs in an environment of its own. It announces its configured shape, not its data's, so the
shape is set first; the trigger's HTTP call returns after the last frame.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import zmq

from hitfinder.stream import bslz4, wire
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Frame, SeriesEnd, SeriesStart

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SHAPE = (96, 128)
N_FRAMES = 4
ANSWER_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Simulator:
    """A running simulator: its stream's endpoint and its REST interface."""

    endpoint: str
    root: str

    def put(self, path: str, value: object = None) -> None:
        body = json.dumps({} if value is None else {"value": value}).encode()
        request = urllib.request.Request(
            f"{self.root}/detector/api/1.6.0/{path}",
            data=body,
            headers={"Content-Type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as reply:
            reply.read()

    def wait(self, child: subprocess.Popen[bytes]) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while True:
            assert child.poll() is None, "the simulator ended"
            try:
                with urllib.request.urlopen(f"{self.root}/detector/api/version/", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, "the simulator does not answer"
                time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def simulator(python: Path, dataset: Path, compression: str) -> Iterator[Simulator]:
    http, stream = free_port(), free_port()
    running = Simulator(f"tcp://127.0.0.1:{stream}", f"http://127.0.0.1:{http}")
    command = [str(python.parent / "eiger-simulator"), "--host", "127.0.0.1"]
    command += ["--port", str(http), "--zmq", running.endpoint]
    command += ["--dataset", str(dataset), "--default-compression", compression]
    with (dataset.parent / "simulator.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            running.wait(child)
            running.put("config/y_pixels_in_detector", SHAPE[0])
            running.put("config/x_pixels_in_detector", SHAPE[1])
            running.put("config/nimages", N_FRAMES)
            running.put("config/frame_time", 0.02)
            running.put("command/initialize")
            yield running
        finally:
            child.kill()
            child.wait()


@pytest.fixture
def frames(tmp_path: Path) -> np.ndarray:
    images = np.random.default_rng(4).poisson(1.5, (N_FRAMES, *SHAPE)).astype(np.uint16)
    images[:, 30:33] = 65535
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["entry/data/data"] = images
    return images


def messages_of(sender: Simulator) -> list[list[bytes]]:
    """Return one series, as a PULL socket gets it."""
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.setsockopt(zmq.RCVTIMEO, int(ANSWER_WITHIN_S * 1000))
        pull.connect(sender.endpoint)
        with ThreadPoolExecutor(1) as pool:
            acquired = pool.submit(acquire, sender)
            messages = [pull.recv_multipart()]
            while b"dseries_end" not in messages[-1][0]:
                messages.append(pull.recv_multipart())
            acquired.result(ANSWER_WITHIN_S)
    return messages


def acquire(sender: Simulator) -> None:
    sender.put("command/arm")
    sender.put("command/trigger")


def test_its_lz4_series_is_read_strictly(peer_env, tmp_path, frames):
    python = peer_env("eiger-simulator")
    with simulator(python, tmp_path / "frames.h5", "lz4") as sender:
        start, *images, end = (wire.decode(parts) for parts in messages_of(sender))
    assert isinstance(start, SeriesStart)
    assert (start.n_frames, start.shape) == (N_FRAMES, SHAPE)
    assert [image.header.frame for image in images] == list(range(N_FRAMES))
    assert np.array_equal([bslz4.decode(image.blobs[0]) for image in images], frames)
    assert end == SeriesEnd(start.series)


def test_its_headless_bslz4_series_is_read_in_lenient_mode_alone(peer_env, tmp_path, frames):
    python = peer_env("eiger-simulator")
    with simulator(python, tmp_path / "frames.h5", "bslz4") as sender:
        _start, *images, _end = messages_of(sender)
    for parts, expected in zip(images, frames, strict=True):
        with pytest.raises(WireError, match="lenient"):
            wire.decode(parts)
        lenient = wire.decode(parts, lenient=True)
        assert isinstance(lenient, Frame)
        assert np.array_equal(bslz4.decode(lenient.blobs[0]), expected)


def test_the_daemon_judges_every_frame_of_its_lz4_series(peer_env, tmp_path, frames):
    python = peer_env("eiger-simulator")
    out = tmp_path / "runs"
    command = [str(Path(sys.executable).with_name("hitfinder-stream")), "run"]
    command += ["--out", str(out), "--device", "cpu", "--max-series", "1"]
    command += ["--results", "tcp://127.0.0.1:*", "--http", "127.0.0.1:0"]
    with (
        simulator(python, tmp_path / "frames.h5", "lz4") as sender,
        subprocess.Popen(
            [*command, "--source", sender.endpoint], stdout=subprocess.PIPE, text=True
        ) as daemon,
    ):
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline().startswith("ready")
            acquire(sender)
            assert daemon.wait(90) == 0
        finally:
            daemon.kill()
    (summary,) = out.glob("series_*/summary.json")
    said = json.loads(summary.read_text())
    assert said["n_announced"] == N_FRAMES
    assert said["counts"]["hit"] + said["counts"]["miss"] == N_FRAMES
