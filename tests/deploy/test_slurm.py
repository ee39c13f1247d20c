"""The batch scripts, run by bash as Slurm runs them: with its environment and its signal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest
from ray.scripts.scripts import start as ray_start
from tests.deploy.conftest import log_of_a_run
from tests.system.daemon import Detector, command, free_port, wait_for
from tests.system.frames import wire_series

from hitfinder.stream.capture import CaptureWriter
from hitfinder.workers import http, supervisor
from hitfinder.workers.session import MAX_WORKERS

SCRIPTS = ("run.sbatch", "replay.sbatch", "cluster_replay.sbatch")
# The program is found by its name, as a job finds it.
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("name", SCRIPTS)
def test_options_stand_before_the_first_command_and_leave_time_to_stop(deploy, name):
    head, _, body = (deploy / "slurm" / name).read_text().partition("\nset -eu\n")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", head, re.M))
    assert "#SBATCH" not in body
    assert head.count("#SBATCH") == len(options)
    # B: the batch shell alone, which the daemon has taken the place of.
    warned_s = int(options["signal"].removeprefix("B:TERM@"))
    assert warned_s > (
        supervisor.SOURCE_STOP_S
        + supervisor.STORE_STOP_S
        + (1 + MAX_WORKERS) * supervisor.CHILD_STOP_S
        + http.STOP_S
    )
    assert "\nexec hitfinder-stream " in body


@pytest.mark.system
def test_a_job_that_is_warned_drains_and_succeeds(deploy, tmp_path):
    script = str(deploy / "slurm" / "run.sbatch")
    with Detector() as detector:
        said = log_of_a_run(
            ["bash", script],
            detector,
            tmp_path / "log.txt",
            PATH=PATH,
            SOURCE=detector.endpoint,
            OUT=str(tmp_path / "out"),
            RESULTS=f"tcp://127.0.0.1:{free_port()}",
            HTTP=f"127.0.0.1:{free_port()}",
        )
    assert "series 1 closed (ended): 20 frames" in said
    assert command("check", str(tmp_path / "out")).returncode == 0


@pytest.mark.system
def test_a_job_of_an_array_replays_its_own_recording(deploy, tmp_path):
    recordings = [tmp_path / f"run{n}.wire" for n in (1, 2)]
    for number, path in enumerate(recordings, 1):
        series = wire_series("v1", number, 10)
        with CaptureWriter(path) as capture:
            for t_received_ns, parts in enumerate(series.messages):
                capture.write(parts, t_received_ns)
    listed = tmp_path / "runs.txt"
    listed.write_text("".join(f"{path}\n" for path in recordings))
    script = str(deploy / "slurm" / "replay.sbatch")
    done = subprocess.run(
        ["bash", script, str(listed), str(tmp_path / "again")],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": PATH, "OMP_NUM_THREADS": "1", "SLURM_ARRAY_TASK_ID": "2"},
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "again").iterdir()] == ["run2"]
    assert command("check", str(tmp_path / "again" / "run2")).returncode == 0


def test_a_job_of_several_nodes_joins_them_and_deals_to_all(deploy, tmp_path, parses):
    runs = [tmp_path / "run 1.h5", tmp_path / "run 2.h5"]
    (tmp_path / "runs.txt").write_text("".join(f"{path}\n" for path in runs))
    said = tmp_path / "said"
    said.mkdir()
    for name in ("ray", "srun", "hitfinder-stream"):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" > {said}/{name}_"${{1:-}}"\n')
        program.chmod(0o755)
    out = tmp_path / "again"
    done = subprocess.run(
        [
            "bash",
            str(deploy / "slurm" / "cluster_replay.sbatch"),
            str(tmp_path / "runs.txt"),
            str(out),
        ],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_JOB_NUM_NODES": "4",
        },
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(list(said.iterdir())) == 3, "the steps in the background")
    words = {
        path.name.partition("_")[0]: path.read_text().split("\0")[:-1] for path in said.iterdir()
    }
    replay = parses(words["hitfinder-stream"])
    assert replay["paths"] == runs
    assert replay["out"] == out
    assert replay["device"] == f"cpu:{12 + 3 * 16}"
    assert f"--address={replay['cluster']}" in words["srun"]
    assert f"--port={str(replay['cluster']).rpartition(':')[2]}" in words["ray"]
    for options in (words["ray"][1:], words["srun"][words["srun"].index("start") + 1 :]):
        asked = click.testing.CliRunner().invoke(ray_start, [*options, "--help"])
        assert asked.exit_code == 0, asked.output
