"""What a soak looks at from outside: the daemon's topic, its processes, its files.

One rule: nothing here trusts the daemon's own sums; each is taken again from what was published,
from /proc and from the files on disk.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from hitfinder.workers.daemon_process import DaemonError, DaemonProcess
from hitfinder.workers.processes import jobs_of

POLL_S = 0.05
# What `storing.mend` says of each folder.
MENDED = "left by a killed daemon"


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a daemon: its job, number and, from /proc, what it holds."""

    job: str
    pid: int

    def footprint(self) -> tuple[float, int] | None:
        """Return (MiB of memory of its own, open file handles); None once it is gone."""
        proc = Path(f"/proc/{self.pid}")
        try:
            lines = (proc / "status").read_text().splitlines()
            n_handles = len(os.listdir(proc / "fd"))
        except OSError:
            return None
        own = [int(line.split()[1]) for line in lines if line.startswith("RssAnon:")]
        return (own[0] / 1024, n_handles) if own else None


def processes_of(supervisor: int) -> list[Process]:
    """Return the supervisor and its children."""
    return [Process(job, pid) for pid, job in jobs_of(supervisor).items()]


def wait_until_gone(processes: list[Process], within_s: float) -> list[Process]:
    """Return those that still run after the time."""
    deadline_s = time.monotonic() + within_s
    while left := [p for p in processes if p.footprint() is not None]:
        if time.monotonic() > deadline_s:
            return left
        time.sleep(POLL_S)
    return []


@dataclass(slots=True)
class Topic:
    """All that one daemon published.

    Attributes:
        verdicts: unique id -> frame -> outcome.
        stored: unique id -> [(frame, file, row)] of hits.
        heard: unique ids of the series whose start was heard, so that all of it was.
        with_header: of these, the ones whose header the daemon had.
        ends: every `series.end`.
        n_twice: frames that had a verdict already.
    """

    verdicts: dict[str, dict[int, str]] = field(default_factory=dict)
    stored: dict[str, list[tuple[int, str, int]]] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    with_header: set[str] = field(default_factory=set)
    ends: list[dict[str, Any]] = field(default_factory=list)
    n_twice: int = 0

    def take(self, topic: str, message: dict[str, Any]) -> None:
        """Write one message down."""
        uid = message.get("series_uid") or ""
        if topic == "series.end":
            self.ends.append(message)
        elif topic == "series.start":
            self.heard.add(uid)
            if message["n_frames"] is not None:
                self.with_header.add(uid)
        elif topic.startswith("result."):
            of_series = self.verdicts.setdefault(uid, {})
            self.n_twice += message["frame"] in of_series
            of_series[message["frame"]] = message["outcome"]
            if message["outcome"] == "hit":
                place = message["frame"], message["file"], message["row"]
                self.stored.setdefault(uid, []).append(place)


class WatchedDaemon:
    """A daemon that is listened to by a thread until it is gone.

    Attributes:
        topic: what it has published so far.
        processes: every process of it that was ever seen, by number.
    """

    def __init__(self, source: str, out: Path, arguments: list[str]) -> None:
        self._daemon = DaemonProcess(source, out, arguments)
        self._daemon.wait_ready()
        self.source, self.pid, self.log = source, self._daemon.pid, self._daemon.log
        self.topic = Topic()
        self.processes: dict[int, Process] = {}
        self._thread = threading.Thread(target=self._listen, name="topic")
        self._thread.start()

    def living(self) -> list[Process]:
        """Return the processes that run now."""
        found = processes_of(self.pid)
        self.processes.update({p.pid: p for p in found})
        return found

    def mended(self) -> list[str]:
        """Return the lines of the log that tell of a killed predecessor's files."""
        return [line for line in self.log.read_text().splitlines() if MENDED in line]

    def stop(self) -> int:
        """Ask it to drain; return its exit status once its last words are read."""
        self.living()
        status = self._daemon.stop()
        self._thread.join()
        self._daemon.close()
        return status

    def _listen(self) -> None:
        try:
            for topic, message in self._daemon.messages(math.inf):
                self.topic.take(topic, message)
        except DaemonError:
            pass  # it is gone, and all that it said is read


def hits_not_where_said(topic: Topic, out: Path) -> list[str]:
    """Return a sentence for each published hit that is not in the file and row it names."""
    wrong = []
    for uid, places in topic.stored.items():
        folders = sorted(out.glob(f"series_*_{uid}*"), key=lambda f: (len(f.name), f.name))
        frames: dict[str, list[int]] = {}
        for frame, file, row in places:
            path = folders[-1] / file
            if file not in frames and not path.exists():
                wrong.append(f"hit {frame} of {uid}: {path.name} is not there")
                continue
            if file not in frames:
                with h5py.File(path, "r", libver="latest", swmr=True) as opened:
                    frames[file] = opened["entry/hitfinder/frame"][:].tolist()
            if row >= len(frames[file]) or frames[file][row] != frame:
                wrong.append(f"hit {frame} of {uid} is not in row {row} of {file}")
    return wrong


def outcomes(topic: Topic) -> Counter[str]:
    """Return how many frames had each outcome."""
    return Counter(o for frames in topic.verdicts.values() for o in frames.values())
