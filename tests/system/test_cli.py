"""The command line as people meet it: what it prints, what it refuses, how it exits.

Exit status 0 done, 1 failed, 2 wrong usage or configuration (design section 7); whoever is
refused reads what was got and what was expected, at once.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from tests.system.daemon import (
    PROGRAM,
    Daemon,
    Detector,
    command,
    free_port,
    running,
    wait_for,
)
from tests.system.frames import wire_series
from typer.testing import CliRunner

from hitfinder import __version__
from hitfinder.stream.results import Record
from hitfinder.workers.cli import app

pytestmark = pytest.mark.system

SOURCE = ("run", "--source", "tcp://127.0.0.1:9", "--device", "cpu", "--out")
COMMANDS = sorted(c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands)
# A verdict apart from when and where it was reached.
VERDICT = ("outcome", "p_hit", "p_any", "p_spots3", "threshold", "n_peaks", "peaks", "n_photons")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    said = CliRunner().invoke(app, [name, "--help"])
    assert said.exit_code == 0
    assert f"hitfinder-stream {name}" in said.output or "Usage" in said.output


def test_version_names_the_program_and_its_libraries():
    said = command("version")
    assert said.returncode == 0
    assert said.stdout.startswith(f"hitfinder-stream {__version__}\n")
    assert "torch" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run",), ("--out",)),
        (("run", "--out", "o", "--sauce", "x"), ("--sauce",)),
        (
            ("run", "--out", "o", "--max-series", "0"),
            ("--max-series", "greater than or equal to 1"),
        ),
        (("run", "--out", "o"), ("no source", "--source tcp://HOST:PORT")),
        (("run", "--out", "o", "--source", "localhost:9"), ("'localhost:9'", "tcp://HOST:PORT")),
        ((*SOURCE, "o", "--protocol", "v3"), ("--protocol", "'v3'", "auto, v1 or v2")),
        ((*SOURCE, "o", "--device", "abacus"), ("abacus", "cpu")),
        ((*SOURCE, "o", "--config", "nowhere.toml"), ("nowhere.toml", "readable")),
        (("replay", "nothing.h5", "--out", "o"), ("nothing.h5", "no such file")),
        (("subscribe", "5557"), ("'5557'", "tcp://HOST:PORT")),
        (("check", "nowhere"), ("nowhere", "no such folder")),
    ],
    ids=lambda value: "-".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_wrong_usage_exits_2_and_says_what_was_expected(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    refused = command(*arguments)
    assert refused.returncode == 2, refused.stderr
    assert [word for word in words if word not in refused.stderr] == []
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[ring]\nslotz = 3", ("unknown key ring.slotz", "ring.slots")),
        ("[rings]\nslots = 3", ("unknown key rings", "ring")),
        ('[ring]\nslots = "many"', ("ring.slots", "str", "int")),
        ("[gate]\nthreshold = 1.5", ("gate.threshold", "1.5", "0.0 to 1.0")),
        ('[ring]\nwhen_full = "panic"', ("ring.when_full", "panic")),
        ("ring = 5", ("ring", "5", "section")),
        ("[ring\nslots = 3", ("config.toml", "not TOML")),
    ],
    ids=lambda value: value.split()[-1] if isinstance(value, str) else "",
)
def test_a_wrong_config_exits_2_and_names_the_key(tmp_path, config, words):
    (tmp_path / "config.toml").write_text(config)
    refused = command(*SOURCE, str(tmp_path), "--config", str(tmp_path / "config.toml"))
    assert refused.returncode == 2, refused.stderr
    assert [word for word in words if word not in refused.stderr] == []
    assert "Traceback" not in refused.stderr


@pytest.fixture(scope="module")
def taken_port() -> Iterator[int]:
    with zmq.Context() as context, context.socket(zmq.PUB) as other:
        yield other.bind_to_random_port("tcp://127.0.0.1")


@pytest.mark.parametrize("option", ["--results", "--http", "--out"])
def test_a_place_that_is_taken_is_said_before_anything_starts(tmp_path, taken_port, option):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "runtime").mkdir()
    places = {
        "--results": f"tcp://127.0.0.1:{free_port()}",
        "--http": f"127.0.0.1:{free_port()}",
        "--out": str(tmp_path / "out"),
    }
    places[option] = {
        "--results": f"tcp://127.0.0.1:{taken_port}",
        "--http": f"127.0.0.1:{taken_port}",
        "--out": str(tmp_path / "file"),
    }[option]
    words = [word for place in places.items() for word in place]
    refused = command(*SOURCE[:-1], *words, TMPDIR=str(tmp_path / "runtime"))
    assert refused.returncode == 2, refused.stderr
    assert places[option] in refused.stderr
    assert option in refused.stderr
    assert "Traceback" not in refused.stderr
    assert list((tmp_path / "runtime").iterdir()) == []


def test_an_endpoint_that_answers_late_is_named_once_and_then_read(tmp_path):
    port = free_port()
    with Daemon(tmp_path, "run", "--source", f"tcp://127.0.0.1:{port}") as daemon:
        daemon.wait_ready()
        wait_for(lambda: "cannot reach" in daemon.log, "a word about the silent endpoint")
        n_statuses = len(daemon.statuses)
        wait_for(lambda: len(daemon.statuses) >= n_statuses + 2, "time to try again")
        assert daemon.log.count("cannot reach") == 1
        assert daemon.status["connected"] == 0
        series = wire_series("v2", 3, 4)
        with Detector(port) as detector:
            detector.send(*series.messages)
            assert daemon.closed(3).n_judged == 4
        assert daemon.terminate() == 0, daemon.log


@contextmanager
def program(output: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a sub-command in the background, its standard output in a file."""
    with output.open("w") as stdout:
        process = subprocess.Popen([PROGRAM, *arguments], stdout=stdout, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_subscribe_prints_one_json_object_a_line_with_every_key(tmp_path):
    series = wire_series("v2", 4, 4, has_spots=True)
    output = tmp_path / "subscribed.jsonl"
    with Detector() as detector, running(tmp_path / "daemon", detector) as daemon:
        with program(output, "subscribe", daemon.endpoint, "--json") as subscriber:
            wait_for(lambda: "status" in output.read_text(), "the subscriber's first line")
            detector.send(*series.messages)
            published = daemon.closed(4)
            wait_for(lambda: "series.end" in output.read_text(), "the subscriber's end")
            subscriber.send_signal(signal.SIGINT)
            assert subscriber.wait(20) == 0
        assert daemon.terminate() == 0, daemon.log
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    records = {m["frame"]: m for m in lines if m["topic"].startswith("result.")}
    keys = {"topic", *(f.name for f in msgspec.structs.fields(Record))}
    assert [m for m in records.values() if m.keys() != keys] == []
    assert {f: r["outcome"] for f, r in records.items()} == published.outcomes
    for record in records.values():
        assert record["peaks"].keys() == {"fs", "ss", "intensity", "snr", "p"}
        assert {len(column) for column in record["peaks"].values()} == {record["n_peaks"]}
    assert sum(record["n_peaks"] for record in records.values()) > 0


def test_a_capture_replayed_has_the_verdicts_it_had_live(tmp_path):
    both = [wire_series("v1", 5, 6, has_spots=True), wire_series("v2", 6, 6, has_spots=True)]
    both[0].images[3][2] = both[0].images[3][2][:50]
    both[1].images[3][0] = both[1].images[3][0][:50]
    messages = [message for series in both for message in series.messages]
    with Detector() as detector:
        said, captured = tmp_path / "said.txt", tmp_path / "run.wire"
        line = ("capture", "--source", detector.endpoint, "--out", str(captured))
        with program(said, *line, "--count", str(len(messages))) as capture:
            detector.send(*messages)
            assert capture.wait(30) == 0
        assert f"{len(messages)} messages" in said.read_text()
        with running(tmp_path / "live", detector) as live:
            detector.send(*messages)
            assert live.closed(5).counts["corrupt"] == 1
            assert live.closed(6).counts["missing"] == 1
            assert live.terminate() == 0, live.log
    with Daemon(tmp_path / "again", "replay", str(captured)) as again:
        again.wait_ready()
        assert again.wait_exit() == 0, again.log
    for series in both:
        found = live.closed(series.number), again.closed(series.number)
        assert verdicts(found[0].records) == verdicts(found[1].records)
        assert found[0].counts == found[1].counts


def verdicts(records: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return what was found of each frame."""
    return {frame: {key: record[key] for key in VERDICT} for frame, record in records.items()}
