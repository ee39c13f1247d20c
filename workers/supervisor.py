"""The process that owns the ring and the children, and outlives them.

One rule: it does nothing that could kill it: no torch, no files but its runtime folder, no bytes
decoded that no worker has decoded before. It holds the detector's connection, publishes what is
stored, ends series, restarts what died.

    start children -> ready -> [ publish, step series, bury and restart ] -> drain -> exit
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import zmq

from hitfinder import HitfinderError
from hitfinder.stream.connection import Connection
from hitfinder.stream.results import Outcome
from hitfinder.stream.ring import Bells, Layout, Ring, State, create_memory
from hitfinder.workers.children import Child, reclaim
from hitfinder.workers.config import Config, ConfigError
from hitfinder.workers.control import Control
from hitfinder.workers.daemon_state import DaemonState
from hitfinder.workers.detector_status import DetectorStatus
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.publisher import Publisher
from hitfinder.workers.session import (
    FIRST_WORKER_ROLE,
    MAX_WORKERS,
    SINK_ROLE,
    SOURCE_ROLE,
    Session,
)

log = logging.getLogger(__name__)

TICK_S = 0.1
# A dead child is noticed within this; asking at every frame would cost more than publishing it.
WATCH_S = 0.05
RUNTIME_PREFIX = "hitfinder-"
# Loading torch on a busy machine takes its time; longer means something is wrong.
READY_TIMEOUT_S = 120.0
# A cluster's nodes load it over their file system, when they have room.
CLUSTER_READY_TIMEOUT_S = 900.0
# Bounds of a graceful stop: the source's own drain, then judging and storing what is here.
SOURCE_STOP_S, STORE_STOP_S, CHILD_STOP_S = 10.0, 60.0, 10.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What `run` and `replay` add to the configuration.

    Attributes:
        devices: of the workers here; none where a cluster judges.
        cluster: its address; None if the workers here judge.
    """

    config: Config
    out: Path
    devices: tuple[str, ...]
    replay: tuple[Path, ...] = ()
    cluster: str | None = None
    max_series: int | None = None
    on_ready: Callable[[str], None] = print
    on_status: Callable[[dict[str, Any]], None] = lambda status: None


