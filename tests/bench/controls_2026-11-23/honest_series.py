"""Does any alarm go off on series whose headers are right? Simulated detector, daemon, topic.

    python tests/bench/controls_2026-11-23/honest_series.py SERIES FRAMES RATE_HZ BACKGROUND

Nine data sets in turn, every frame drawn anew, one in five a hit. Every alarm of every `status`
counts, from the first frame to the last; so does a `header_mismatch` in a series' end.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hitfinder.workers.daemon_process import DaemonProcess

CONFIG = '[ring]\nwhen_full = "block"\n'


def main(n_series: int, n_frames: int, rate_Hz: float, background: str) -> None:
    """Send the series; print what was said of them."""
    with tempfile.TemporaryDirectory() as made:
        out = Path(made)
        (out / "config.toml").write_text(CONFIG)
        source = f"ipc://{out}/detector"
        arguments = ("--device", "cpu:1", "--config", str(out / "config.toml"))
        line = [sys.executable, "-m", "hitfinder.workers.cli", "simulate", "--bind", source]
        line += ["--dataset", "all", "--series", str(n_series), "--frames", str(n_frames)]
        line += ["--rate", f"{rate_Hz:g}", "--pool", "0", "--background", background]
        alarms, ends = Counter[str](), []
        with DaemonProcess(source, out / "run", arguments) as daemon:
            daemon.wait_ready()
            with (out / "simulator.log").open("wb") as log:
                simulator = subprocess.Popen(line, stdout=log, stderr=log)
            while len(ends) < n_series:
                for topic, message in daemon.messages(1.0):
                    if topic == "status" and sum(message["counts"].values()):
                        alarms.update({f"{a['name']}: {a['text']}" for a in message["alarms"]})
                    elif topic == "series.end":
                        ends.append(message)
                if simulator.poll() not in (None, 0):
                    raise SystemExit((out / "simulator.log").read_text())
            simulator.wait()
    frames = Counter[str]()
    for end in ends:
        frames.update(
            {o: end[o] for o in ("hit", "miss", "dropped", "corrupt", "lost", "missing")}
        )
    looked = [e for e in ends if (e["posterior"] or {}).get("header_mismatch") is not None]
    wrong = [e["series"] for e in looked if e["posterior"]["header_mismatch"]]
    print(f"{len(ends)} series of {n_frames} frames, background {background}: {dict(frames)}")
    print(
        f"{len(looked)} series had photons enough to look at their header, {len(wrong)} mismatches"
    )
    print(f"alarms in any status: {sum(alarms.values())}")
    for text, n in alarms.most_common():
        print(f"  {n} x {text}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
