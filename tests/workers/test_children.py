"""A child that dies again and again waits ever longer, and what it died of is kept."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.workers.children import BACKOFF_MAX_S, HEALTHY_S, HUNG_S, Child
from hitfinder.workers.config import Config
from hitfinder.workers.session import Session

ROLE = 2


@pytest.fixture
def ring() -> Iterator[Ring]:
    layout = Layout(n_slots=2, slot_bytes=1 << 12)
    fd = create_memory(layout)
    yield Ring(fd, layout)
    os.close(fd)


def died(child: Child, ring: Ring, code: str, *, worked_s: float = 0.0) -> None:
    """Let a process die in the child's place, and notice it."""
    child.process = subprocess.Popen([sys.executable, "-S", "-c", code])
    ring.control["ready"][0, ROLE] = 1
    assert child.is_ready(ring)
    assert child.ready_s is not None
    child.ready_s -= worked_s
    child.process.wait()
    assert child.buried(ring)
    assert not child.buried(ring)  # once


def test_a_crash_loop_backs_off_to_a_bound_and_work_ends_it(ring: Ring) -> None:
    child = Child("worker", ROLE, Path(), ())
    pauses = []
    for _ in range(8):
        died(child, ring, "raise SystemExit(1)")
        pauses.append(child.pause_s)
    assert pauses[:4] == [0.0, 0.5, 1.0, 2.0]
    assert pauses[-2:] == [BACKOFF_MAX_S, BACKOFF_MAX_S]
    died(child, ring, "raise SystemExit(1)", worked_s=HEALTHY_S + 1)
    assert child.pause_s == 0.0


def test_a_child_whose_heart_stands_still_is_killed_and_one_that_beats_or_loads_is_not(
    ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    child = Child("worker", ROLE, Path(), ())
    beat_ns, ready = ring.control["heartbeat_ns"], ring.control["ready"]
    waits = [sys.executable, "-S", "-c", "input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as living:
        child.process = living
        ready[0, ROLE], beat_ns[0, ROLE] = 1, time.monotonic_ns()
        child.kill_if_hung(ring)
        beat_ns[0, ROLE] -= int(2e9 * HUNG_S)
        ready[0, ROLE] = 0
        child.kill_if_hung(ring)
        assert child.alive
        ready[0, ROLE] = 1
        child.kill_if_hung(ring)
        assert living.wait() == -9
    assert "worker has not moved for 60 s; killing it" in caplog.text


def test_what_a_child_died_of_is_kept_until_its_next_death(ring: Ring, tmp_path: Path) -> None:
    child = Child("worker", ROLE, Path(), ())
    layout = ring.layout
    session = Session(
        str(tmp_path), ring.fd, layout.n_slots, layout.slot_bytes, {}, Config(), ["cpu"]
    )
    session.leave_last_words(ROLE, RuntimeError("CUDA error:\n  out of memory " + "x" * 300))
    died(child, ring, "raise SystemExit(1)")
    assert child.last_exit.startswith("exit 1: RuntimeError: CUDA error: out of memory xxx")
    assert len(child.last_exit) < 220
    died(child, ring, "import os; os.kill(os.getpid(), 9)")
    assert child.last_exit == "signal 9"
