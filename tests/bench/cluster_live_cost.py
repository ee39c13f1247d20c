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
from tests.system.frames import wire_series
from tests.system.ray_nodes import three_nodes
from tests.system.test_cluster_live import Run

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
IDLE_S = 20.0
LIMIT_S = 500.0


def spent(marks: dict[str, str]) -> dict[str, float]:
    """Return job -> seconds of core time so far of the processes whose command line tells it."""
    found: dict[str, float] = defaultdict(float)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        job = next((job for mark, job in marks.items() if mark in line), None)
        if job is not None:
            found[job] += (int(words[11]) + int(words[12])) * TICK_S
    return dict(found)


def fed(run: Daemon, detector: Detector, n_frames: int, number: int) -> None:
    """Send a series of so many frames, and wait for its end."""
    series = wire_series("v2", number, 50, uid=f"UID{number}")
    import cbor2

    start = cbor2.loads(series.start[0])
    start["number_of_images"] = n_frames
    detector.send([cbor2.dumps(start)])
    images = [cbor2.loads(parts[0]) for parts in series.images]
    for frame in range(n_frames):
        image = dict(images[frame % len(images)])
        image["image_id"] = frame
        detector.send([cbor2.dumps(image)])
    detector.send(series.end)
    wait_for(
        lambda: any(t == "series.end" and m["series"] == number for t, m in run.results),
        "the end",
        LIMIT_S,
    )
    (end,) = [m for t, m in run.results if t == "series.end" and m["series"] == number]
    assert end["miss"] + end["hit"] == n_frames, end


def measure(run: Daemon, detector: Detector, n_frames: int, marks: dict[str, str]) -> None:
    """Print core-ms a frame by job, and what the jobs take while nothing comes."""
    fed(run, detector, 200, 1)
    before, begun_s = spent(marks), time.monotonic()
    fed(run, detector, n_frames, 2)
    after, over_s = spent(marks), time.monotonic()
    wait_for(lambda: time.monotonic() - over_s > IDLE_S, "an idle time", 2 * IDLE_S)
    idle, idle_s = spent(marks), time.monotonic() - over_s
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
            mark = str(folder / "one")
            measure(one, detector, n_frames, {mark: "plain daemon"})
        with three_nodes() as nodes, Run(folder / "three", nodes.address, detector) as three:
            three.wait_ready()
            three.wait_connected()
            hosts = str(three.out / "hosts")
            marks = {
                hosts: "three daemons",
                "hitfinder-": "three daemons",
                "--cluster": "collector",
                "ray::Host": "three host actors",
                "ray::SeriesKeeper": "keeper",
                "raylet/raylet": "Ray: node processes",
                "gcs_server": "Ray: head",
            }
            measure(three, detector, n_frames, marks)
            three.terminate()


if __name__ == "__main__":
    main()
