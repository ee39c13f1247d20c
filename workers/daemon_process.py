"""A daemon as a child process: started, listened to, its costs read, stopped.

One rule: whoever starts it here (bench, demo) sees only what any user sees: the command line, the
ready line, the results topic.
"""

from __future__ import annotations

import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

from hitfinder import HitfinderError
from hitfinder.workers.held import Held, held_by_job
from hitfinder.workers.spent import Spent, spent_by_job

# Loading torch in three processes on a busy machine takes its time.
READY_S = 120.0
# The first status comes within a second of the subscription's arrival.
SUBSCRIBED_S = 20.0
STOP_S = 60.0
# No result for so long means that none will come.
SILENCE_S = 60.0
RECEIVE_QUEUE = 100_000
LOG_TAIL_BYTES = 1500


class DaemonError(HitfinderError):
    """The daemon did not start, or died; the text holds its last words."""


class DaemonProcess:
    """`hitfinder-stream run` with free ports, as a context manager.

    Args:
        source: detector endpoint.
        out: folder of the run; the log goes beside its series as `daemon.log`.
        arguments: further options of `run`.

    Raises:
        DaemonError: it did not get ready.

    Attributes:
        results, http: where it publishes, and its page's HOST:PORT, once it is ready.
    """

    def __init__(self, source: str, out: Path, arguments: Sequence[str] = ()) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.log = out / "daemon.log"
        ends = ["--results", "tcp://127.0.0.1:*", "--http", "127.0.0.1:0"]
        command = [sys.executable, "-m", "hitfinder.workers.cli", "run", "--source", source]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--out", str(out), *ends, *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.RCVHWM, RECEIVE_QUEUE)
        self._socket.set(zmq.SUBSCRIBE, b"")
        self.results = self.http = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self.close()

    @property
    def pid(self) -> int:
        """The supervisor's process number."""
        return self._process.pid

    def close(self) -> None:
        """Listen no more."""
        self._socket.close(0)
        self._context.term()

    def wait_ready(self) -> None:
        """Wait for the ready line, then until this subscription has reached the publisher.

        Raises:
            DaemonError: it ended, or took too long.
        """
        found = re.search(r"\bresults=(\S+).* http=(\S+)", self._first_line())
        if found is None:
            raise self.failure("its first line is no ready line")
        self.results, self.http = found.groups()
        self._socket.connect(self.results)
        for topic, _ in self.messages(SUBSCRIBED_S):
            if topic == "status":
                return
        raise self.failure(f"no status within {SUBSCRIBED_S:.0f} s")

    def messages(self, within_s: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (topic, map) of the results topic until the time is up.

        Raises:
            DaemonError: the daemon ended and nothing is left to read.
        """
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            if self._socket.poll(100):
                topic, body = self._socket.recv_multipart()[:2]
                yield topic.decode(), msgspec.msgpack.decode(body)
            elif self._process.poll() is not None:
                raise self.failure(f"it ended with status {self._process.returncode}")

    def series(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (topic, map) up to the next `series.end`, which is the last.

        Raises:
            DaemonError: the daemon ended, or published no result for a minute.
        """
        n_results, quiet_from_s = 0, time.monotonic()
        while time.monotonic() - quiet_from_s < SILENCE_S:
            for topic, message in self.messages(1.0):
                yield topic, message
                if topic == "series.end":
                    return
                if topic.startswith("result."):
                    n_results, quiet_from_s = n_results + 1, time.monotonic()
        raise self.failure(f"{n_results} frames of a series published, then nothing")

    def held(self) -> dict[str, Held]:
        """Return what every process of the daemon holds now, by its job."""
        return held_by_job(self._process.pid)

    def spent(self) -> dict[str, Spent]:
        """Return what every process of the daemon has spent so far, by its job."""
        return spent_by_job(self._process.pid)

    def wait(self, within_s: float = STOP_S) -> int:
        """Wait until it ends by itself (`--max-series`); returns its exit status."""
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise self.failure(f"it did not end within {within_s:.0f} s") from None

    def stop(self) -> int:
        """Ask it to drain and end; kill it if it does not. Returns its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.returncode

    def failure(self, what: str) -> DaemonError:
        """Return an error that shows the end of the daemon's log."""
        tail = self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return DaemonError(f"the daemon failed: {what}; {self.log} ends:\n{tail}")

    def _first_line(self) -> str:
        pipe, deadline_s = self._process.stdout, time.monotonic() + READY_S
        if pipe is None:
            raise AssertionError("stdout is a pipe")
        while time.monotonic() < deadline_s:
            if select.select([pipe], [], [], 0.2)[0]:
                return pipe.readline().decode(errors="replace")
            if self._process.poll() is not None:
                break
        raise self.failure("it did not get ready")
