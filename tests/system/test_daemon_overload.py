"""More than the daemon can take: a slow worker, a stalled or full disk, a reader that sleeps.

Memory is bounded by the ring, the policy is the configured one, each frame has its verdict, and
when the cause is gone the same processes go on. A stopped process is what a stalled disk or a
machine that swaps looks like from outside; a limit on file sizes is a full disk that can be
emptied again.
"""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import zmq
from tests.system.daemon import Closed, Daemon, Detector, command, running, wait_for
from tests.system.faults_table import tell
from tests.system.frames import WireSeries, wire_series

pytestmark = pytest.mark.system

SLOTS = 4
N_FRAMES = 30
KEEP_ALL = "[sink]\nmiss_sample_fraction = 1.0\n"
ALL = f"{N_FRAMES} judged"
BLOCK = f'[ring]\nslots = {SLOTS}\nwhen_full = "block"\n'
DROP = f'[ring]\nslots = {SLOTS}\nwhen_full = "drop"\n'


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector() as opened:
        yield opened


@pytest.fixture(scope="module")
def blocking(tmp_path_factory, detector) -> Iterator[Daemon]:
    """Yield the daemon that meets, one after the other, all that makes it wait."""
    folder = tmp_path_factory.mktemp("overload")
    with running(folder, detector, config=BLOCK + KEEP_ALL) as daemon:
        yield daemon


@contextmanager
def stopped(daemon: Daemon, name: str) -> Iterator[None]:
    """Hold one of the daemon's children still for a while."""
    pid = daemon.children()[name]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def counts(closed: Closed) -> str:
    """Return what became of a series' frames."""
    others = {n: k for n, k in closed.counts.items() if n not in ("hit", "miss")}
    return " ".join([f"{closed.n_judged} judged", *(f"{k} {n}" for n, k in others.items())])


def is_full(status: dict[str, int]) -> bool:
    """Say whether every slot of the ring holds a frame."""
    return status["ring_slots_used"] == SLOTS


def nobody_died(daemon: Daemon) -> bool:
    """Say whether the children are those of the start."""
    return [child["starts"] for child in daemon.status["children"]] == [1, 1, 1]


def send(detector: Detector, series: WireSeries) -> None:
    """Hand a series to the socket, which keeps what the daemon does not take yet."""
    detector.send(*series.messages)


@pytest.mark.parametrize(("series", "name"), [(1, "worker"), (2, "sink")])
def test_blocking_nothing_is_lost_to_a_child_that_stands_still(
    blocking, detector, series, name, record_property
):
    with stopped(blocking, name):
        n_earlier = (series - 1) * (N_FRAMES + 2)
        send(detector, wire_series("v2", series, N_FRAMES))
        blocking.wait_status(is_full, "a full ring")
        n_before = blocking.status["n_messages"]
        status = blocking.wait_status(is_full, "another second of it")
        # One frame waits for a slot in the receiver's hands; the others are not taken in.
        assert status["n_messages"] == n_before <= n_earlier + SLOTS + 2
    closed = blocking.closed(series)
    tell(record_property, f"{name} stands still, block", [ALL], [counts(closed)])
    assert closed.n_judged == closed.end["announced"] == N_FRAMES
    assert nobody_died(blocking)


def test_a_subscriber_that_never_reads_keeps_nobody_waiting(blocking, detector, record_property):
    with zmq.Context() as context, context.socket(zmq.SUB) as sleeper:
        sleeper.set(zmq.LINGER, 0)
        sleeper.set(zmq.RCVHWM, 1)
        sleeper.set(zmq.RCVBUF, 4096)
        sleeper.set(zmq.SUBSCRIBE, b"")
        sleeper.connect(blocking.endpoint)
        assert sleeper.poll(10_000)  # it is heard, and then sleeps
        send(detector, wire_series("v2", 3, 300, shape=(64, 64)))
        closed = blocking.closed(3)
        tell(record_property, "a subscriber that never reads", ["300 judged"], [counts(closed)])
        assert closed.n_judged == 300
        sequence = [message["seq"] for _, message in blocking.results]
        assert sequence == sorted(set(sequence))
    assert nobody_died(blocking)


