"""A cluster is reached or clearly refused; three nodes stand for three hosts."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ASK = "from hitfinder.workers import cluster; cluster.connect({!r}); print({})"


def _asked(address: str, question: str = "") -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", ASK.format(address, question)]
    return subprocess.run(line, capture_output=True, text=True, timeout=100)


def test_the_nodes_of_a_cluster_are_known_by_name(ray_nodes):
    said = _asked(
        ray_nodes.address, "*sorted(cluster.node_names().values()), cluster.count('CPU')"
    )
    assert said.stdout.split() == ["one", "three", "two", "3"], said.stderr


@pytest.mark.parametrize(("address", "why"), [("127.0.0.1:1", "refused"), ("head", "HOST:PORT")])
def test_where_no_cluster_answers_is_told_how_to_have_one(address, why):
    said = _asked(address)
    assert said.returncode == 1
    assert why in said.stderr
    assert "ray start --address" in said.stderr


@pytest.mark.parametrize("words", ["run --source tcp://127.0.0.1:9", "replay ."])
def test_without_ray_it_is_said_what_to_install(words, tmp_path):
    line = f"{words} --out {tmp_path / 'out'} --cluster auto".split()
    program = "import sys; sys.modules['ray'] = None; from hitfinder.workers.cli import main; "
    said = subprocess.run(
        [sys.executable, "-c", program + f"main({line!r})"], capture_output=True, text=True
    )
    assert said.returncode == 2
    assert "pip install 'hitfinder-stream[cluster]'" in said.stderr
