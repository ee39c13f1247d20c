"""The daemon told to stop, and its processes killed: one verdict for each frame all the same.

A killed child takes nothing with it, and a device that fails for a while costs time, not frames.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.system.daemon import Closed, Daemon, Detector, command, running, wait_for
from tests.system.frames import WireSeries, wire_series

pytestmark = pytest.mark.system

N_FRAMES = 400
# Put before a worker's own code: its device fails while a file is there.
FAILING_DEVICE = """
import sys
from pathlib import Path
if {"hitfinder.workers.child", "worker"} <= set(sys.orig_argv):
    from hitfinder.models.pipeline import Pipeline
    judge = Pipeline.judge
    def judge_or_fail(*arguments, **named):
        if Path(__file__).with_name("fails").exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return judge(*arguments, **named)
    Pipeline.judge = judge_or_fail
"""
HOT_PIXELS = [700, 3000, 5555, 9000, 12345]
# Paced so that the series still runs while a killed child's successor starts.
PAUSE_S = 0.02


class Sending:
    """A series on its way from a thread of its own, at a detector's pace."""

    def __init__(self, detector: Detector, series: WireSeries) -> None:
        self.n_sent = 0
        self._detector, self._series = detector, series
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def start(self) -> None:
        """Begin with the header."""
        self._thread.start()

    def finish(self) -> None:
        """Return once the end message is with ZMQ."""
        self._thread.join()

    def cut_off(self) -> None:
        """Send no more."""
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        for message in self._series.messages:
            while not self._detector.offer(message):
                if self._stop.is_set():
                    return
            self.n_sent += 1
            if self._stop.wait(PAUSE_S):
                return


@pytest.fixture(scope="module")
def series() -> WireSeries:
    return wire_series("v2", 1, N_FRAMES, shape=(128, 128), hot_pixels=HOT_PIXELS)


@contextmanager
def under_way(series: WireSeries, detector: Detector, daemon: Daemon) -> Iterator[Sending]:
    """Yield once the first frames have their verdicts."""
    sending = Sending(detector, series)
    sending.start()
    try:
        wait_for(lambda: len(daemon.records) >= 20, "the first verdicts")
        yield sending
    finally:
        sending.cut_off()


@pytest.fixture
def detector() -> Iterator[Detector]:
    with Detector() as opened:
        yield opened


def test_sigterm_in_a_series_gives_each_announced_frame_its_verdict(tmp_path, series, detector):
    with running(tmp_path, detector) as daemon:
        with under_way(series, detector, daemon) as sending:
            n_sent = sending.n_sent
            assert daemon.terminate() == 0, daemon.log
        closed = daemon.closed(1)
        assert closed.end["announced"] == N_FRAMES
        assert closed.n_judged >= n_sent - 1  # its header
        assert set(closed.counts) <= {"hit", "miss", "missing"}
        assert closed.end["reason"] == "stopped"
        assert daemon.runtime_files == []
    checked = command("check", str(daemon.out))
    assert checked.returncode == 0, checked.stdout


