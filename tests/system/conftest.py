"""What takes long to make and is shared: peers' environments, the nodes of a cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.system.peer_environments import python_of
from tests.system.ray_nodes import RayNodes, three_nodes

PeerEnv = Callable[[str], Path]
ROOT = Path(__file__).resolve().parents[2]

making = pytest.StashKey[subprocess.Popen[bytes]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make peers' environments beside the tests before: who needs one first waits for the rest."""
    if any("peer_env" in getattr(item, "fixturenames", ()) for item in session.items):
        line = ["nice", "-n", "10", sys.executable, "-m", "tests.system.peer_environments"]
        quiet = subprocess.DEVNULL  # what goes wrong is told by the test that needs it
        session.config.stash[making] = subprocess.Popen(line, cwd=ROOT, stdout=quiet, stderr=quiet)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave nothing running."""
    if maker := session.config.stash.get(making, None):
        maker.terminate()
        maker.wait()


@pytest.fixture(scope="session")
def peer_env() -> PeerEnv:
    """Return `peer_env(name)` -> the Python of one of `peer_environments.PEERS`.

    A test that may be the first to ask needs `pytest.mark.timeout(600)`.
    """
    return python_of


@pytest.fixture(scope="session")
def ray_nodes() -> Iterator[RayNodes]:
    """Yield three Ray nodes, shared by all tests: who kills one starts another."""
    with three_nodes() as nodes:
        yield nodes
