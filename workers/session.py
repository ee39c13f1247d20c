"""One run's common ground: what every process of a daemon needs to take part.

The supervisor writes a `Session` to the runtime folder; a child is started with its path and
finds the ring, the doorbells and the configuration in it.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from hitfinder.stream.ring import CONTROL, MAX_ROLES, Bells, Layout, Ring
from hitfinder.workers.config import Config

# Fixed places in the ring's table of heartbeats; workers follow.
SOURCE_ROLE, SINK_ROLE, FIRST_WORKER_ROLE = 0, 1, 2
MAX_WORKERS = MAX_ROLES - FIRST_WORKER_ROLE


class Session(msgspec.Struct):
    """What a child reads at its start; descriptors are inherited under the same numbers."""

    runtime: str
    ring_fd: int
    n_slots: int
    slot_bytes: int
    bells: dict[str, int]
    config: Config
    devices: list[str]
    replay: list[str] = []
    """Recorded runs to read instead of the wire."""
    cluster: str | None = None
    """Address of the cluster whose nodes judge them; None for this machine's workers."""

    def save(self) -> Path:
        """Write the session to its runtime folder and return the file."""
        path = Path(self.runtime) / "session.json"
        path.write_bytes(msgspec.json.encode(self))
        return path

    @classmethod
    def load(cls, path: Path) -> Session:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def leave_last_words(self, role: int, error: Exception) -> None:
        """Leave the reason of a child's end for the supervisor's log and `status`."""
        self.leave_words(role, " ".join(f"{type(error).__name__}: {error}".split()))

    def leave_words(self, role: int, words: str) -> None:
        """Leave what a child is at, for the supervisor to tell should nothing more come.

        Written through the descriptor: there may be no memory left to map the ring with.
        """
        text, at = dict(CONTROL.fields or {})["last_words"][:2]
        width = text.itemsize // MAX_ROLES
        begin = Layout(self.n_slots, self.slot_bytes).offsets["control"] + at + role * width
        said = words.encode(errors="replace")[:width].ljust(width, b"\0")
        os.pwrite(self.ring_fd, said, begin)

    def attach(self) -> tuple[Ring, Bells]:
        """Map the ring and take the doorbells."""
        return Ring(self.ring_fd, Layout(self.n_slots, self.slot_bytes)), Bells(self.bells)


class Pulse:
    """A child's sign of life, and its way to learn that it should stop.

    Signals of the terminal or the service manager go to the whole group; only the supervisor acts
    on them, so that what is in the ring is judged and stored first.
    """

    def __init__(self, ring: Ring, role: int) -> None:
        self.ring, self.role = ring, role
        self._parent = os.getppid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def ready(self) -> None:
        """Say that this child is up."""
        gc.freeze()  # what stands now stays: the collector need not walk it again and again
        self.ring.control["ready"][0, self.role] = 1

    def beat(self) -> bool:
        """Note that this child lives; False once it should stop, or its supervisor is gone."""
        self.ring.control["heartbeat_ns"][0, self.role] = time.monotonic_ns()
        return not self.stop_level() and not self.orphaned()

    def stop_level(self) -> int:
        """Return 0 to run, 1 when the source should end, 2 when all is stored."""
        return int(self.ring.control["stop"][0])

    def orphaned(self) -> bool:
        """Say whether the supervisor is gone."""
        return os.getppid() != self._parent

    def until(self, level: int) -> Callable[[], bool]:
        """Return a function that says whether to go on until stop level `level`."""

        def go_on() -> bool:
            self.beat()
            return self.stop_level() < level and not self.orphaned()

        return go_on