@pytest.fixture
def device_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file; while it is there the workers of daemons started from now on fail."""
    folder = tmp_path / "device"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAILING_DEVICE)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ.get('PYTHONPATH', '')}")
    return folder / "fails"


def test_killed_children_and_a_failing_device_cost_no_verdict(
    tmp_path, series, detector, device_fails
):
    with running(tmp_path / "daemon", detector) as daemon:
        with under_way(series, detector, daemon) as sending:
            for name in ("sink", "receiver"):
                n_before = len(daemon.records)
                victim = daemon.children()[name]
                os.kill(victim, signal.SIGKILL)
                wait_for(
                    lambda name=name, victim=victim: daemon.children().get(name, victim) != victim,
                    f"a new {name}",
                )
                wait_for(
                    lambda n=n_before: len(daemon.records) >= n + 20, f"verdicts after the {name}"
                )
            device_fails.touch()
            # The first dies at a frame, its successor at its rehearsal: no frame is tried again.
            status = daemon.wait_status(lambda s: worker_of(s)["starts"] >= 3, "two deaths")
            assert "RuntimeError: CUDA error: an illegal memory" in worker_of(status)["last_exit"]
            device_fails.unlink()
            sending.finish()
        closed = daemon.closed(1)
        assert closed.n_judged == closed.end["announced"] == N_FRAMES
        assert_hot_pixels_are_known(closed)
        status = daemon.wait_status(lambda s: True, "")
        assert status["n_hot_pixels"] == len(HOT_PIXELS)
        starts = {c["name"]: c["starts"] for c in status["children"]}
        assert starts["receiver"] == starts["sink"] == 2
        assert_may_die_at_the_end_of_a_series(daemon, detector, wire_series("v1", 2, 60), "worker")
        assert_may_die_at_the_end_of_a_series(daemon, detector, wire_series("v1", 3, 60), "sink")
        assert daemon.terminate() == 0, daemon.log
    assert "worker died (exit 1: RuntimeError: CUDA error: an illegal memory" in daemon.log
    checked = command("check", str(daemon.out))
    assert checked.returncode == 0, checked.stdout


def assert_may_die_at_the_end_of_a_series(
    daemon: Daemon, detector: Detector, series: WireSeries, name: str
) -> None:
    """Kill a child before the end message comes, and check that all was judged."""
    n_before = len(daemon.records)
    detector.send(series.start, *series.images)
    wait_for(lambda: len(daemon.records) >= n_before + 10, "the first verdicts")
    os.kill(daemon.children()[name], signal.SIGKILL)
    detector.send(series.end)
    closed = daemon.closed(series.number)
    assert closed.n_judged == closed.end["announced"] == len(series.images)


def worker_of(status: dict[str, Any]) -> dict[str, Any]:
    """Return what a status says of the worker."""
    return next(child for child in status["children"] if child["name"] == "worker")


def test_a_killed_supervisor_leaves_no_child_and_readable_files(tmp_path, series, detector):
    with running(tmp_path, detector) as daemon:
        with under_way(series, detector, daemon) as sending:
            os.kill(daemon.process.pid, signal.SIGKILL)
            daemon.process.wait()
            wait_for(lambda: not daemon.orphans(), "the children's end", 10.0)
            assert sending.n_sent < N_FRAMES
        judged = {r["frame"]: r["outcome"] for r in daemon.records}
    (folder,) = daemon.out.iterdir()
    repaired = command("check", str(daemon.out), "--repair", "--rejudge")
    assert repaired.returncode == 0, repaired.stdout
    assert "kept frames judged again: all as stamped" in repaired.stdout
    ledger = ledger_of(folder)
    assert sorted(ledger) == list(range(N_FRAMES))
    assert {frame: ledger[frame] for frame in judged} == judged
    again = command("check", str(daemon.out))
    assert again.returncode == 0, again.stdout


def assert_hot_pixels_are_known(closed: Closed) -> None:
    """Check that files name what was learned, once, by the killed worker and its successor."""
    summary = json.loads((closed.folder / "summary.json").read_text())
    assert summary["learned"]["n_hot"] == len(HOT_PIXELS)
    assert 7 < summary["learned"]["n_judged_before_known"] < 20
    with h5py.File(closed.folder / "ledger.h5") as file:
        rows, entries = file["ledger"][:], file["learned/worker0"][:]
    assert sorted(entries["pixel"][entries["kind"] == b"hot"]) == HOT_PIXELS
    judged = rows[rows["learned_by"] == 0]
    assert len(judged) == closed.n_judged
    assert judged["n_learned"][0] == 0
    assert judged["n_learned"][-1] == len(entries)
    assert (np.diff(judged["n_learned"]) >= 0).all()


def ledger_of(folder: Path) -> dict[int, str]:
    """Return frame -> outcome of a ledger, one row a frame."""
    with h5py.File(folder / "ledger.h5") as file:
        rows = file["ledger"][:]
    assert len(set(rows["frame"].tolist())) == len(rows)
    return {int(r["frame"]): r["outcome"].decode() for r in rows}
