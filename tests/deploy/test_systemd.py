"""The systemd unit: systemd takes it, the program understands what it starts, it is tight."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from ctypes.util import find_library
from pathlib import Path

import pytest
from tests.deploy.conftest import log_of_a_run
from tests.system.daemon import Detector

from hitfinder.workers import http, supervisor
from hitfinder.workers.config import read_config
from hitfinder.workers.host import CHILDREN_BYTES
from hitfinder.workers.session import MAX_WORKERS

PREFIX = "/opt/hitfinder-stream/bin/"
# systemd's own measure of a service's reach, 0 (none) to 100; its word up to 20 is "OK".
MAX_EXPOSURE = 20

systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def service(deploy: Path, name: str = "hitfinder-stream.service") -> dict[str, str]:
    """Return the [Service] section; of a key that stands twice the last value."""
    unit = ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((deploy / "systemd" / name).read_text())
    return dict(unit["Service"])


def test_the_unit_starts_what_the_program_understands(deploy, parses):
    program, *words = shlex.split(service(deploy)["ExecStart"])
    assert program == f"{PREFIX}hitfinder-stream"
    understood = parses(words)
    assert str(understood["out"]) in service(deploy)["ReadWritePaths"].split()
    assert understood["config"] == Path("/etc/hitfinder-stream/config.toml")


def test_the_units_configuration_is_one_of_ours_and_reaches_the_detector(deploy):
    config = read_config(deploy / "systemd" / "config.toml")
    (endpoint,) = config.source.endpoints
    host = endpoint.removeprefix("tcp://").partition(":")[0]
    assert host in service(deploy)["IPAddressAllow"].split()


def test_it_may_take_as_long_to_stop_as_the_daemon_does(deploy):
    longest_s = supervisor.SOURCE_STOP_S + supervisor.STORE_STOP_S + http.STOP_S
    longest_s += (1 + MAX_WORKERS) * supervisor.CHILD_STOP_S
    assert float(service(deploy)["TimeoutStopSec"]) > longest_s
    # The children take no signals: the supervisor ends them when all is stored.
    assert service(deploy)["KillMode"] == "mixed"


def test_a_full_ring_fits_in_its_memory(deploy):
    ring = read_config(deploy / "systemd" / "config.toml").ring
    allowed = service(deploy)["MemoryMax"]
    assert allowed.endswith("G")
    assert int(allowed[:-1]) << 30 > ring.slots * ring.slot_bytes + CHILDREN_BYTES


def test_a_wrong_configuration_is_not_tried_again(deploy):
    assert service(deploy)["RestartPreventExitStatus"] == "2"
    assert service(deploy)["Restart"] == "on-failure"


@systemd
@pytest.mark.parametrize("drop_ins", [(), ("cuda.conf",), ("numa.conf",)])
def test_systemd_takes_the_unit(deploy, tmp_path, drop_ins):
    unit = tmp_path / "hitfinder-stream.service"
    text = (deploy / "systemd" / unit.name).read_text()
    # The program is installed in this environment, not where the unit expects it.
    unit.write_text(text.replace(PREFIX, f"{Path(sys.executable).parent}/"))
    for name in drop_ins:
        folder = tmp_path / f"{unit.name}.d"
        folder.mkdir()
        shutil.copy(deploy / "systemd" / name, folder)
    asked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True
    )
    assert (asked.returncode, asked.stderr) == (0, "")


@pytest.mark.system
@pytest.mark.skipif(find_library("seccomp") is None, reason="libseccomp is not installed")
@systemd
def test_the_daemon_works_with_the_system_calls_that_the_unit_leaves_it(deploy, tmp_path):
    confined = str(Path(__file__).with_name("confined.py"))
    unit = str(deploy / "systemd" / "hitfinder-stream.service")
    run = [sys.executable, "-m", "hitfinder.workers.cli", "run", "--out", str(tmp_path / "out")]
    run += ["--results", "tcp://127.0.0.1:*", "--http", "127.0.0.1:0"]
    with Detector() as detector:
        said = log_of_a_run(
            [sys.executable, confined, unit, *run, "--source", detector.endpoint],
            detector,
            tmp_path / "log.txt",
        )
    assert "series 1 closed (ended): 20 frames" in said
    assert "died" not in said


@systemd
def test_systemd_finds_little_that_the_unit_could_reach(deploy):
    unit = str(deploy / "systemd" / "hitfinder-stream.service")
    asked = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", unit],
        capture_output=True,
        text=True,
        env={"SYSTEMD_PAGER": "", "PATH": "/usr/bin:/bin"},
    )
    assert asked.returncode == 0, asked.stdout[-300:] + asked.stderr
