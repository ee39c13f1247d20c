"""Which devices judge, and that asking does not load torch."""

import subprocess
import sys

import pytest

from hitfinder.workers.config import ConfigError
from hitfinder.workers.devices import cpu_workers, resolve


def test_auto_takes_every_cuda_device_else_the_cpu() -> None:
    assert resolve(["auto"], n_cuda=2) == ("cuda:0", "cuda:1")
    assert resolve(["auto"], n_cuda=0) == ("cpu",) * cpu_workers()


def test_a_number_of_cpu_workers_can_be_asked_for() -> None:
    assert resolve(["cpu:3"], n_cuda=0) == ("cpu", "cpu", "cpu")
    assert resolve(["cuda", "cuda:1", "cpu:1"], n_cuda=2) == ("cuda:0", "cuda:1", "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:", "", "cuda:1:2"])
def test_an_unknown_name_says_what_is_expected(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected auto, cpu\[:N\] or cuda\[:N\]"):
        resolve([name], n_cuda=1)


def test_a_device_that_is_not_there_says_how_many_there_are() -> None:
    with pytest.raises(ConfigError, match="has 1 CUDA devices; use cpu or auto"):
        resolve(["cuda:1"], n_cuda=1)


def test_the_supervisor_never_loads_torch() -> None:
    code = (
        "import sys\n"
        "from hitfinder.workers import cli, devices, http, supervisor, terminal\n"
        "devices.resolve(['auto'])\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_worker_on_a_cpu_judges_without_torch() -> None:
    """Loading it would take as long as all the rest of a killed worker's successor's start."""
    code = (
        "import sys, numpy as np\n"
        "from hitfinder.models.pipeline import Pipeline\n"
        "from hitfinder.workers import child, worker\n"
        "Pipeline().run(np.ones((64, 64), np.uint16))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
