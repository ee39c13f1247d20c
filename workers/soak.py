"""`soak`: the daemon under changing rate, faults and kills, and an account of every frame.

One rule: what is claimed at the end is counted anew from what the simulator sent, what the topic
said and what lies on disk; the report holds the figures, and whether each claim held.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hitfinder.workers.soak_account import Account, Kill, Sample
from hitfinder.workers.soak_beam import Beam
from hitfinder.workers.soak_watch import (
    WatchedDaemon,
    hits_not_where_said,
    wait_until_gone,
)

log = logging.getLogger(__name__)

VICTIMS = ("receiver", "worker", "sink", "supervisor")
SAMPLE_S = 5.0
STEP_S = 0.1
# Two kills are at least so far apart.
LEAST_PAUSE_S = 1.0
# Children notice the supervisor's death by themselves, the slowest at its next frame.
ORPHANS_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakOptions:
    """The command's options.

    Attributes:
        out: the run's folder, new or empty.
        seconds: at least so long.
        kills: and at least so many kills, each in turn of `victims`, then at random, alternately.
        kill_every_s: mean time between kills, more than a second.
        max_rate_Hz: a series' rate is drawn between half of this and this.
        shape: (ss, fs) of the images.
        has_faults: whether the detector has bad days.
        device: as `run --device`.
    """

    out: Path
    seconds: float
    kills: int = 0
    victims: tuple[str, ...] = VICTIMS[:3]
    kill_every_s: float = 10.0
    max_rate_Hz: float = 100.0
    shape: tuple[int, int] = (512, 512)
    has_faults: bool = True
    device: str = "cpu"
    seed: int = 0


class Soak:
    """One campaign: a beam, daemons one after the other, and the account of both."""

    def __init__(self, options: SoakOptions, stop: threading.Event) -> None:
        self.options, self._stop = options, stop
        self._rng = np.random.default_rng([options.seed, 1])
        self._turn = itertools.cycle(options.victims)
        self._arguments = ["--device", options.device]
        self._begin_s = time.monotonic()
        self.account = Account(options.out)

    def run(self) -> Account:
        """Send, kill and watch until it is enough; then stop all, and take the account."""
        o = self.options
        beam = Beam(o.shape, o.max_rate_Hz, o.seed, has_faults=o.has_faults)
        self._daemon = WatchedDaemon(beam.endpoint, o.out, self._arguments)
        beam.start()
        try:
            self._watch(beam)
        finally:
            beam.stop()
            self._end_daemon()
        self.account.sent, self.account.beam_failure = beam.sent, beam.failure
        self.account.seconds = time.monotonic() - self._begin_s
        self.account.close()
        return self.account

    def _watch(self, beam: Beam) -> None:
        kills, sample_at_s = self._kills(), 0.0
        for _ in iter(lambda: self._is_done() or bool(beam.failure), True):
            now_s = time.monotonic() - self._begin_s
            if now_s >= sample_at_s:
                self._sample(now_s)
                sample_at_s = now_s + SAMPLE_S
            if len(self.account.kills) < self.options.kills:
                next(kills)
            self._stop.wait(STEP_S)

    def _is_done(self) -> bool:
        o, now_s = self.options, time.monotonic() - self._begin_s
        enough = now_s >= o.seconds and len(self.account.kills) >= o.kills
        return self._stop.is_set() or enough

    def _kills(self) -> Iterator[None]:
        """Kill somebody at random times, whether or not the daemon is well again."""
        longest_s = 2 * self.options.kill_every_s - LEAST_PAUSE_S
        while True:
            at_s = time.monotonic() + self._rng.uniform(LEAST_PAUSE_S, longest_s)
            while time.monotonic() < at_s:
                yield
            victim = next(self._turn)
            if len(self.account.kills) % 2:
                victim = str(self._rng.choice(self.options.victims))
            self._kill(victim)

    def _kill(self, victim: str) -> None:
        living = self._daemon.living()
        chosen = [p for p in living if p.job == victim]
        if not chosen:
            return  # its successor is not there yet
        log.info("kill -9 %s", victim)
        os.kill(chosen[0].pid, signal.SIGKILL)
        self.account.kills.append(Kill(time.monotonic() - self._begin_s, victim))
        if victim == "supervisor":
            self._account_of_a_killed_daemon()
            self._daemon = WatchedDaemon(self._daemon.source, self.options.out, self._arguments)
            self.account.recovered += self._daemon.mended()

    def _account_of_a_killed_daemon(self) -> None:
        daemon, account = self._daemon, self.account
        left = wait_until_gone(list(daemon.processes.values()), ORPHANS_S)
        account.problems += [f"{p.job} outlived its killed supervisor" for p in left]
        daemon.stop()
        account.topics.append(daemon.topic)
        account.problems += hits_not_where_said(daemon.topic, self.options.out)
        account.n_stored_checked += sum(map(len, daemon.topic.stored.values()))
        daemon.log.rename(daemon.log.with_name(f"daemon_{len(account.topics):03d}.log"))

    def _end_daemon(self) -> None:
        daemon, account = self._daemon, self.account
        account.exit_status = daemon.stop()
        account.topics.append(daemon.topic)
        account.problems += hits_not_where_said(daemon.topic, self.options.out)
        account.n_stored_checked += sum(map(len, daemon.topic.stored.values()))
        left = wait_until_gone(list(daemon.processes.values()), ORPHANS_S)
        account.problems += [f"{p.job} outlived the daemon" for p in left]
        self._look_for_what_is_left_of(daemon)

    def _look_for_what_is_left_of(self, daemon: WatchedDaemon) -> None:
        """Name its runtime folder, if it is there: all else that it shared had no name."""
        left = Path(tempfile.gettempdir()).glob(f"hitfinder-{daemon.pid}-*")
        self.account.problems += [f"{folder} was left behind" for folder in left]

    def _sample(self, now_s: float) -> None:
        for process in self._daemon.living():
            held = process.footprint()
            if held is not None:
                self.account.samples.append(Sample(now_s, process.job, process.pid, *held))
