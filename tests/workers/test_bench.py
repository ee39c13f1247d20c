"""Claims for `bench`: figures are complete, in proportion, and say where they were taken."""

import io
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hitfinder.stream import bslz4, wire
from hitfinder.stream.messages import Frame
from hitfinder.workers.bench import BenchOptions, bench
from hitfinder.workers.bench_frames import BenchFrames, FrameMix, PixelType
from hitfinder.workers.daemon_process import DaemonError, DaemonProcess
from hitfinder.workers.spent import Spent, spent_by_job

SHAPE = (512, 512)
SECONDS = 1.0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return a small bench's JSON and what it printed."""
    path, said = tmp_path_factory.mktemp("bench") / "bench.json", io.StringIO()
    bench(BenchOptions(3, SECONDS, device="cpu", json_file=path, shape=SHAPE), to=said)
    return json.loads(path.read_text()), said.getvalue()


@pytest.mark.system
def test_every_stage_is_a_multiple_of_memcpy(measured: tuple[dict[str, Any], str]) -> None:
    stages = measured[0]["measured"][0]["stages"]
    assert stages[0]["x_memcpy"] == 1.0
    assert all(s["ms"] > 0 for s in stages)
    for s in stages:
        assert s["x_memcpy"] == pytest.approx(s["ms"] / stages[0]["ms"])
        assert s["frames_per_s"] == pytest.approx(1e3 / s["ms"])
    words = " ".join(s["stage"] for s in stages)
    for word in ("V1", "V2", "slot", "bslz4", "pool", "blank", "write a hit", "record"):
        assert word in words


@pytest.mark.system
def test_end_to_end_accounts_for_every_frame(measured: tuple[dict[str, Any], str]) -> None:
    for run in measured[0]["measured"][0]["end_to_end"]:
        parts = ("n_hits", "n_misses", "n_dropped", "n_other")
        assert run["n_frames"] == sum(run[name] for name in parts)
        assert run["n_dropped"] == run["n_other"] == 0
        assert run["core_ms"] == pytest.approx(sum(p["core_ms"] for p in run["processes"]))
        assert run["x_memcpy"] == pytest.approx(run["core_ms"] / run["memcpy_ms"])
        names = {p["process"] for p in run["processes"]}
        assert names >= {"receiver", "worker", "sink", "supervisor"}
        assert all(p["switches"] > 0 and p["minor_faults"] >= 0 for p in run["processes"])
        assert 0 < run["latency_p50_ms"] <= run["latency_p99_ms"]


@pytest.mark.system
def test_the_relaxed_run_is_sent_at_half_the_rate(measured: tuple[dict[str, Any], str]) -> None:
    flat_out, relaxed = measured[0]["measured"][0]["end_to_end"]
    assert flat_out["sent_per_s"] is None
    assert relaxed["sent_per_s"] == pytest.approx(flat_out["frames_per_s"] / 2)


@pytest.mark.system
def test_stages_and_the_rest_make_up_each_process(measured: tuple[dict[str, Any], str]) -> None:
    (one,) = measured[0]["measured"]
    whole = {p["process"]: p["x_memcpy"] for p in one["end_to_end"][0]["processes"]}
    for process, x_memcpy in whole.items():
        first, *parts = [line for line in one["profile"] if line["process"] == process]
        assert (first["stage"], first["x_memcpy"]) == ("", x_memcpy)
        assert x_memcpy == pytest.approx(sum(line["x_memcpy"] for line in parts))
        assert process in measured[1]
    named = {line["stage"] for line in one["profile"]}
    assert {"decode, mask and pool in one pass", "record out of the slot"} <= named


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_frames_are_as_bright_and_deep_and_hit_as_often_as_asked(dtype: PixelType) -> None:
    frames = BenchFrames((256, 320), FrameMix(0.4, 0.5, dtype))
    assert sum(frames.is_hit) == 18
    for k, is_hit in enumerate(frames.is_hit[:9]):
        message = wire.decode(frames.message(k, "v2"))
        assert isinstance(message, Frame)
        image = bslz4.decode(message.blobs[0])
        assert image.dtype == dtype
        assert image[image < np.iinfo(dtype).max].mean() == pytest.approx(0.5, rel=0.2) or is_hit


@pytest.mark.system
def test_figures_say_where_they_were_taken(measured: tuple[dict[str, Any], str]) -> None:
    result, said = measured
    assert {"cpu", "cores", "date", "python", "torch"} <= set(result["machine"])
    assert result["options"]["device"] == "cpu"
    assert result["measured"][0]["frame"]["shape"] == list(SHAPE)
    for words in ("x memcpy", "latency p99", "dropped", str(result["machine"]["cores"])):
        assert words in said


def _spend(core_s: float, done: Any) -> None:
    while time.process_time() < core_s:
        pass
    done.wait()


def test_what_descendants_spend_is_told() -> None:
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Event()
    child = spawn.Process(target=_spend, args=(0.3, done))
    child.start()
    try:
        deadline = time.monotonic() + 60
        while spent_by_job(child.pid or 0).get("supervisor", Spent()).core_s < 0.3:
            assert time.monotonic() < deadline
        spent = spent_by_job(os.getpid())["other"]
        assert spent.core_s >= 0.3
        assert spent.core_s == spent.user_s + spent.system_s
        assert spent.minor_faults > 100  # an interpreter has been loaded
        assert spent.switches > 0
    finally:
        done.set()
        child.join()


@pytest.mark.system
def test_a_daemon_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    arguments = ("--device", "abacus")
    with DaemonProcess("tcp://127.0.0.1:9", tmp_path, arguments) as daemon:
        with pytest.raises(DaemonError, match="abacus"):
            daemon.wait_ready()
