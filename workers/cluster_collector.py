"""The one topic and the one set of files of a run over several hosts.

One rule: a frame is published once. What the hosts publish is passed on as it comes; when a series
is over on every host its shares are joined, and what was not heard of by then is published from
the joined ledger, so the counts at the end are those of every announced frame.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import zmq
from zmq.auth.thread import ThreadAuthenticator

from hitfinder.stream.errors import StoreError
from hitfinder.stream.joining import Death, join
from hitfinder.stream.results import OUTCOMES, SCHEMA, topic_of
from hitfinder.stream.shares import APART_S, Share, grouped, joined_shares, open_shares, read_share
from hitfinder.stream.summary import read_summary
from hitfinder.workers.cluster_member import Member, status_of
from hitfinder.workers.cluster_series import Collected
from hitfinder.workers.config import ConfigError, SinkConfig
from hitfinder.workers.curve import Keys, guard, introduce
from hitfinder.workers.publisher import LINGER_MS, SEND_QUEUE, UNSEEN_SLICE

log = logging.getLogger(__name__)

RECEIVE_QUEUE = 100_000
# Messages taken of one host before the next has its turn.
TURN = 500
STATUS_S = 1.0
# Ended series that are remembered, so that a host that comes late does not open one again.
N_ENDED = 64

Name = tuple[int, str | None]


class Collector:
    """Passes on what all members publish, and joins what they write.

    Args:
        out: the run's folder.
        sink: where to publish, and with which keys; the members use the same.

    Attributes:
        n_ended: series whose end was published.

    Raises:
        ConfigError: the endpoint cannot be bound, or the keys cannot be used.
        StoreError: what an earlier run left in the folder cannot be read.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], out: Path, sink: SinkConfig
    ) -> None:
        self._context, self._out, self._sink = context, out, sink
        self.members: dict[str, Member] = {}
        self.n_ended = self._n_wanted = 0
        self._open: dict[Name, Collected] = {}
        self._ended: dict[Name, tuple[float, set[str]]] = {}
        self._joined, self._damaged = joined_shares(out), dict[str, str]()
        self._counts: dict[str, int] = {o.value: 0 for o in OUTCOMES}
        self._seq, self._started_s, self._due_s = 0, time.monotonic(), 0.0
        self._encode = msgspec.msgpack.Encoder().encode
        self._poller = zmq.Poller()
        self._socket = context.socket(zmq.PUB)
        self._socket.set(zmq.SNDHWM, SEND_QUEUE)
        self._socket.set(zmq.LINGER, LINGER_MS)
        self._doorman: ThreadAuthenticator | None = None
        try:
            if sink.results_key_file is not None:
                clients = None if sink.results_clients is None else Path(sink.results_clients)
                key_file = Path(sink.results_key_file)
                self._doorman = guard(context, self._socket, key_file, clients)
            self._socket.bind(sink.results)
        except (ConfigError, zmq.ZMQError) as error:
            self.close()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"results endpoint {sink.results}: {error}") from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def follow(self, name: str, node: str, endpoint: str) -> None:
        """Listen to a member.

        Args:
            name: of its folder in `hosts`; a daemon that was started anew has a new one.
            node: where it runs, as a person knows it.
            endpoint: of its results.
        """
        socket = self._context.socket(zmq.SUB)
        socket.set(zmq.RCVHWM, RECEIVE_QUEUE)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SUBSCRIBE, b"")
        if self._sink.results_key_file is not None:
            secret = Path(self._sink.results_key_file)
            introduce(socket, Keys(secret, secret.with_suffix(".key")))
        socket.connect(endpoint)
        self._poller.register(socket, zmq.POLLIN)
        self.members[name] = Member(name, node, socket)
        self._n_wanted = max(self._n_wanted, len(self._living()))
        log.info("host %s is up on %s", name, node)

    def bury(self, name: str) -> None:
        """Note that a member died: what it had of the open series may be lost."""
        member = self.members[name]
        if not member.alive:
            return
        self._listen(member, whole_queue=True)
        member.alive = False
        self._poller.unregister(member.socket)
        member.socket.close()
        log.error("host %s on %s died", name, member.node)
        for collected in self._open.values():
            collected.bury(member)

    def step(self, timeout_s: float) -> None:
        """Pass on what has come, waiting for a first message; end what is over."""
        ready = dict(self._poller.poll(round(timeout_s * 1000)))
        for member in self._living():
            if member.socket in ready:
                self._listen(member)
        for name, collected in list(self._open.items()):
            if collected.rest is None and collected.is_over(self._living()):
                self._join(collected)
            if collected.rest is not None and self._publish_rest(collected):
                del self._open[name]
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + STATUS_S
            self._send(b"status", self._status())

    def heard(self, name: str) -> bool:
        """Say whether a member's status has come: its topic is heard."""
        return bool(self.members[name].status)

    @property
    def is_idle(self) -> bool:
        """Say whether no series is open."""
        return not self._open

    def join_left(self) -> list[Path]:
        """Join what an earlier run, or a host that was too late, left; returns the folders."""
        folders = []
        for group in grouped(self._shares(open_shares(self._out, self._known()))):
            if not any(sum(s.summary.counts.values()) for s in group):
                self._joined.update(s.name for s in group)
                continue
            folder = self._join_group(group, ())
            if folder is not None:
                log.warning("%s: joined from what was left in hosts", folder.name)
                folders.append(folder)
        return folders

    def finish(self) -> None:
        """Join and end everything: all daemons have stopped, nothing comes any more."""
        for member in self._living():
            self._listen(member, whole_queue=True)
        for collected in self._open.values():
            if collected.rest is None:
                self._join(collected)
            while not self._publish_rest(collected):
                continue
        self._open.clear()
        self.join_left()
        self._send(b"status", self._status())

    def close(self) -> None:
        """Close the sockets; the context lingers until the last messages are out."""
        for member in self._living():
            member.socket.close()
        self._socket.close(LINGER_MS)
        if self._doorman is not None:
            self._doorman.stop()

    # ------------------------------------------------------------------------------------

    def _living(self) -> list[Member]:
        return [m for m in self.members.values() if m.alive]

    def _listen(self, member: Member, *, whole_queue: bool = False) -> None:
        n = 0
        while (whole_queue or n < TURN) and member.socket.poll(0):
            topic, body = member.socket.recv_multipart()[:2]
            self._take(member, topic, msgspec.msgpack.decode(body))
            n += 1

    def _take(self, member: Member, topic: bytes, message: dict[str, Any]) -> None:
        if topic == b"status":
            member.status, member.heard_s = message, time.monotonic()
            for progress in message["series_open"]:
                self._of(member, progress)
            return
        collected = self._of(member, message)
        if collected is None:
            return
        if topic == b"series.end":
            collected.ended.add(member.name)
            collected.settled_s = time.monotonic()
        elif topic == b"series.start":
            collected.n_announced = max(collected.n_announced, message["n_frames"] or 0)
            if not collected.is_announced:
                collected.is_announced = True
                self._send(topic, message)
        elif collected.rest is None and collected.is_new(message["frame"]):
            self._publish(collected, topic, message)

    def _of(self, member: Member, message: dict[str, Any]) -> Collected | None:
        """Return the series that a message is about; None if its end is published already.

        Numbers begin again: without a unique id a member may begin what it has ended once.
        """
        name = message["series"], message["series_uid"]
        if name not in self._open and name in self._ended:
            ended_s, by = self._ended[name]
            is_soon = time.monotonic() - ended_s < APART_S
            if name[1] is not None or (is_soon and member.name not in by):
                return None
        if name not in self._open:
            self._open[name] = Collected(*name)
        self._open[name].begun.add(member.name)
        return self._open[name]

    def _publish(self, collected: Collected, topic: bytes, message: dict[str, Any]) -> None:
        collected.counts[message["outcome"]] += 1
        self._counts[message["outcome"]] += 1
        self._send(topic, message)

    def _send(self, topic: bytes, message: dict[str, Any]) -> None:
        self._seq += 1
        stamped = {"schema": SCHEMA, **message, "seq": self._seq, "t_published_ns": time.time_ns()}
        self._socket.send_multipart([topic, self._encode(stamped)])

    def _known(self) -> set[str]:
        return self._joined | set(self._damaged)

    def _shares(self, folders: Sequence[Path]) -> list[Share]:
        """Read shares; one that is damaged is named and left where it is."""
        found = []
        for folder in folders:
            try:
                share = read_share(folder)
            except StoreError as error:
                self._damaged[f"{folder.parent.name}/{folder.name}"] = str(error)
                log.error("hosts/%s: %s", folder.parent.name, error)
                continue
            if share is not None:
                found.append(share)
        return found

    def _join(self, collected: Collected) -> None:
        """Join a series' shares and prepare what is left to be published of it."""
        mine = [
            folder
            for folder in open_shares(self._out, self._known())
            if folder.name.startswith(f"series_{collected.series}_")
        ]
        shares = [
            share
            for share in self._shares(mine)
            if collected.uid is None or share.start.series_uid in (None, collected.uid)
        ]
        groups = grouped(shares)
        folder = None
        for group in groups:
            folder = self._join_group(group, collected.deaths if group is groups[-1] else ())
        if folder is None:
            log.error("series %d: not joined; `hosts` has what there is of it", collected.series)
            announced = max(collected.n_announced, sum(collected.counts.values()))
            collected.rest = iter(())
            collected.end = {"announced": announced, "reason": "not joined", "folder": ""}
            return
        summary = read_summary(folder / "summary.json")
        collected.rest = collected.unpublished(folder / "ledger.h5")
        collected.end = {
            "announced": max(summary.n_announced or 0, sum(summary.counts.values())),
            "duplicate": summary.extra["n_duplicate"],
            "late": summary.extra["n_late"],
            "reason": summary.reason,
            "folder": summary.folder,
            "posterior": summary.extra.get("posterior"),
            "hosts": summary.extra["hosts"],
        }

    def _join_group(self, group: Sequence[Share], deaths: Sequence[Death]) -> Path | None:
        """Join the shares of a series; where the disk refuses, the next start tries again."""
        names = [share.name for share in group]
        try:
            folder = join(self._out, group, deaths)
        except StoreError as error:
            log.error("%s", error)
            self._damaged.update(dict.fromkeys(names, str(error)))
            return None
        self._joined.update(names)
        return folder

    def _publish_rest(self, collected: Collected) -> bool:
        """Publish a slice of the frames that were not heard of; True once the end is out."""
        turn = list(islice(collected.rest or (), UNSEEN_SLICE))
        for record in turn:
            message = msgspec.structs.asdict(record)
            self._publish(collected, topic_of(record.outcome), message)
        if len(turn) == UNSEEN_SLICE:
            return False
        names = {"series": collected.series, "series_uid": collected.uid}
        counts = collected.counts
        announced = collected.end["announced"]
        balanced = sum(counts.values()) == announced
        self._send(b"series.end", {**names, **counts, "balanced": balanced, **collected.end})
        name = collected.series, collected.uid
        self._ended.pop(name, None)
        self._ended[name] = time.monotonic(), collected.begun
        if len(self._ended) > N_ENDED:
            del self._ended[next(iter(self._ended))]
        self.n_ended += 1
        said = " + ".join(f"{n} {outcome}" for outcome, n in counts.items())
        log.info("series %d joined: %d frames = %s", collected.series, announced, said)
        return True

    def _status(self) -> dict[str, Any]:
        return {
            "t_monotonic_s": time.monotonic(),
            "uptime_s": time.monotonic() - self._started_s,
            "counts": dict(self._counts),
            "n_series_open": len(self._open),
            "n_series_closed": self.n_ended,
            "series_open": [c.progress() for c in self._open.values()],
            "errors": [*self._damaged.values()],
            **status_of(list(self.members.values()), self._n_wanted),
        }
