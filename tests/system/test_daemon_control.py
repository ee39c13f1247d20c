"""A change in a running series: each frame is judged by what holds for its number."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import h5py
import pytest
from tests.system.daemon import Detector, command, kept_images, running
from tests.system.frames import wire_series

pytestmark = pytest.mark.system

N_FRAMES, N_BEFORE, N_SLOTS = 80, 30, 16
TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Return a file with the token."""
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


def config(token_file: Path) -> str:
    return (
        f'[http]\ntoken_file = "{token_file}"\n[ring]\nslots = {N_SLOTS}\nwhen_full = "block"\n'
        "[sink]\nmiss_sample_fraction = 0.0\n"
    )


def test_a_threshold_holds_from_its_frame_on_in_ledger_and_topic(
    tmp_path: Path, token_file: Path
) -> None:
    series = wire_series("v2", 1, N_FRAMES, has_spots=True)
    with Detector() as detector:
        with running(tmp_path / "run", detector, config=config(token_file)) as daemon:
            detector.send(series.start, *series.images[:N_BEFORE])
            daemon.wait_status(lambda s: sum(s["counts"].values()) == N_BEFORE, "the first part")
            arguments = ("--http", daemon.http, "--token-file", str(token_file))
            done = command("set", "threshold=0.25", *arguments)
            assert done.returncode == 0, done.stderr
            begins = N_BEFORE + N_SLOTS
            assert done.stdout.startswith(f"from frame {begins} of series 1 on: threshold 0.25")
            detector.send(*series.images[N_BEFORE:], series.end)
            closed = daemon.closed(1)
            status = daemon.wait_status(lambda s: bool(s["changes"]), "the change in status")
    assert closed.counts.get("lost", 0) == closed.counts.get("missing", 0) == 0
    thresholds = {frame: record["threshold"] for frame, record in closed.records.items()}
    (configured,) = {thresholds[frame] for frame in range(begins)}
    assert configured != 0.25
    assert {thresholds[frame] for frame in range(begins, N_FRAMES)} == {0.25}
    for record in closed.records.values():
        assert (record["p_hit"] > record["threshold"]) == (record["outcome"] == "hit")
    with h5py.File(closed.folder / "ledger.h5") as file:
        rows = file["ledger"][:]
    assert dict(zip(rows["frame"].tolist(), rows["threshold"].tolist(), strict=True)) == thresholds
    change = {"frame": begins, "threshold": 0.25, "miss_sample_fraction": None}
    assert status["changes"] == [{"series": 1, **change}]
    summary = json.loads((closed.folder / "summary.json").read_text())
    assert summary["extra"]["changes"] == [change]


def test_a_killed_worker_and_sink_lose_no_change(tmp_path: Path, token_file: Path) -> None:
    series = wire_series("v2", 1, N_FRAMES, has_spots=True)
    with Detector() as detector:
        with running(tmp_path / "run", detector, config=config(token_file)) as daemon:
            arguments = ("--http", daemon.http, "--token-file", str(token_file))
            changes = ("threshold=0.25", "miss_sample_fraction=1")
            done = command("set", *changes, *arguments)
            assert done.stdout.startswith("from frame 0 of the next series on"), done.stderr
            detector.send(series.start, *series.images[:N_BEFORE])
            daemon.wait_status(lambda s: sum(s["counts"].values()) == N_BEFORE, "the first part")
            for name in ("worker", "sink"):
                os.kill(daemon.children()[name], signal.SIGKILL)
            detector.send(*series.images[N_BEFORE:], series.end)
            closed = daemon.closed(1)
            status = daemon.status
    assert {record["threshold"] for record in closed.records.values()} == {0.25}
    assert "child_restarting" in {alarm["name"] for alarm in status["alarms"]}
    # Every miss was asked for.
    assert sorted(kept_images(closed.folder)) == list(range(N_FRAMES))


def test_who_has_no_token_changes_nothing(tmp_path: Path, token_file: Path) -> None:
    other = tmp_path / "other"
    other.write_text("fedcba9876543210fedcba9876543210")
    with Detector() as detector:
        with running(tmp_path / "run", detector, config=config(token_file)) as daemon:
            arguments = ("--http", daemon.http, "--token-file", str(other))
            refused = command("set", "threshold=0.25", *arguments)
            assert refused.returncode == 1
            assert "wrong token" in refused.stderr
            wrong = command("set", "threshold", *arguments)
            assert wrong.returncode == 2
            status = daemon.wait_status(lambda s: True, "a status")
    assert status["changes"] == []
    nobody = command("set", "threshold=0.25", *arguments)
    assert nobody.returncode == 1
    assert "no daemon answers" in nobody.stderr
