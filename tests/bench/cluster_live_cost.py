"""What a live run over three Ray nodes costs beside the plain daemon, in core time a frame.

    python -m tests.bench.cluster_live_cost [FRAMES]

Small frames (256 x 288), so that what is not decoding and judging shows. Both runs are fed as fast
as they take frames; core time is that of whole processes, from /proc.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.system.daemon import Daemon, Detector, wait_for
from tests.system.frames import changed, wire_series
from tests.system.ray_nodes import three_nodes
from tests.system.test_cluster_live import Run, commands

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
IDLE_S = 20.0
LIMIT_S = 500.0


def spent(jobs: dict[str, list[int]]) -> dict[str, float]:
    """Return job -> seconds of core time so far of its processes."""
    found: dict[str, float] = defaultdict(float)
    for job, pids in jobs.items():
        for pid in pids:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[job] += (int(words[11]) + int(words[12])) * TICK_S
    return dict(found)


def marked(mark: str) -> list[int]:
    """Return the processes whose command line holds a text."""
    return [pid for pid, words in commands() if mark in " ".join(words)]


def fed(run: Daemon, detector: Detector, n_frames: int, number: int) -> None:
    """Send a series of so many frames, and wait for its end."""
    series = wire_series("v2", number, 50, uid=f"UID{number}")
    detector.send(changed(series.start, number_of_images=n_frames))
    for frame in range(n_frames):
        detector.send(changed(series.images[frame % len(series.images)], image_id=frame))
    detector.send(series.end)
    wait_for(
        lambda: any(t == "series.end" and m["series"] == number for t, m in run.results),
        "the end",
        LIMIT_S,
    )
    (end,) = [m for t, m in run.results if t == "series.end" and m["series"] == number]
    assert end["miss"] + end["hit"] == n_frames, end


def measure(run: Daemon, detector: Detector, n_frames: int, jobs: dict[str, list[int]]) -> None:
    """Print core-ms a frame by job, and what the jobs take while nothing comes."""
    fed(run, detector, 200, 1)
    before, begun_s = spent(jobs), time.monotonic()
    fed(run, detector, n_frames, 2)
    after, over_s = spent(jobs), time.monotonic()
    wait_for(lambda: time.monotonic() - over_s > IDLE_S, "an idle time", 2 * IDLE_S)
    idle, idle_s = spent(jobs), time.monotonic() - over_s
    total = 0.0
    for job in sorted(after):
        ms = 1e3 * (after[job] - before.get(job, 0.0)) / n_frames
        rest = 1e2 * (idle.get(job, 0.0) - after[job]) / idle_s
        total += ms
        print(f"| {job} | {ms:.3f} | {rest:.1f} % |")
    print(f"| all | {total:.3f} | {n_frames / (over_s - begun_s):.0f} frames/s |", flush=True)


def main() -> None:
    """Run both."""
    n_frames = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    folder = Path(tempfile.mkdtemp(prefix="cost-"))
    print(f"| job | core-ms a frame, {n_frames} frames | idle, of one core |\n|---|---|---|")
    with Detector() as detector:
        with Daemon(folder / "one", "run", "--source", detector.endpoint) as one:
            one.wait_ready()
            measure(one, detector, n_frames, {"plain daemon": marked(str(folder / "one"))})
        with three_nodes() as nodes, Run(folder / "three", nodes.address, detector) as three:
            three.wait_ready()
            three.wait_connected()
            hosts = [host["name"] for host in three.status["hosts"]]
            jobs = {
                "three daemons": [p for h in hosts for p in three.processes_of(h).values()],
                "collector": [three.process.pid],
                "three host actors": marked("ray::Host"),
                "keeper": marked("ray::SeriesKeeper"),
                "Ray's own": marked(nodes.address.partition(":")[2]),
            }
            jobs["Ray's own"] = [p for p in jobs["Ray's own"] if p != three.process.pid]
            measure(three, detector, n_frames, jobs)
            three.terminate()


if __name__ == "__main__":
    main()
