"""What takes long to make and is shared: peers' environments, the nodes of a cluster."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.system.ray_nodes import RayNodes, three_nodes

PeerEnv = Callable[[str, tuple[str, ...]], Path]
INSTALL_TIMEOUT_S = 540


@pytest.fixture(scope="session")
def peer_env() -> PeerEnv:
    """Return `peer_env(name, requirements)` -> the Python of an environment that has them.

    It is made once, below our own environment, and kept while the requirements stay the same.
    A test that may be the first to ask needs `pytest.mark.timeout(600)`.
    """
    return _peer_python


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[RayNodes]:
    """Yield three Ray nodes, shared by all tests: who kills one starts another."""
    with three_nodes() as nodes:
        yield nodes


def _peer_python(name: str, requirements: tuple[str, ...]) -> Path:
    folder = Path(sys.prefix) / "peers" / name
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    folder.parent.mkdir(exist_ok=True)
    wanted = "\n".join(requirements) + "\n"
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder, symlinks=True)
            _pip_install(python, requirements)
            stamp.write_text(wanted)
    return python


def _pip_install(python: Path, requirements: tuple[str, ...]) -> None:
    """Install with our pip, so that the peer's environment needs none."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", *requirements],
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
    )
    if done.returncode:
        pytest.fail(f"pip could not install {' '.join(requirements)}:\n{done.stderr[-2000:]}")
