"""`make demo`: a simulated detector, the daemon, a subscriber; then a table, a picture, the files.

One rule: it uses what any user uses, the two commands and the results topic, and compares with
the simulator's truth only afterwards. Exit 1 if a frame is unaccounted for, so it is a check, too.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from hitfinder import HitfinderError
from hitfinder.workers.config import ConfigError
from hitfinder.workers.daemon_process import DaemonProcess
from hitfinder.workers.demo_picture import draw_picture
from hitfinder.workers.demo_summary import Frame, Series, print_summary, unaccounted

# The folder is replaced at each demo, so only one that a demo made.
MARKER = ".made-by-hitfinder-demo"
N_SERIES = 9
STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What is shown.

    Attributes:
        out: folder for everything; replaced if a demo made it.
        frames: of each of the nine series, one a data set.
        rate_Hz: frames a second.
        within_s: after this time without a message something is wrong.
    """

    out: Path = Path("demo-out")
    frames: int = 20
    rate_Hz: float = 15.0
    hit_fraction: float = 0.3
    seed: int = 5
    within_s: float = 60.0


@dataclass(slots=True)
class Heard:
    """What the subscriber was told."""

    results: list[dict[str, Any]] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)


def demo(options: DemoOptions, console: Console) -> int:
    """Run the demo; returns 0 if everything adds up, else 1.

    Raises:
        ConfigError: the folder is not a demo's.
        DaemonError: the daemon did not run.
    """
    began_s = time.monotonic()
    _make_folder(options.out)
    source = f"tcp://127.0.0.1:{_free_port()}"
    arguments = ("--device", "cpu", "--max-series", str(N_SERIES))
    console.print("Starting the daemon (a receiver, a worker, a sink, their supervisor) ...")
    with DaemonProcess(source, options.out, arguments) as daemon:
        daemon.wait_ready()
        started = f"  hitfinder-stream run --source {source} --out {options.out}"
        console.print(started, highlight=False, soft_wrap=True)
        with _simulator(options, source, console) as simulator:
            heard = _listen(daemon, simulator, options, console)
            statuses = {"the simulator": simulator.wait(STOP_S), "the daemon": daemon.wait()}
    frames = _with_truth(heard, options)
    series = [Series.of(end, frames) for end in sorted(heard.ends, key=lambda e: e["series"])]
    picture = draw_picture(options.out, frames, series)
    print_summary(console, options.out, picture, frames, series)
    problems = unaccounted(options.out, options.frames * N_SERIES, frames, series, statuses)
    for problem in problems:
        console.print(f"[bold red]wrong:[/] {problem}")
    console.print(f"\n{time.monotonic() - began_s:.0f} s in all.", highlight=False)
    return 1 if problems else 0


@contextmanager
def _simulator(
    options: DemoOptions, source: str, console: Console
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `hitfinder-stream simulate` meanwhile."""
    settings = (
        f"--dataset all --frames {options.frames} --rate {options.rate_Hz:g} "
        f"--hit-fraction {options.hit_fraction:g} --seed {options.seed}"
    )
    truth = options.out / "truth.jsonl"
    console.print("Starting a simulated EIGER2 4M: nine series, 6 to 8 keV, 0.15 to 0.35 m ...")
    console.print(
        f"  hitfinder-stream simulate --bind {source} {settings} --truth {truth}",
        highlight=False,
        soft_wrap=True,
    )
    command = [sys.executable, "-m", "hitfinder.workers.cli", "simulate", "--bind", source]
    with (options.out / "simulator.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *settings.split(), "--truth", str(truth)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(STOP_S)


def _listen(
    daemon: DaemonProcess,
    simulator: subprocess.Popen[bytes],
    options: DemoOptions,
    console: Console,
) -> Heard:
    """Take down what is published until all series have ended."""
    heard, n_hits, last_s = Heard(), 0, time.monotonic()
    columns = (TextColumn("  judged"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as progress:
        bar = progress.add_task("", total=options.frames * N_SERIES, note="")
        while len(heard.ends) < N_SERIES:
            for topic, message in daemon.messages(1.0):
                if topic.startswith("result."):
                    heard.results.append(message)
                    n_hits += message["outcome"] == "hit"
                    progress.update(bar, advance=1, note=f"{n_hits} hits")
                elif topic == "series.end":
                    heard.ends.append(message)
                    if len(heard.ends) == N_SERIES:
                        break
                if topic != "status":
                    last_s = time.monotonic()
            if simulator.poll():
                log = (options.out / "simulator.log").read_text(errors="replace")
                raise HitfinderError(f"the simulator failed; its log ends:\n{log[-800:]}")
            if time.monotonic() - last_s > options.within_s:
                raise daemon.failure(f"silent for {options.within_s:.0f} s")
    return heard


def _with_truth(heard: Heard, options: DemoOptions) -> list[Frame]:
    """Return every verdict beside what was true, in the order of reception."""
    lines = (options.out / "truth.jsonl").read_text().splitlines()
    truth = {(t["series"], t["frame"]): t for t in map(json.loads, lines)}
    folders = {end["series"]: end["folder"] for end in heard.ends}
    frames = [
        Frame.of(record, truth[record["series"], record["frame"]], folders[record["series"]])
        for record in heard.results
    ]
    return sorted(frames, key=lambda f: (f.series, f.frame))


def _make_folder(out: Path) -> None:
    if out.exists():
        if not (out / MARKER).exists():
            raise ConfigError(f"{out} is there and no demo made it; move it away")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    (out / MARKER).write_text("The next demo replaces this folder.\n")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main() -> int:
    """Run the demo with its defaults; returns the exit status."""
    try:
        return demo(DemoOptions(), Console())
    except ConfigError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except HitfinderError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
