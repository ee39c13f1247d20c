"""One topic over several hosts: each frame once, whoever was heard, late or dead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from hitfinder.stream.check import check_run
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.results import OUTCOMES, Outcome, Record
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.workers.cluster_collector import Collector
from hitfinder.workers.config import SinkConfig

N_FRAMES = 30
WAIT_S = 20.0
STATUS = {"series_open": [], "ring_slots": 8, "ring_slots_used": 0, "n_messages": 5}


class Host:
    """A member as the collector meets it: a topic, and a folder of shares."""

    def __init__(self, context, out: Path, number: int) -> None:
        self.name, self._out = f"{number:02d}", out
        self._number = number
        self._socket = context.socket(zmq.PUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def say(self, topic: str, message: dict[str, Any]) -> None:
        self._socket.send_multipart([topic.encode(), msgspec.msgpack.encode(message)])

    def begin(self, series: int = 5, uid: str | None = "uid-5") -> None:
        self.say("series.start", {"series": series, "series_uid": uid, "n_frames": N_FRAMES})

    def judge(self, frames, series: int = 5, uid: str | None = "uid-5", *, said=None) -> None:
        """Write a share and close it; publish `said` of its frames, all if not given."""
        start = SeriesStart(series, uid, n_frames=N_FRAMES)
        folder = SeriesFolder(
            self._out / "hosts" / self.name,
            start,
            {},
            is_share=True,
            first_file=10_000 * self._number + 1,
        )
        records = [
            Record(series=series, series_uid=uid, frame=f, outcome=Outcome.MISS, p_hit=0.1)
            for f in frames
        ]
        for record in records:
            record.t_received_ns = time.time_ns()
        folder.write([JudgedFrame(record) for record in records])
        folder.close({}, [], "ended", extra={"n_duplicate": 0, "n_late": 0})
        for record in records if said is None else [r for r in records if r.frame in said]:
            self.say("result.miss", msgspec.structs.asdict(record))

    def end(self, series: int = 5, uid: str | None = "uid-5") -> None:
        self.say("series.end", {"series": series, "series_uid": uid})

    def close(self) -> None:
        self._socket.close()


class Run:
    """A collector, its hosts, and what it publishes."""

    def __init__(self, context, out: Path) -> None:
        self.out, self.context = out, context
        out.mkdir(exist_ok=True)
        self.collector = Collector(context, out, SinkConfig(results="tcp://127.0.0.1:*"))
        self.hosts: list[Host] = []
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._sub = context.socket(zmq.SUB)
        self._sub.set(zmq.SUBSCRIBE, b"")
        self._sub.connect(self.collector.endpoint)
        self.until(lambda: bool(self.heard), "the collector's status")

    def host(self) -> Host:
        """Start a host and listen to it."""
        host = Host(self.context, self.out, len(self.hosts) + 1)
        self.hosts.append(host)
        self.collector.follow(host.name, f"node-{host.name}", host.endpoint)

        def is_heard() -> bool:
            host.say("status", STATUS)
            return self.collector.heard(host.name)

        self.until(is_heard, "the host's status")
        return host

    def until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, what
            for host in self.hosts:
                host.say("status", STATUS)
            self.collector.step(0.02)
            while self._sub.poll(0):
                topic, body = self._sub.recv_multipart()
                self.heard.append((topic.decode(), msgspec.msgpack.decode(body)))

    def end(self, n: int = 1) -> dict[str, Any]:
        """Return the n-th `series.end` once it is published."""
        self.until(lambda: len(self.of("series.end")) >= n, f"end {n}")
        return self.of("series.end")[n - 1]

    def of(self, prefix: str) -> list[dict[str, Any]]:
        return [m for t, m in self.heard if t.startswith(prefix)]

    def close(self) -> None:
        self.collector.close()
        self._sub.close()
        for host in self.hosts:
            host.close()


@pytest.fixture
def run(tmp_path) -> Iterator[Run]:
    with zmq.Context() as context:
        run = Run(context, tmp_path / "run")
        yield run
        run.close()


def counts(end: dict[str, Any]) -> dict[str, int]:
    return {o.value: end[o.value] for o in OUTCOMES if end[o.value]}


def test_frames_of_all_hosts_are_one_series(run):
    hosts = [run.host() for _ in range(3)]
    for host in hosts:
        host.begin()
    for i, host in enumerate(hosts):
        host.judge(range(i, N_FRAMES, 3))
        host.end()
    end = run.end()
    assert counts(end) == {"miss": N_FRAMES}
    assert (end["announced"], end["balanced"]) == (N_FRAMES, True)
    assert sorted(r["frame"] for r in run.of("result.")) == list(range(N_FRAMES))
    assert len(run.of("series.start")) == 1
    seqs = [m["seq"] for _, m in run.heard]
    assert seqs == sorted(set(seqs))
    assert check_run(run.out / end["folder"]).ok
    assert set(end["hosts"]) == {f"{h.name}/series_5_uid-5" for h in hosts}
    run.until(lambda: run.of("status")[-1]["n_series_closed"] == 1, "a status after the end")
    assert run.of("status")[-1]["n_messages"] == 15


def test_what_was_not_heard_is_published_from_the_ledger(run):
    one, other = run.host(), run.host()
    one.begin()
    other.begin()
    one.judge(range(0, N_FRAMES, 2), said=range(10))
    other.judge(range(1, N_FRAMES, 2))
    other.end()
    one.end()
    assert counts(run.end()) == {"miss": N_FRAMES}
    assert sorted(r["frame"] for r in run.of("result.")) == list(range(N_FRAMES))


def test_nothing_is_joined_while_a_host_is_at_it(run):
    one, other = run.host(), run.host()
    one.begin()
    other.begin()
    one.judge(range(0, N_FRAMES, 2))
    one.end()
    run.until(lambda: len(run.of("result.")) == N_FRAMES / 2, "the first host's frames")
    n = len(run.of("status"))
    run.until(lambda: len(run.of("status")) > n + 1, "two more statuses")
    assert not run.of("series.end")
    assert run.of("status")[-1]["series_open"][0]["hosts_ended"] == ["01"]
    other.judge(range(1, N_FRAMES, 2))
    other.end()
    assert counts(run.end()) == {"miss": N_FRAMES}


def test_frames_of_a_dead_host_are_lost_with_its_name(run):
    hosts = [run.host() for _ in range(3)]
    for host in hosts:
        host.begin()
    run.until(lambda: bool(run.of("series.start")), "the start")
    for i in (0, 1):
        hosts[i].judge(range(i, N_FRAMES, 3))
        hosts[i].end()
    run.collector.bury("03")
    end = run.end()
    assert counts(end) == {"miss": 20, "lost": 10}
    assert end["balanced"] is True
    lost = [r for r in run.of("result.other") if r["outcome"] == "lost"]
    assert sorted(r["frame"] for r in lost) == list(range(2, N_FRAMES, 3))
    assert {r["reason"] for r in lost} == {"03 on node-03 died"}
    run.until(lambda: run.of("status")[-1]["n_series_closed"] == 1, "a status after the end")
    status = run.of("status")[-1]
    assert [h["alive"] for h in status["hosts"]] == [True, True, False]
    assert [(a["name"], a["text"]) for a in status["alarms"]] == [
        ("host_down", "2 of 3 hosts are up")
    ]


def test_a_host_that_never_began_a_series_does_not_hold_it_up_for_long(run):
    one, _ = run.host(), run.host()
    one.begin()
    one.judge(range(N_FRAMES))
    one.end()
    assert counts(run.end()) == {"miss": N_FRAMES}


def test_numbers_that_begin_again_are_another_series(run):
    host = run.host()
    for n in (1, 2):
        host.begin(1, None)
        host.judge(range(N_FRAMES), 1, None)
        host.end(1, None)
        assert counts(run.end(n)) == {"miss": N_FRAMES}
    assert len({end["folder"] for end in run.of("series.end")}) == 2


def test_the_next_start_joins_what_a_killed_collector_left(run, tmp_path):
    for number in (1, 2):
        host = Host(run.context, tmp_path / "later", number)
        host.judge(range(number - 1, N_FRAMES, 2))
        host.close()
    later = Run(run.context, tmp_path / "later")
    (folder,) = later.collector.join_left()
    report = check_run(tmp_path / "later")
    assert report.ok, str(report)
    assert report.folders == (folder.name,)
    assert later.collector.join_left() == []
    later.close()


def test_a_frame_said_by_two_hosts_is_published_once(run):
    one, other = run.host(), run.host()
    one.begin()
    other.begin()
    one.judge(range(20))
    other.judge(range(19, N_FRAMES))
    one.end()
    other.end()
    end = run.end()
    assert counts(end) == {"miss": N_FRAMES}
    assert end["duplicate"] == 1
    assert Counter(r["frame"] for r in run.of("result.")).most_common(1)[0][1] == 1


def test_a_series_that_cannot_be_joined_ends_and_says_so(run, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("hitfinder.stream.joining.os.link", refuse)
    monkeypatch.setattr(
        "hitfinder.stream.joining.image_files", lambda folder: [folder / "hits_010001.h5"]
    )
    host = run.host()
    host.begin()
    host.judge(range(20))
    host.end()
    end = run.end()
    assert (end["reason"], end["announced"], end["balanced"]) == ("not joined", N_FRAMES, False)
    run.until(lambda: bool(run.of("status")[-1]["errors"]), "the error in the status")
    assert "hard links" in run.of("status")[-1]["errors"][0]
    assert list(run.out.glob("series_*")) == []
    monkeypatch.undo()
    later = Collector(run.context, run.out, SinkConfig(results="tcp://127.0.0.1:*"))
    (folder,) = later.join_left()
    later.close()
    assert check_run(folder).ok
