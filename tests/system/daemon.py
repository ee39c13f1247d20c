"""The real daemon as its users meet it: a process, its results topic, its folder of files.

One rule: nothing of the daemon's own code is used to look at it. The topic is read with plain
ZMQ and msgpack, the files with h5py; whatever was started is killed with all its children when
the test is over. Contracts: design section 7.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that kept images need)
import msgpack
import numpy as np
import zmq
from numpy.typing import NDArray

PROGRAM = str(Path(sys.executable).with_name("hitfinder-stream"))
# Generous: another job may have both cores. A healthy machine needs a tenth.
READY_S, WAIT_S, EXIT_S = 60.0, 60.0, 60.0
OUTCOMES = ("hit", "miss", "dropped", "corrupt", "lost", "missing")


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Return once `condition` holds; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.02)


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(
    *arguments: str, limit_s: float = EXIT_S, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run `hitfinder-stream` to its end; `settings` are added to the environment."""
    return subprocess.run(
        [PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=limit_s,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **settings},
    )


class Detector:
    """A bound PUSH socket that sends what it is given, as a detector does."""

    def __init__(self, port: int | None = None) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDTIMEO, round(WAIT_S * 1000))
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.bind(f"tcp://127.0.0.1:{port or '*'}")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def send(self, *messages: Sequence[bytes]) -> None:
        """Send messages, each a list of parts."""
        for parts in messages:
            self._socket.send_multipart(parts)

    def offer(self, parts: Sequence[bytes], timeout_s: float = 0.1) -> bool:
        """Send one message if somebody takes it in time; say whether."""
        if not self._socket.poll(round(timeout_s * 1000), zmq.POLLOUT):
            return False
        self._socket.send_multipart(parts)
        return True

    def close(self) -> None:
        """Let what is queued leave for a moment, then be gone."""
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Closed:
    """A series that is over.

    Attributes:
        end: its `series.end`.
        records: frame -> verdict as published.
        folder: its files.
    """

    end: dict[str, Any]
    records: dict[int, dict[str, Any]]
    folder: Path

    @property
    def outcomes(self) -> dict[int, str]:
        """Return frame -> outcome."""
        return {frame: record["outcome"] for frame, record in self.records.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Return the outcomes that the end counts, without those that are 0."""
        return {name: self.end[name] for name in OUTCOMES if self.end[name]}

    @property
    def n_judged(self) -> int:
        """Return the number of hits and misses."""
        return int(self.end["hit"] + self.end["miss"])


class Daemon:
    """`hitfinder-stream run` or `replay`, its log, and all that it published.

    Args:
        folder: kept apart for this daemon: configuration, log, runtime files, `out`.
        arguments: sub-command and what belongs to it, without --out, --results, --http.
        config: TOML text.
        device: one CPU worker unless asked for more, so that children are the same everywhere.
        has_page: False for a run over a cluster, which has none.
        out: the folder that it writes to, if not its own.

    Attributes:
        results: (topic, message) in order of arrival, without `status`.
        statuses: the `status` messages.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        config: str = "",
        device: str = "cpu:1",
        has_page: bool = True,
        out: Path | None = None,
    ) -> None:
        self.out, self._log_file = out or folder / "out", folder / "log.txt"
        self._runtime = folder / "runtime"
        self._runtime.mkdir(parents=True)
        self.endpoint = f"tcp://127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.results: list[tuple[str, dict[str, Any]]] = []
        self.statuses: list[dict[str, Any]] = []
        self._over = threading.Event()
        self._reader = threading.Thread(target=self._collect, name="results")
        self._reader.start()
        line = [PROGRAM, *arguments, "--out", str(self.out), "--results", self.endpoint]
        line += ["--device", device, *(("--http", self.http) if has_page else ())]
        if config:
            (folder / "config.toml").write_text(config)
            line += ["--config", str(folder / "config.toml")]
        with self._log_file.open("w") as log:
            self.process = subprocess.Popen(
                line,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(self._runtime)},
            )

    @property
    def log(self) -> str:
        """Everything that the daemon and its children printed."""
        return self._log_file.read_text(errors="replace")

    @property
    def records(self) -> list[dict[str, Any]]:
        """The frames' verdicts, in order of arrival."""
        return [message for topic, message in list(self.results) if topic.startswith("result.")]

    @property
    def runtime_files(self) -> list[Path]:
        """What the daemon left behind in its temporary folder."""
        return list(self._runtime.iterdir())

    @property
    def status(self) -> dict[str, Any]:
        """The latest `status`."""
        return self.statuses[-1]

    def closed(self, series: int, since: int = 0, uid: str | None = None) -> Closed:
        """Return a series once its end has come, of what was published after message `since`.

        Fails unless it adds up: one verdict a frame, none left out, counts as published.

        Args:
            uid: its unique id, where the number alone does not tell it from another.
        """

        def is_mine(message: dict[str, Any]) -> bool:
            return message["series"] == series and uid in (None, message["series_uid"])

        def ended() -> bool:
            return any(t == "series.end" and is_mine(m) for t, m in self.results[since:])

        wait_for(
            lambda: ended() or not self.is_alive,
            f"the end of series {series}; log ends {self.log[-400:]}",
        )
        wait_for(ended, f"the end of series {series}; the daemon is gone", 2.0)
        mine = [(t, m) for t, m in self.results[since:] if is_mine(m)]
        (end,) = [message for topic, message in mine if topic == "series.end"]
        records = [message for topic, message in mine if topic.startswith("result.")]
        closed = Closed(end, {r["frame"]: r for r in records}, self.out / end["folder"])
        assert len(closed.records) == len(records), "a frame has two verdicts"
        first = min(closed.records, default=0)  # 0 but for a series joined late
        assert sorted(closed.records) == list(range(first, first + end["announced"]))
        assert closed.counts == dict(Counter(r["outcome"] for r in records))
        assert end["balanced"] is True
        return closed

    @property
    def is_alive(self) -> bool:
        """Say whether the supervisor runs."""
        return self.process.poll() is None

    def children(self) -> dict[str, int]:
        """Return name -> process id of the daemon's children."""
        return {
            words[words.index(b"hitfinder.workers.child") + 1].decode(): pid
            for pid, parent, words in _processes()
            if parent == self.process.pid and b"hitfinder.workers.child" in words
        }

    def wait_ready(self) -> Self:
        """Return once the daemon listens and this subscriber hears it."""
        wait_for(
            lambda: "ready source=" in self.log or not self.is_alive,
            f"the ready line; log ends {self.log[-400:]}",
            READY_S,
        )
        wait_for(lambda: bool(self.statuses) or not self.is_alive, "the first status")
        assert self.is_alive, self.log
        return self

    def wait_status(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Return the first status that says so, of those that come from now on."""
        n = len(self.statuses)
        wait_for(lambda: any(holds(s) for s in self.statuses[n:]) or not self.is_alive, what)
        return next(s for s in self.statuses[n:] if holds(s))

    def terminate(self) -> int:
        """Ask the daemon to drain, as a service manager does; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_exit()

    def wait_exit(self) -> int:
        """Return the exit status once the daemon is gone and its last words are read."""
        wait_for(lambda: not self.is_alive, f"exit; log ends {self.log[-400:]}", EXIT_S)
        self._over.set()
        self._reader.join()
        return int(self.process.returncode)

    def close(self) -> None:
        """Kill whatever is still there."""
        for pid in self.orphans():
            _kill(pid)
        if self.is_alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._over.set()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def orphans(self) -> list[int]:
        """Return the processes that work for this daemon, also those of a dead supervisor.

        A child's command line names its session, which lies in the runtime folder.
        """
        return [
            pid
            for pid, _, words in _processes()
            if any(str(self._runtime).encode() in word for word in words)
        ]

    def _collect(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as sub:
            sub.setsockopt(zmq.RCVHWM, 0)
            sub.setsockopt(zmq.LINGER, 0)
            sub.setsockopt(zmq.RECONNECT_IVL, 20)
            sub.setsockopt(zmq.SUBSCRIBE, b"")
            sub.connect(self.endpoint)
            while sub.poll(100) or not self._over.is_set():
                if not sub.poll(0):
                    continue
                topic, payload = sub.recv_multipart()
                message = msgpack.unpackb(payload)
                if topic == b"status":
                    self.statuses.append(message)
                else:
                    self.results.append((topic.decode(), message))


def kept_images(folder: Path) -> dict[int, dict[str, NDArray[Any]]]:
    """Return frame -> dataset -> pixels of all that is kept of a series, as h5py reads them."""
    kept: dict[int, dict[str, NDArray[Any]]] = {}
    for path in sorted(folder.glob("*s_??????.h5")):
        with h5py.File(path) as file:
            group = file["entry/data"]
            for row, frame in enumerate(file["entry/hitfinder/frame"][:].tolist()):
                assert frame not in kept, f"frame {frame} is kept twice"
                kept[frame] = {name: group[name][row] for name in group}
    return kept


@contextmanager
def running(
    folder: Path, detector: Detector, *arguments: str, config: str = "", device: str = "cpu:1"
) -> Iterator[Daemon]:
    """Yield a daemon that reads this detector and listens."""
    line = ("run", "--source", detector.endpoint, *arguments)
    with Daemon(folder, *line, config=config, device=device) as daemon:
        yield daemon.wait_ready()


def _processes() -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield (pid, parent's pid, command line) of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            yield int(entry.name), parent, words


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def pixels_sha256(image: NDArray[np.generic]) -> str:
    """Return the hash of an image's little-endian C-order bytes, as manifests give it."""
    little = image.astype(image.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()