def test_a_worker_that_gets_no_more_memory_says_so_and_its_successor_judges(
    blocking, detector, record_property
):
    worker = blocking.children()["worker"]
    (n_kB,) = re.findall(r"VmSize:\s+(\d+)", Path(f"/proc/{worker}/status").read_text())
    resource.prlimit(worker, resource.RLIMIT_AS, (int(n_kB) << 10, resource.RLIM_INFINITY))
    send(detector, wire_series("v2", 4, 10, shape=(1500, 1500)))
    closed = blocking.closed(4)
    tell(record_property, "a worker without memory", ["10 judged"], [counts(closed)])
    assert closed.n_judged == 10
    assert "worker died (exit 1: MemoryError: " in blocking.log


def test_a_full_disk_holds_frames_back_until_there_is_room(blocking, detector, record_property):
    """The sink cannot write, says why, and its successors carry on where it stood."""
    n_bytes, n_before = 300_000, len(blocking.records)
    with limited(blocking, n_bytes):
        send(detector, wire_series("v2", 5, N_FRAMES))
        blocking.wait_status(is_full, "a full ring")
        wait_for(lambda: "cannot be written" in blocking.log, "the reason in the log")
        assert len(blocking.records) < n_before + N_FRAMES
    closed = blocking.closed(5)
    tell(record_property, "disk full for a while, block", [ALL], [counts(closed)])
    assert closed.n_judged == closed.end["announced"] == N_FRAMES
    assert largest_file(closed.folder) > n_bytes
    assert blocking.terminate() == 0, blocking.log
    checked = command("check", str(blocking.out))
    assert checked.returncode == 0, checked.stdout


@contextmanager
def limited(daemon: Daemon, n_bytes: int) -> Iterator[None]:
    """Let no file of the daemon grow beyond a size; its later children inherit the limit."""
    _limit(daemon, n_bytes)
    try:
        yield
    finally:
        _limit(daemon, resource.RLIM_INFINITY)


def _limit(daemon: Daemon, n_bytes: int) -> None:
    for pid in (daemon.process.pid, *daemon.children().values()):
        with suppress(ProcessLookupError):  # the sink dies again and again meanwhile
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))


def largest_file(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*.h5"))


def test_dropping_begins_after_the_hold_is_counted_at_once_and_ends_with_the_cause(
    tmp_path, record_property
):
    with Detector() as detector, running(tmp_path, detector, config=DROP + KEEP_ALL) as daemon:
        with stopped(daemon, "worker"):
            send(detector, wire_series("v2", 1, N_FRAMES))
            status = daemon.wait_status(
                lambda s: any(o["n_dropped"] == N_FRAMES - SLOTS for o in s["series_open"]),
                "all that finds no room to be dropped",
            )
            assert is_full(status)
            assert status["counts"]["dropped"] == N_FRAMES - SLOTS
        closed = daemon.closed(1)
        assert closed.counts["dropped"] == N_FRAMES - SLOTS
        assert closed.n_judged == SLOTS
        assert {r["reason"] for r in closed.records.values() if r["outcome"] == "dropped"} == {
            "ring full"
        }
        send(detector, wire_series("v2", 2, N_FRAMES))
        after = daemon.closed(2)
        expected = [f"{SLOTS} judged {N_FRAMES - SLOTS} dropped", ALL]
        found = [counts(closed), counts(after)]
        tell(record_property, "worker stands still, drop", expected, found)
        assert after.n_judged == N_FRAMES
        assert nobody_died(daemon)
        assert daemon.terminate() == 0, daemon.log
    checked = command("check", str(daemon.out))
    assert checked.returncode == 0, checked.stdout
