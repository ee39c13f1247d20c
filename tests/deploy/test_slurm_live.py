"""The batch script of a live run over several nodes: what it starts, and time to stop."""

from __future__ import annotations

import os
import re
import subprocess

import click.testing
from ray.scripts.scripts import start as ray_start
from tests.system.daemon import wait_for

from hitfinder.workers.cluster_live import STOP_S


def test_the_job_joins_its_nodes_and_puts_a_host_on_each(deploy, tmp_path, parses):
    said = tmp_path / "said"
    said.mkdir()
    for name in ("ray", "srun", "hitfinder-stream"):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\nprintf "%s\\0" "$@" > {said}/{name}\n')
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", str(deploy / "slurm" / "cluster_run.sbatch")],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SOURCE": "tcp://10.42.41.10:31001",
            "OUT": str(tmp_path / "out"),
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_JOB_NUM_NODES": "3",
        },
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(list(said.iterdir())) == 3, "the step in the background")
    words = {path.name: path.read_text().split("\0")[:-1] for path in said.iterdir()}
    run = parses(words["hitfinder-stream"])
    assert (run["hosts"], run["out"]) == (3, tmp_path / "out")
    assert "--nodes=2" in words["srun"]
    assert f"--address={run['cluster']}" in words["srun"]
    assert f"--port={str(run['cluster']).rpartition(':')[2]}" in words["ray"]
    for options in (words["ray"][1:], words["srun"][words["srun"].index("start") + 1 :]):
        asked = click.testing.CliRunner().invoke(ray_start, [*options, "--help"])
        assert asked.exit_code == 0, asked.output


def test_it_is_warned_early_enough_for_all_daemons_to_stop(deploy):
    text = (deploy / "slurm" / "cluster_run.sbatch").read_text()
    (warned_s,) = re.findall(r"^#SBATCH --signal=B:TERM@(\d+)$", text, re.M)
    assert int(warned_s) > STOP_S
    assert "\nexec hitfinder-stream run " in text
