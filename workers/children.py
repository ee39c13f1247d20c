"""The supervisor's children: started, watched, restarted.

One rule: any child may die at any moment; its successor starts from what stands in the ring. A
child that dies again and again is restarted ever more slowly, and its last words are logged.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from hitfinder.stream.results import Outcome
from hitfinder.stream.ring import Bells, Ring, State

log = logging.getLogger(__name__)

# Libraries that start a thread for each core and let them spin: processes and decoder threads are
# what uses the cores here.
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
# A child whose heart has not beaten this long is hung: longer than any frame or flush takes,
# also on a machine that swaps.
HUNG_S = 30.0
# The first restart is at once, the following wait twice as long each, up to the last.
BACKOFF_S, BACKOFF_MAX_S = 0.25, 8.0
# A child that worked this long has earned a quick restart again; loading is no work.
HEALTHY_S = 5.0
# A frame whose judging killed this many workers is given up: it, not the worker, is the fault.
MAX_ATTEMPTS = 3


@dataclass
class Child:
    """One child process and its history.

    Attributes:
        name: `receiver`, `reader`, `sink` or `worker`.
        role: its place in the ring's table of heartbeats.
        last_exit: how it last died, and of what, if it could say.
        pause_s: before its next start.
    """

    name: str
    role: int
    session: Path
    fds: tuple[int, ...]
    process: subprocess.Popen[bytes] | None = None
    n_starts: int = 0
    n_quick_deaths: int = 0
    ready_s: float | None = None
    pause_s: float = 0.0
    not_before_s: float = 0.0
    done: bool = False
    last_exit: str = field(default="")

    def start(self) -> None:
        """Start the process with the ring's and the doorbells' descriptors."""
        module = ["-m", "hitfinder.workers.child", self.name, str(self.role), str(self.session)]
        self.process = subprocess.Popen(
            [sys.executable, *module],
            pass_fds=self.fds,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ONE_THREAD},
        )
        self.n_starts += 1
        self.ready_s = None

    @property
    def alive(self) -> bool:
        """Say whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def words(self, ring: Ring) -> str:
        """Return what the child said last of what it is at, or died of."""
        return bytes(ring.control["last_words"][0, self.role]).decode(errors="replace")

    def buried(self, ring: Ring) -> bool:
        """Notice a death, once: note why, and when the next start may be; True if it died now."""
        if self.process is None or self.process.poll() is None:
            return False
        code = self.process.returncode
        words = self.words(ring)
        self.last_exit = f"signal {-code}" if code < 0 else f"exit {code}"
        self.last_exit += f": {words}" if words else ""
        ring.control["last_words"][0, self.role] = b""
        worked_s = 0.0 if self.ready_s is None else time.monotonic() - self.ready_s
        self.n_quick_deaths = 0 if worked_s > HEALTHY_S else self.n_quick_deaths + 1
        wait_s = min(BACKOFF_S * 2 ** (self.n_quick_deaths - 1), BACKOFF_MAX_S)
        self.pause_s = wait_s if self.n_quick_deaths > 1 else 0.0
        self.not_before_s = time.monotonic() + self.pause_s
        self.process = None
        ring.control["ready"][0, self.role] = 0
        ring.control["heartbeat_ns"][0, self.role] = 0
        return True

    def is_ready(self, ring: Ring) -> bool:
        """Say whether the child has reported for work, and note when it did."""
        is_ready = self.alive and bool(ring.control["ready"][0, self.role])
        if is_ready and self.ready_s is None:
            self.ready_s = time.monotonic()
        return is_ready

    def kill_if_hung(self, ring: Ring) -> None:
        """Kill a child that has reported for work and then stopped beating."""
        beat_ns = int(ring.control["heartbeat_ns"][0, self.role])
        if not self.is_ready(ring) or beat_ns == 0 or self.process is None:
            return
        silent_s = (time.monotonic_ns() - beat_ns) * 1e-9
        if silent_s > HUNG_S:
            log.error("%s has not moved for %.0f s; killing it", self.name, silent_s)
            self.process.kill()


def reclaim(ring: Ring, bells: Bells, role: int) -> int:
    """Give a dead worker's frames to its successor; returns how many.

    A frame that killed `MAX_ATTEMPTS` workers is settled as lost.
    """
    n = 0
    for slot in ring.in_state(State.JUDGING):
        if ring.owner_of(slot) != role:
            continue
        header = ring.slots[slot]
        header["attempts"] += 1
        n += 1
        if header["attempts"] >= MAX_ATTEMPTS:
            ring.settle(slot, Outcome.LOST, f"{MAX_ATTEMPTS} workers died while judging it")
            bells.ring("sink")
        else:
            ring.set_state(slot, State.RECEIVED)
    bells.ring("worker")
    return n
