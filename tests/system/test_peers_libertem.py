"""LiberTEM's V1 receiver takes our stream, and we take its V1 sender's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import zmq

from hitfinder.sim import stream_v1
from hitfinder.sim.detector import DetectorConfig, Series, exposure_times
from hitfinder.sim.encoding import Encoder
from hitfinder.stream import bslz4, wire
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Frame, SeriesEnd, SeriesStart
from hitfinder.stream.recordings import open_recordings

pytestmark = pytest.mark.system

PEER = Path(__file__).with_name("libertem_peer.py")
CHILD_LIMIT_S = 30
SHAPE = (64, 96)


@contextmanager
def peer(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, str(PEER), *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@contextmanager
def socket(kind: int) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as opened:
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.RCVTIMEO, CHILD_LIMIT_S * 1000)
        opened.setsockopt(zmq.SNDTIMEO, CHILD_LIMIT_S * 1000)
        yield opened


def messages_of_its_sender() -> list[list[bytes]]:
    with peer("send") as child, socket(zmq.PULL) as pull:
        assert child.stdout is not None
        pull.connect(child.stdout.readline().strip())
        messages = [pull.recv_multipart()]
        while b"dseries_end-1.0" not in messages[-1][0]:
            messages.append(pull.recv_multipart())
        assert child.wait(CHILD_LIMIT_S) == 0
    return messages


def judged_by_the_daemon(endpoint: str, out: Path) -> Path:
    """Run the daemon for one series and return its folder."""
    (out / "config.toml").write_text(
        "[source]\nlenient = true\n[sink]\nmiss_sample_fraction = 1.0\n"
    )
    command = [str(Path(sys.executable).with_name("hitfinder-stream")), "run"]
    command += ["--source", endpoint, "--out", str(out), "--config", str(out / "config.toml")]
    command += ["--results", "tcp://127.0.0.1:*", "--http", "127.0.0.1:0"]
    command += ["--device", "cpu", "--max-series", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    (folder,) = out.glob("series_*")
    return folder


def test_the_daemon_judges_and_keeps_its_senders_frames(tmp_path):
    with peer("send") as child:
        assert child.stdout is not None
        folder = judged_by_the_daemon(child.stdout.readline().strip(), tmp_path)
    counts = json.loads((folder / "summary.json").read_text())["counts"]
    assert counts["hit"] + counts["miss"] == sum(counts.values()) == 3
    recordings = open_recordings(sorted(folder.glob("*s_000001.h5")))
    kept = [m for r in recordings for m in r.messages() if isinstance(m, Frame)]
    values = {np.unique(bslz4.decode(frame.blobs[0])).tobytes() for frame in kept}
    assert values == {np.uint16(number).tobytes() for number in range(3)}


def test_its_senders_series_is_read_in_lenient_mode_and_refused_in_strict():
    messages = messages_of_its_sender()
    start, stray_config, *images, end = messages  # its header comes as two messages
    assert wire.decode(start).series == 34
    assert isinstance(wire.decode(start), SeriesStart)
    with pytest.raises(WireError, match="htype"):
        wire.decode(stray_config)
    for number, parts in enumerate(images):
        with pytest.raises(WireError, match="lenient") as strict:
            wire.decode(parts)
        assert (strict.value.series, strict.value.frame) == (34, number)
        frame = wire.decode(parts, lenient=True)
        assert isinstance(frame, Frame)
        pixels = bslz4.decode(frame.blobs[0])
        assert np.array_equal(pixels, np.full((512, 512), number, np.uint16))
    assert len(images) == 3
    assert wire.decode(end) == SeriesEnd(34)


@pytest.mark.parametrize("compression", ["bslz4", "lz4"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_its_receiver_gets_the_pixels_that_we_send(tmp_path, dtype, compression):
    config = DetectorConfig(
        shape=SHAPE, dtype=dtype, compression=compression, n_trigger=5, trigger_mode="exte"
    )
    armed = datetime(2024, 1, 1, tzinfo=UTC)
    series = Series(7, "01HBV3JPF9T4ZDPADX6EMK6XMZ", armed, armed)
    frames = np.random.default_rng(1).poisson(3.0, (5, *SHAPE)).astype(dtype)
    frames[:, 10] = np.iinfo(dtype).max
    encode = Encoder("v1", compression, dtype)
    out = tmp_path / "received.npy"
    with socket(zmq.PUSH) as push:
        port = push.bind_to_random_port("tcp://127.0.0.1")
        layout = (*map(str, SHAPE), dtype)
        with peer("receive", f"tcp://127.0.0.1:{port}", *layout, str(out)) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            push.send_multipart(stream_v1.start(config, series))
            for number, frame in enumerate(frames):
                times = exposure_times(config, number)
                push.send_multipart(
                    stream_v1.image(config, series, number, [encode(frame)], times)
                )
            push.send_multipart(stream_v1.end(series))
            assert child.wait(CHILD_LIMIT_S) == 0
    received = np.load(out)
    assert received.dtype == dtype
    assert np.array_equal(received, frames)
