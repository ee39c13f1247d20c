"""Three daemons at one detector, which deals them its messages; no cluster, only their relays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.system.daemon import Daemon, Detector, command, running, wait_for
from tests.system.frames import wire_series

from hitfinder.stream.check import check_run
from hitfinder.stream.joining import join
from hitfinder.stream.ledger import read_ledger
from hitfinder.stream.shares import HOSTS, grouped, joined_shares, open_shares, read_share
from hitfinder.workers.cluster_relay import Relay, SeriesLog

pytestmark = pytest.mark.system

KEEP_ALL = "[sink]\nmiss_sample_fraction = 1.0\n"
N_FRAMES = 30


@contextmanager
def members(out: Path, detector: Detector) -> Iterator[list[Daemon]]:
    """Yield three daemons that listen, connected to the detector and to each other."""
    over = threading.Event()
    with ExitStack() as stack:
        relays, daemons = [], []
        for number in (1, 2, 3):
            folder = out.parent / f"host{number}"
            folder.mkdir(parents=True)
            relays.append(Relay(number, folder / "peers"))
            text = f'[member]\nnumber = {number}\npeers = "{relays[-1].endpoint}"\n'
            arguments = ("run", "--source", detector.endpoint)
            daemon = Daemon(folder / "daemon", *arguments, config=KEEP_ALL + text)
            daemons.append(stack.enter_context(daemon))
            (out / HOSTS).mkdir(parents=True, exist_ok=True)
            (out / HOSTS / f"{number:02d}").symlink_to(daemon.out)
        carrier = threading.Thread(target=_carry, args=(relays, over))
        carrier.start()
        stack.callback(carrier.join)
        stack.callback(over.set)
        for daemon in daemons:
            daemon.wait_ready()
            daemon.wait_status(lambda s: s["connected"] == 1, "the detector's connection")
        yield daemons


def _carry(relays: list[Relay], over: threading.Event) -> None:
    """Be what lies between the hosts."""
    log = SeriesLog(1)
    places = [None] * len(relays)
    while not over.is_set():
        for i, relay in enumerate(relays):
            for told in relay.told(0.005):
                log.tell(told)
            places[i], news = log.after(places[i])
            relay.pass_on(news)
    for relay in relays:
        relay.close()


def end_of(daemon: Daemon, series: int) -> dict[str, Any]:
    """Return what a daemon says at the end of its share of a series."""

    def ends() -> list[dict[str, Any]]:
        return [m for t, m in daemon.results if t == "series.end" and m["series"] == series]

    wait_for(lambda: bool(ends()), f"the end of series {series}; log ends {daemon.log[-400:]}")
    (end,) = ends()
    return end


def outcomes(folder: Path) -> dict[int, str]:
    rows = read_ledger(folder / "ledger.h5")
    assert len(set(rows["frame"].tolist())) == len(rows)
    return dict(zip(rows["frame"].tolist(), [o.decode() for o in rows["outcome"]], strict=True))


@pytest.mark.timeout(240)
def test_what_three_daemons_got_adds_up_to_what_one_would_have_got(tmp_path):
    sent = {
        1: wire_series("v2", 1, N_FRAMES, has_spots=True),
        2: wire_series("v1", 2, N_FRAMES, has_spots=True),
        3: wire_series("v1", 3, 2),  # less frames than hosts
    }
    out = tmp_path / "run"
    with Detector() as detector, members(out, detector) as daemons:
        for number, series in sent.items():
            detector.send(*series.messages)
            ends = [end_of(daemon, number) for daemon in daemons]
            assert sum(end["announced"] for end in ends) == len(series.images)
            assert all(end["balanced"] and end["missing"] == 0 for end in ends)
            assert [end["reason"] for end in ends] == ["ended"] * 3
        assert [d.terminate() for d in daemons] == [0, 0, 0]
    shares = [read_share(f) for f in open_shares(out, joined_shares(out))]
    groups = grouped([s for s in shares if s is not None])
    joined = [join(out, group) for group in groups]
    assert [len(group) for group in groups] == [3, 3, 3]
    report = check_run(out)
    assert report.ok, str(report)

    with Detector() as detector, running(tmp_path / "alone", detector, config=KEEP_ALL) as alone:
        for number, folder in zip(sent, joined, strict=True):
            detector.send(*sent[number].messages)
            assert outcomes(folder) == alone.closed(number).outcomes

    again = command("check", str(out), "--rejudge", limit_s=100)
    assert again.returncode == 0, again.stdout
    for name in ("report", "export"):
        target = tmp_path / f"{name}.{'html' if name == 'report' else 'cxi'}"
        done = command(name, str(out), "--out", str(target), limit_s=100)
        assert done.returncode == 0, done.stderr
        assert target.stat().st_size > 0
