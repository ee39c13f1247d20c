"""Our judging and the peers' peak finding on the same frames in the same minutes.

    python tests/bench/peers.py N [EXTENSION.so ...]

Frames are bench's: nine data sets, one in five a hit, decoded. Peers run as programs of their own
(`peakfinder8.py`); each tells its core time as a multiple of the memcpy beside it. An extension
that does not load is said so. What is compared: our gate, positions, energy and camera length of a
decoded frame against finding peaks in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from hitfinder.sim.physics import Detector
from hitfinder.stream import bslz4, wire
from hitfinder.stream.messages import Frame
from hitfinder.workers.bench_frames import BenchFrames, FrameMix
from hitfinder.workers.bench_stages import SLOTS, measure_stages

OURS = ("pool 4 x 4 alone", "judge a blank", "judge a hit")


def main(n: int, extensions: list[str]) -> None:
    """Measure ours, the peers, and ours again."""
    detector = Detector()
    frames = BenchFrames(detector.shape, FrameMix(), SLOTS)
    images = []
    for k in range(SLOTS):
        message = wire.decode(frames.message(k, "v2"))
        if isinstance(message, Frame):
            images.append(bslz4.decode(message.blobs[0]))
    y, x = np.indices(detector.shape)
    radius_px = np.hypot(x - detector.center_px[0], y - detector.center_px[1])
    print_ours(frames, n)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.npz"
        np.savez(file, frames=np.stack(images), mask=~detector.gap_mask, radius_px=radius_px)
        for extension in extensions:
            program = Path(__file__).with_name("peakfinder8.py")
            command = [sys.executable, str(program), extension, str(file), str(n)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{extension}: {done.stderr.strip().splitlines()[-1]}")
                continue
            for peer in json.loads(done.stdout):
                hits, blanks = (
                    float(np.median([m for k, m in enumerate(peer["peaks"]) if is_hit(k) == want]))
                    for want in (True, False)
                )
                print_line(peer["name"], peer["ms"], peer["ms"] / peer["memcpy_ms"])
                print(f"    peaks, median of hits {hits:.0f}, of blanks {blanks:.0f}")
    print_ours(frames, n)


def is_hit(k: int) -> bool:
    """Say whether turn `k` showed a hit."""
    return FrameMix().is_hit(k % SLOTS)


def print_ours(frames: BenchFrames, n: int) -> None:
    """Measure and print what ours takes of a decoded frame."""
    for stage in measure_stages(frames, n, "cpu"):
        if stage.stage.startswith(OURS):
            print_line(f"hitfinder-stream: {stage.stage}", stage.ms, stage.x_memcpy)


def print_line(name: str, ms: float, x_memcpy: float) -> None:
    """Print one line of the table."""
    print(f"{name:50} {ms:8.2f} ms {x_memcpy:7.1f} x memcpy", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
