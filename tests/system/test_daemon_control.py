"""A change in a running series: each frame is judged by what holds for its number."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from dataclasses import replace
from operator import length_hint
from pathlib import Path
from subprocess import PIPE, Popen

import h5py
import numpy as np
import pytest
from tests.system.daemon import PROGRAM, Detector, command, kept_images, running
from tests.system.frames import SHAPE, wire_series

from hitfinder.models import weights
from hitfinder.workers.rejudge import rejudge_run

pytestmark = pytest.mark.system

N_FRAMES, N_BEFORE, N_SLOTS = 80, 30, 16
N_REPLACED = 120
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
    change |= {"model": None, "mask": None}
    assert status["changes"] == [{"series": 1, **change}]
    summary = json.loads((closed.folder / "summary.json").read_text())
    assert summary["extra"]["changes"] == [change]


def other_model(folder: Path) -> Path:
    """Return weights that call every frame a hit: the shipped ones calibrated otherwise."""
    shipped = weights.load()
    blank_scores = [scores - 1.0 for scores in shipped.calibration.blank_scores]
    calibration = replace(
        shipped.calibration,
        offset=shipped.calibration.offset + 20.0,
        blank_scores=(blank_scores[0], blank_scores[1]),
    )
    path = folder / "other.safetensors"
    return weights.save(path, shipped.net, calibration, shipped.water, {})


def test_model_and_mask_are_replaced_in_a_running_series(tmp_path: Path, token_file: Path) -> None:
    series = wire_series("v2", 1, N_REPLACED, has_spots=True)
    model, mask = other_model(tmp_path), np.ones(SHAPE, np.bool_)
    mask[:, :40] = False
    np.save(tmp_path / "mask.npy", mask)
    images = iter(series.images)

    def send(n: int) -> None:
        """Send so many frames, and wait until they are judged."""
        detector.send(*(next(images) for _ in range(n)))
        sent = N_REPLACED - length_hint(images)
        daemon.wait_status(lambda s: sum(s["counts"].values()) == sent, f"frame {sent}")

    with Detector() as detector:
        line = config(token_file)
        with running(tmp_path / "run", detector, config=line, device="cpu:2") as daemon:
            arguments = ("--http", daemon.http, "--token-file", str(token_file))
            detector.send(series.start)
            send(N_BEFORE)
            done = command("set", "--mask", str(tmp_path / "mask.npy"), *arguments)
            assert done.returncode == 0, done.stderr
            with Popen(
                [PROGRAM, "set", "--model", str(model), "--shadow-frames", "20", *arguments],
                stdout=PIPE,
                text=True,
            ) as changing:
                daemon.wait_status(
                    lambda s: (s["candidate"] or {}).get("step") == "comparing", "a comparison"
                )
                send(20)
                told, from_model = changing.communicate()[0].splitlines()
            words = told.split()
            assert words[2:5] == ["20", "frames", "judged"]
            both, now_only, new_only = (int(w) for w in (words[7], words[11], words[18]))
            assert (both + new_only, now_only) == (20, 0)
            assert both
            assert new_only
            os.kill(daemon.children()["worker"], signal.SIGKILL)
            send(length_hint(images))
            detector.send(series.end)
            closed = daemon.closed(1)
            status = daemon.wait_status(lambda s: bool(s["changes"]), "the changes in status")
    assert closed.n_judged == N_REPLACED
    first, second = (int(line.split()[2]) for line in (done.stdout, from_model))
    assert (first, second) == (N_BEFORE + N_SLOTS, N_BEFORE + 20 + N_SLOTS)
    old, new = weights.load().model_id, weights.load(model).model_id
    with h5py.File(closed.folder / "ledger.h5") as file:
        rows = np.sort(file["ledger"][:], order="frame")
    assert set(rows["model"][:second]) == {old.encode()}
    assert set(rows["model"][second:]) == {new.encode()}
    name = hashlib.sha256(mask.tobytes()).hexdigest()[:12]
    assert set(rows["mask"][:first]) == {b""}
    assert set(rows["mask"][first:]) == {name.encode()}
    assert len(set(rows["threshold"][:second])) == len(set(rows["threshold"][second:])) == 1
    assert rows["threshold"][0] != rows["threshold"][-1]
    hits = rows["outcome"] == b"hit"
    assert np.array_equal(hits, rows["p_hit"] > rows["threshold"])
    for frame, record in closed.records.items():
        assert record["model"] == (old if frame < second else new)
        assert record["mask"] == (None if frame < first else name)
        if frame >= first and record["outcome"] == "hit":
            assert np.frombuffer(record["peaks"]["fs"], "<f4").min() > 38
    assert [(c["frame"], c["model"], c["mask"]) for c in status["changes"]] == [
        (first, None, name),
        (second, new, name),
    ]
    assert status["candidate"]["step"] == "in force"
    # Judged again each frame is as stamped, under its own mask; another model is not at hand.
    again = rejudge_run(closed.folder)
    assert all(f"judged by model {new}" in sentence for sentence in again.problems)
    assert len(again.problems) == hits[second:].sum()
    assert again.n_frames - len(again.problems) == hits[:second].sum()
    assert hits[first:second].any()


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
