"""Claims for `bench`: figures are complete, in proportion, and say where they were taken."""

import io
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from hitfinder.workers.bench import BenchOptions, bench
from hitfinder.workers.daemon_process import DaemonError, DaemonProcess, core_s_of

SHAPE = (512, 512)
SECONDS = 1.0


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return a small bench's JSON and what it printed."""
    path, said = tmp_path_factory.mktemp("bench") / "bench.json", io.StringIO()
    bench(BenchOptions(3, SECONDS, 1, "cpu", path, SHAPE), to=said)
    return json.loads(path.read_text()), said.getvalue()


@pytest.mark.system
def test_every_stage_is_a_multiple_of_memcpy(measured: tuple[dict[str, Any], str]) -> None:
    stages = measured[0]["stages"]
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
    for run in measured[0]["end_to_end"]:
        parts = ("n_hits", "n_misses", "n_dropped", "n_other")
        assert run["n_frames"] == sum(run[name] for name in parts)
        assert run["n_dropped"] == run["n_other"] == 0
        assert run["core_ms"] == pytest.approx(sum(run["core_ms_by_job"].values()))
        assert set(run["core_ms_by_job"]) >= {"receiver", "worker", "sink", "supervisor"}
        assert 0 < run["latency_p50_ms"] <= run["latency_p99_ms"]


@pytest.mark.system
def test_the_relaxed_run_is_sent_at_half_the_rate(measured: tuple[dict[str, Any], str]) -> None:
    flat_out, relaxed = measured[0]["end_to_end"]
    assert flat_out["sent_per_s"] is None
    assert relaxed["sent_per_s"] == pytest.approx(flat_out["frames_per_s"] / 2)


@pytest.mark.system
def test_figures_say_where_they_were_taken(measured: tuple[dict[str, Any], str]) -> None:
    result, said = measured
    assert {"cpu", "cores", "date", "python", "torch"} <= set(result["machine"])
    assert result["options"]["device"] == "cpu"
    assert result["frame"]["shape"] == list(SHAPE)
    for words in ("x memcpy", "latency p99", "dropped", str(result["machine"]["cores"])):
        assert words in said


def _spend(core_s: float, done: Any) -> None:
    while time.process_time() < core_s:
        pass
    done.wait()


def test_core_time_holds_that_of_descendants() -> None:
    spawn = multiprocessing.get_context("spawn")
    done = spawn.Event()
    child = spawn.Process(target=_spend, args=(0.3, done))
    child.start()
    try:
        deadline = time.monotonic() + 60
        while core_s_of(child.pid or 0).get("supervisor", 0.0) < 0.3:
            assert time.monotonic() < deadline
    finally:
        done.set()
        child.join()


@pytest.mark.system
def test_a_daemon_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    arguments = ("--device", "abacus")
    with DaemonProcess("tcp://127.0.0.1:9", tmp_path, arguments) as daemon:
        with pytest.raises(DaemonError, match="abacus"):
            daemon.wait_ready()
