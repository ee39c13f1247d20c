"""What the files of deploy/ are held against: the program's own parser, and a running daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from tests.system.daemon import Daemon, Detector, running, wait_for
from tests.system.frames import WireSeries, wire_series

from hitfinder.workers.cli import app
from hitfinder.workers.cli_app import check_endpoint

DEPLOY = Path(__file__).parents[2] / "deploy"
N_FRAMES = 80


@pytest.fixture(scope="session")
def deploy() -> Path:
    """Return the folder under test."""
    return DEPLOY


@pytest.fixture(scope="session")
def parses() -> Callable[[list[str]], dict[str, object]]:
    """Return `parses(words)`: what the program understands of `hitfinder-stream words...`.

    It fails as the program does, on an unknown sub-command or option, a missing one, a wrong
    value or a source that is no endpoint; nothing is run.
    """
    program = typer.main.get_command(app)

    def understood(words: list[str]) -> dict[str, object]:
        name, *arguments = words
        command = program.commands[name]  # type: ignore[attr-defined]
        context = command.make_context(name, arguments)
        for endpoint in context.params.get("source") or ():
            check_endpoint(endpoint)
        return dict(context.params)

    return understood


def log_of_a_run(command: list[str], detector: Detector, log: Path, **settings: str) -> str:
    """Start a daemon by `command`, have it judge a series, tell it to stop; return its words.

    Fails unless it exits with 0.

    Args:
        settings: added to the environment.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    with log.open("w") as to:
        process = subprocess.Popen(command, stdout=to, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_for(lambda: "ready source=" in log.read_text() or process.poll() is not None, "ready")
        series = wire_series("v2", 1, 20)
        detector.send(series.start, *series.images, series.end)
        wait_for(
            lambda: "series 1 closed" in log.read_text() or process.poll() is not None, "the end"
        )
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: process.poll() is not None, "exit")
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log.read_text()
    return log.read_text()


@dataclass
class Beamline:
    """A daemon at work, and the detector it listens to.

    Attributes:
        n_series: series sent so far; the last one stays open.
    """

    daemon: Daemon
    detector: Detector
    n_series: int = 0
    sent: dict[int, WireSeries] = field(default_factory=dict)

    def send_series(self) -> None:
        """Send one more series of frames with and without spots, and no end."""
        self.n_series += 1
        series = wire_series("v2", self.n_series, N_FRAMES, has_spots=True)
        self.sent[self.n_series] = series
        self.detector.send(series.start, *series.images[:-1])

    def page(self, path: str) -> str:
        """Return a page of the daemon's status server."""
        with urllib.request.urlopen(f"http://{self.daemon.http}{path}", timeout=20) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="session")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beamline]:
    """Yield a daemon that has judged a series, still open, and knows what it says as a whole."""
    with Detector() as detector, running(tmp_path_factory.mktemp("run"), detector) as daemon:
        at_work = Beamline(daemon, detector)
        at_work.send_series()
        said = ("hitfinder_series_photon_energy_eV{", "hitfinder_latency_seconds{")
        wait_for(
            lambda: all(name in at_work.page("/metrics") for name in said),
            f"what the series says as a whole; log ends {daemon.log[-400:]}",
        )
        yield at_work
