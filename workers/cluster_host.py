"""What runs on the cluster of a live run: an actor a host, and one that keeps headers and ends.

One rule: a host's actor does no work of its own: it starts the plain daemon as a process, carries
headers and ends between the daemon and the keeper, and ends with it, so that Ray starts both anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from hitfinder.stream.shares import HOSTS
from hitfinder.workers.cluster_relay import Place, Relay, SeriesLog, Told
from hitfinder.workers.config import MAX_MEMBERS

log = logging.getLogger(__name__)

# How often a receiver's messages are looked for; a header is with the others a little later.
TURN_S = 0.02
# The keeper holds a question for news so long, and answers at once if there are some.
NEWS_S = 5.0
# A keeper that was restarted is asked again after this.
RETRY_S = 0.2
STOP_S = 120.0
# Ray kills the children of an actor that ends, and its process group. A daemon in another group
# with a shell between only loses its parent then, notices, and stores what it has.
SHELL = """
"$@" & daemon=$!
trap 'kill -TERM $daemon' TERM
wait $daemon; status=$?
if kill -0 $daemon 2>/dev/null; then wait $daemon; status=$?; fi
exit $status
"""
LOG_TAIL_BYTES = 1500


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What every host of a run is started with.

    Attributes:
        out: the run's folder, on a file system that all hosts share.
        shared_mark: name of a file in it, by which a host knows that it does.
        keeper: name of the `SeriesKeeper`.
        config_text: TOML that all daemons have in common.
        arguments: further options of `run`.
    """

    out: Path
    shared_mark: str
    keeper: str
    config_text: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class About:
    """How a host is.

    Attributes:
        name: of its daemon's folder in `hosts`; empty if it has none.
        node: id of the node.
        results: endpoint of its topic; empty until the daemon is ready.
        failure: why there is no daemon and will be none; empty if there is.
    """

    name: str
    node: str
    results: str
    failure: str


class SeriesKeeper:
    """Keeps the headers and ends of the latest series for all hosts; a Ray actor."""

    def __init__(self) -> None:
        self._log = SeriesLog(time.time_ns())
        self._news = asyncio.Condition()

    async def tell(self, told: Told) -> None:
        """Keep what a receiver got, and wake those who wait for news."""
        if self._log.tell(told):
            async with self._news:
                self._news.notify_all()

    async def after(self, place: Place | None) -> tuple[Place, list[Told]]:
        """Return what is new since `place`, and the place after it; waits a while for news."""
        async with self._news:
            at, news = self._log.after(place)
            if place == at and not news:
                try:
                    await asyncio.wait_for(self._news.wait(), NEWS_S)
                except TimeoutError:
                    return at, []
                at, news = self._log.after(place)
            return at, news


class Host:
    """One host's daemon; a Ray actor.

    Args:
        plan: what all hosts have in common.
    """

    def __init__(self, plan: HostPlan) -> None:
        self._keeper: Any = ray.get_actor(plan.keeper)
        self._stopping, self._over = False, threading.Event()
        self._node = ray.get_runtime_context().get_node_id()
        self._name = self._results = self._failure = ""
        if not (plan.out / HOSTS / plan.shared_mark).exists():
            self._failure = f"{plan.out} is not the folder of that name where the run was started"
            return
        number = claim_number(plan.out)
        if number is None:
            self._failure = f"{plan.out}: {MAX_MEMBERS} daemons have written there; take another"
            return
        self._name = f"{number:02d}"
        self._folder = Path(tempfile.mkdtemp(prefix="hitfinder-host-"))
        self._relay = Relay(number, self._folder / "peers")
        self._log_file = plan.out / HOSTS / self._name / "daemon.log"
        self._process = self._started(plan, number)
        threading.Thread(target=self._read_lines, daemon=True).start()
        self._carrier = threading.Thread(target=self._carry, daemon=True)
        self._carrier.start()

    def about(self) -> About:
        """Say how this host is."""
        return About(self._name, self._node, self._results, self._failure)

    def stop(self) -> int:
        """Have the daemon judge and store what it has; returns its exit status."""
        if self._failure:
            return 1
        self._stopping = True
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._over.set()
        self._carrier.join()
        self._relay.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        return status

    # ------------------------------------------------------------------------------------

    def _started(self, plan: HostPlan, number: int) -> subprocess.Popen[str]:
        config_file = self._folder / "config.toml"
        member = f"[member]\nnumber = {number}\npeers = {json.dumps(self._relay.endpoint)}\n"
        config_file.write_text(f"{plan.config_text}\n{member}")
        command = [sys.executable, "-m", "hitfinder.workers.cli", "run", *plan.arguments]
        command += ["--config", str(config_file), "--out", str(plan.out / HOSTS / self._name)]
        address = ray.util.get_node_ip_address()
        command += ["--results", f"tcp://{address}:*", "--http", "127.0.0.1:0"]
        with self._log_file.open("wb") as log_file:
            return subprocess.Popen(
                ["/bin/sh", "-c", SHELL, "hitfinder-host", *command],
                stdout=subprocess.PIPE,
                stderr=log_file,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )

    def _read_lines(self) -> None:
        """Wait for the ready line; what the daemon prints goes to its log, too."""
        for line in self._process.stdout or ():
            with self._log_file.open("a") as log_file:
                log_file.write(line)
            found = re.search(r"\bresults=(\S+)", line)
            if found is not None:
                self._results = found[1]

    def _carry(self) -> None:
        """Carry headers and ends until the daemon ends; if nobody stopped it, end with it."""
        place: Place | None = None
        asked: Future[tuple[Place, list[Told]]] | None = None
        while not self._over.is_set():
            for told in self._relay.told(TURN_S):
                self._keeper.tell.remote(told)
            self._relay.pass_on()
            if asked is None:
                asked = self._keeper.after.remote(place).future()
            if asked.done():
                try:
                    place, news = asked.result()
                    self._relay.pass_on(news)
                except RayError:  # Ray restarts it, and says so in its own logs
                    self._over.wait(RETRY_S)
                    for told in self._relay.recent:
                        self._keeper.tell.remote(told)
                asked = None
            if self._process.poll() is not None and not self._stopping:
                self._end()

    def _end(self) -> None:
        """Give up a daemon that ended by itself: for good at its start, else Ray starts anew."""
        if self._results:
            log.error("the daemon %s ended with status %s", self._name, self._process.returncode)
            os._exit(1)
        tail = self._log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        self._failure = f"its daemon did not start; {self._log_file} ends:\n{tail}"
        self._over.set()


def claim_number(out: Path) -> int | None:
    """Make a folder for one more daemon of a run; returns its number, None if all are taken."""
    for number in range(1, MAX_MEMBERS + 1):
        try:
            (out / HOSTS / f"{number:02d}").mkdir()
        except FileExistsError:
            continue
        return number
    return None
