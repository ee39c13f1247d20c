"""What a replay over a cluster costs a frame beside the plain one, and what a second judge gains.

Run: `python -m tests.bench.cluster OUT --frames 240 --rounds 3`. Core time is a difference over
the middle of each replay: the daemon's processes, the judges, Ray's own. Plain, one judge and two
judges take turns, so that they share what else the machine does; a memcpy is timed beside each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import hdf5plugin
import zmq
from tests.system.ray_nodes import three_nodes

from hitfinder.workers.bench_frames import BenchFrames, FrameMix, Memcpy
from hitfinder.workers.processes import PROC, jobs_of, stat_fields
from hitfinder.workers.spent import spent_by_job

N_SERIES = 4
MIDDLE = (0.35, 0.85)
SHAPE = (2162, 2068)
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
RAY = {"raylet", "gcs_server", "agent.py", "dashboard_agent", "runtime_env_agent"}


def recordings(folder: Path, n_frames: int) -> list[Path]:
    """Write series of 4M frames, packed, one in five a hit."""
    frames = BenchFrames(SHAPE, FrameMix())
    paths = []
    for number in range(1, N_SERIES + 1):
        paths.append(folder / f"run{number}.h5")
        with h5py.File(paths[-1], "w") as file:
            packed = hdf5plugin.Bitshuffle(cname="lz4")
            images = file.create_dataset(
                "entry/data/data", (n_frames, *SHAPE), "uint16", chunks=(1, *SHAPE), **packed
            )
            for row in range(n_frames):
                blob = frames.images[row % len(frames.images)].payload
                images.id.write_direct_chunk((row, 0, 0), bytes(blob))
    return paths


def core_s(root: int) -> dict[tuple[str, int], float]:
    """Return core seconds so far by (job, process): the daemon's as 0, the judges', Ray's."""
    spent = {(job, 0): one.core_s for job, one in spent_by_job(root).items()}
    for pid in jobs_of(os.getpid()):
        try:
            line = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
            fields = stat_fields(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        own_s = TICK_S * (int(fields[11]) + int(fields[12]))
        if line.startswith("ray::_Hosted"):
            spent["judges", pid] = own_s
        elif any(name in line for name in RAY) and "ray" in line:
            spent["ray", pid] = own_s
    return spent


def wanted_s(job: str = "ray::_Hosted") -> dict[tuple[int, str], float]:
    """Return by (judge, thread) the seconds so far in which it ran or waited for a core.

    On a machine that other work keeps busy this, not the rate, says whether judges starve.
    """
    found = {}
    for pid in jobs_of(os.getpid()):
        try:
            if (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").startswith(job):
                for thread in (PROC / str(pid) / "task").iterdir():
                    ran_ns, waited_ns, _ = map(int, (thread / "schedstat").read_text().split())
                    found[pid, thread.name] = 1e-9 * (ran_ns + waited_ns)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def replayed(paths: list[Path], options: list[str], copy: Memcpy) -> dict[str, Any]:
    """Replay once; return frames/s and core-ms a frame by process, and the memcpy beside it."""
    n_all = sum(_n_frames(path) for path in paths)
    with tempfile.TemporaryDirectory() as out, zmq.Context() as context:
        with context.socket(zmq.SUB) as sub:
            sub.set(zmq.SUBSCRIBE, b"result.")
            sub.set(zmq.RCVHWM, 0)
            port = sub.bind_to_random_port("tcp://127.0.0.1")  # only to find a free one
            sub.unbind(f"tcp://127.0.0.1:{port}")
            sub.connect(f"tcp://127.0.0.1:{port}")
            line = [sys.executable, "-m", "hitfinder.workers.cli", "replay", *map(str, paths)]
            line += ["--out", out, "--results", f"tcp://127.0.0.1:{port}", *options]
            daemon = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            marks, copies = [], []
            for n in range(1, n_all + 1):
                if not sub.poll(120_000):
                    raise RuntimeError(f"silent after {n} frames")
                sub.recv_multipart()
                if n in (round(MIDDLE[0] * n_all), round(MIDDLE[1] * n_all)):
                    marks.append((n, time.monotonic(), core_s(daemon.pid), wanted_s()))
                if n % 16 == 0:
                    begin_s = time.thread_time()
                    copy(n)
                    copies.append(1e3 * (time.thread_time() - begin_s))
            daemon.wait(60)
    (n0, t0, spent0, wanted0), (n1, t1, spent1, wanted1) = marks
    by_job: dict[str, float] = {}
    for (job, pid), s in spent1.items():
        since_s = s - spent0.get((job, pid), 0.0)
        by_job[job] = by_job.get(job, 0.0) + 1e3 * since_s / (n1 - n0)
    busy: dict[int, float] = {}
    for (pid, thread), s in wanted1.items():
        share = (s - wanted0.get((pid, thread), 0.0)) / (t1 - t0)
        busy[pid] = max(busy.get(pid, 0.0), share)
    return {
        "judges_busy": [round(share, 3) for share in busy.values()],
        "frames_per_s": (n1 - n0) / (t1 - t0),
        "core_ms": sum(by_job.values()),
        "by_process": by_job,
        "memcpy_ms": median(copies),
        "load": os.getloadavg()[0],
    }


def _n_frames(path: Path) -> int:
    with h5py.File(path) as file:
        return int(file["entry/data/data"].shape[0])


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=240, help="a series")
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    copy = Memcpy(BenchFrames(SHAPE, FrameMix(), 1).memory())
    found: dict[str, list[dict[str, Any]]] = {"plain": [], "one judge": [], "two judges": []}
    with tempfile.TemporaryDirectory() as folder, three_nodes() as nodes:
        paths = recordings(Path(folder), said.frames)
        on = ["--cluster", nodes.address, "--device"]
        for _ in range(said.rounds):
            for name, options in (
                ("plain", ["--device", "cpu:1"]),
                ("one judge", [*on, "cpu:1"]),
                ("two judges", [*on, "cpu:2"]),
            ):
                found[name].append(replayed(paths, options, copy))
                print(name, json.dumps(found[name][-1]), flush=True)
    (said.out / "cluster.json").write_text(json.dumps(found, indent=1))
    for name, rounds in found.items():
        figures = {
            key: round(median(one[key] for one in rounds), 2)
            for key in ("frames_per_s", "core_ms", "memcpy_ms")
        }
        print(name, figures, f"{figures['core_ms'] / figures['memcpy_ms']:.2f} memcpys")


if __name__ == "__main__":
    main()