def make_runtime() -> Path:
    """Make the folder of what the processes of one daemon share; drop those of killed daemons."""
    for left in Path(tempfile.gettempdir()).glob(f"{RUNTIME_PREFIX}*-*"):
        pid = left.name.removeprefix(RUNTIME_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            log.warning("a daemon with process number %s was killed; forgetting its headers", pid)
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{RUNTIME_PREFIX}{os.getpid()}-"))


class Supervisor:
    """One daemon, from the first child's start to the last file's flush."""

    def __init__(self, options: RunOptions) -> None:
        n = len(options.devices)
        if options.cluster is None and not 1 <= n <= MAX_WORKERS:
            raise ConfigError(f"workers.devices: got {n} devices, expected 1 to {MAX_WORKERS}")
        self.options, self._stop_signals, self._parent = options, 0, os.getppid()
        self._check_out()
        config = options.config
        layout = Layout(config.ring.slots, config.ring.slot_bytes)
        fd = create_memory(layout)
        self.ring = Ring(fd, layout)
        self.ring.control["is_share"][0] = config.member.number > 0
        source = "reader" if options.replay else "receiver"
        source = "cluster" if options.cluster else source
        names = ["connection", "inbox", "receiver", "sink", "supervisor"]
        names += [f"worker{i}" for i in range(len(options.devices))]
        self.bells = Bells.create(names)
        self.runtime = make_runtime()
        session = Session(
            str(self.runtime),
            fd,
            layout.n_slots,
            layout.slot_bytes,
            self.bells.fds,
            config,
            list(options.devices),
            [str(p) for p in options.replay],
            options.cluster,
        ).save()
        fds = (fd, *self.bells.fds.values())
        roles = [(source, SOURCE_ROLE), ("sink", SINK_ROLE)]
        roles += [("worker", FIRST_WORKER_ROLE + i) for i in range(len(options.devices))]
        self.children = [Child(name, role, session, fds) for name, role in roles]
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self.control = Control(self.ring, config, self.runtime, len(options.devices))
            self.publisher = Publisher(
                self._context,
                config.sink,
                self.ring,
                self.bells,
                self.runtime,
                OperatorGeometry(config.geometry),
            )
        except ConfigError:
            shutil.rmtree(self.runtime)
            raise
        self.connection = Connection(self.ring, self.bells, config.source.endpoints)
        self.detector = DetectorStatus(config.source.rest)
        self.state = DaemonState(
            self.ring, self.publisher, self.children, self.control, self.detector
        )
        self._watched_at_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self) -> int:
        """Run until stopped, finished or `max_series`; returns the exit status."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._on_signal)
        self._start()
        while not self._finished():
            self._tick()
        return self._drain()

    def close(self) -> None:
        """End what is left of the children, and leave nothing behind but the run's files."""
        for child in self.children:
            if child.process is not None and child.alive:
                child.process.kill()
                child.process.wait()
        self.connection.close()
        self.detector.close()
        self.publisher.close()
        self._context.term()
        for fd in (self.ring.fd, *self.bells.fds.values()):
            os.close(fd)
        shutil.rmtree(self.runtime, ignore_errors=True)

    # ------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._note_who_is_down()
        for child in self.children:
            child.start()
        timeout_s = CLUSTER_READY_TIMEOUT_S if self.options.cluster else READY_TIMEOUT_S
        deadline, words = time.monotonic() + timeout_s, b""
        while not all(c.is_ready(self.ring) or c.done for c in self.children):
            for child in self.children:
                if not child.alive and not child.done and child.process is not None:
                    code = child.process.returncode
                    if code == 0 and child.name == "reader":
                        child.done = True
                        continue
                    raise HitfinderError(
                        f"{child.name} did not start (exit {code}); its reason stands above"
                    )
            if self._stop_signals:
                raise HitfinderError("stopped before it was ready")
            # A reader says which file it opens: thousands of them may take long, one may not.
            if (said := self.ring.control["last_words"].tobytes()) != words:
                deadline, words = time.monotonic() + timeout_s, said
            if time.monotonic() > deadline:
                raise HitfinderError(self._not_ready(timeout_s))
            if self.state.is_due():
                self.state.renew()
            self.bells.wait("supervisor", TICK_S)
        self._note_who_is_down()
        if not self.options.replay:
            self.connection.start()
        cluster = self.options.cluster
        source = ", ".join(self.options.config.source.endpoints or map(str, self.options.replay))
        self.options.on_ready(
            f"ready source={source} results={self.publisher.endpoint} out={self.options.out} "
            + (f"cluster={cluster}" if cluster else f"devices={','.join(self.options.devices)}")
        )

    def _not_ready(self, waited_s: float) -> str:
        """Return which children have not reported for work, and what they are at."""
        waiting = [c for c in self.children if not (c.is_ready(self.ring) or c.done)]
        doing = [f"{c.name} {words}".rstrip() for c in waiting for words in [c.words(self.ring)]]
        text = f"not ready after {waited_s:.0f} s ({', '.join(doing)}); stopped"
        if any("opening" in child for child in doing):
            text += ". HDF5 may loop over damaged bytes: try the file with h5ls, or leave it out"
        return text

    def _tick(self, *, source_gone: bool = False) -> None:
        published = self.publisher.publish_stored()
        self.publisher.step_series(source_gone=source_gone)
        now = time.monotonic()
        if now - self._watched_at_s >= WATCH_S:
            self._watch_children()
            self._watched_at_s = now
            if self.connection.has_failed:
                raise HitfinderError("reading from the detector failed; its reason stands above")
        if self.state.is_due():
            self._tell_state()
        if not published:
            self.bells.wait("supervisor", TICK_S)

    def _tell_state(self) -> None:
        self.state.renew()
        self.publisher.status(self.state.latest)
        self.options.on_status(self.state.latest)

    def _finished(self) -> bool:
        wanted = self.options.max_series
        enough = wanted is not None and self.publisher.n_released >= wanted
        # A member of a cluster is stopped by what started it, and ends with it.
        is_left = bool(self.options.config.member.number) and os.getppid() != self._parent
        return bool(self._stop_signals) or enough or is_left or self.children[0].done

    def _watch_children(self) -> None:
        for child in self.children:
            if child.done:
                continue
            if child.buried(self.ring):
                if child.role == SOURCE_ROLE and self.ring.control["source_done"][0]:
                    child.done = True
                    continue
                n = reclaim(self.ring, self.bells, child.role) if child.name == "worker" else 0
                log.error(
                    "%s died (%s), %d frames go to its successor in %.1f s",
                    child.name,
                    child.last_exit,
                    n,
                    child.pause_s,
                )
            if child.process is None and time.monotonic() >= child.not_before_s:
                child.start()
            child.kill_if_hung(self.ring)
        self._note_who_is_down()

    def _note_who_is_down(self) -> None:
        """Tell the receiver, who then holds a full ring for longer."""
        down = [c for c in self.children if not c.done and not c.is_ready(self.ring)]
        self.ring.control["n_down"][0] = len(down)
        if self.children[0] in down:
            self.ring.control["t_unread_ns"][0] = time.monotonic_ns()

    def _drain(self) -> int:
        """End the source, let everything in the ring be judged and stored, end the rest."""
        source = self.children[0]
        self.ring.control["stop"][0] = 1
        self.bells.ring("receiver")
        self._tick_until(lambda: source.done or not source.alive, SOURCE_STOP_S)
        if source.process is not None and source.alive:
            log.error("%s did not stop in %.0f s; killed", source.name, SOURCE_STOP_S)
            source.process.kill()
            source.process.wait()
        source.done = True
        self.connection.close()
        self._settle_orphans()
        stored = self._store_rest()
        self.ring.control["stop"][0] = 2
        self.bells.ring("")
        for child in self.children[1:]:
            self._wait_exit(child)
        self._tell_state()
        return 0 if stored else 1

    def _store_rest(self) -> bool:
        """Have all that is in the ring stored, and all series closed; False if it took too long.

        A replay over a cluster leaves unfinished series open, for the next one to go on with.
        """
        series = self.publisher.series
        if self.options.cluster:
            return self._tick_until(
                lambda: bool((self.ring.states == State.FREE).all()), STORE_STOP_S
            )
        stored = self._tick_until(
            lambda: not series.open_entries(), STORE_STOP_S, source_gone=True
        )
        if not stored:
            log.error(
                "%d series could not be closed in %.0f s", len(series.open_entries()), STORE_STOP_S
            )
        return stored

    def _settle_orphans(self) -> None:
        """With the source gone, nobody completes any more what it left half done."""
        for slot in self.ring.in_state(State.FILLING):
            if self.ring.slots["seq"][slot] == 0:
                self.ring.release(slot)
            else:
                self.ring.settle(slot, Outcome.LOST, "the source died while taking it")
        self.bells.ring("sink")

    def _tick_until(
        self, done: Callable[[], bool], bound_s: float, *, source_gone: bool = False
    ) -> bool:
        deadline = time.monotonic() + bound_s
        while not done():
            if time.monotonic() > deadline:
                return False
            self._tick(source_gone=source_gone)
        return True

    def _wait_exit(self, child: Child) -> None:
        if child.process is None:
            return
        deadline = time.monotonic() + CHILD_STOP_S
        while child.alive and time.monotonic() < deadline:
            self.bells.wait("supervisor", TICK_S)
        if child.alive:
            log.error("%s did not stop in %.0f s; killed", child.name, CHILD_STOP_S)
            child.process.kill()
            child.process.wait()

    def _check_out(self) -> None:
        out = self.options.out
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out):
                pass
        except OSError as error:
            raise ConfigError(
                f"output folder {out}: {error.strerror}; give a writable one with --out"
            ) from error

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop_signals += 1
        if self._stop_signals > 2:
            raise KeyboardInterrupt
