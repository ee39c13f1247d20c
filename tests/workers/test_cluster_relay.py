"""Headers and ends reach every other host once, whoever was restarted on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from hitfinder.stream.messages import SeriesEnd, SeriesStart
from hitfinder.stream.peers import Peers
from hitfinder.workers.cluster_relay import KEPT, Relay, SeriesLog, Told

WAIT_S = 10.0


class Host:
    """A receiver's line and its relay."""

    def __init__(self, number: int, folder) -> None:
        self.relay = Relay(number, folder / f"{number}")
        self.peers = Peers(self.relay.endpoint, 1 << 20)
        self.place = None

    def share(self, log: SeriesLog, n: int = 0) -> None:
        """Tell the log what came, at least `n` messages, and pass its news on."""
        told = self.relay.told(WAIT_S if n else 0.0)
        while len(told) < n:
            told += self.relay.told(WAIT_S)
        for one in told:
            log.tell(one)
        self.place, news = log.after(self.place)
        self.relay.pass_on(news)

    def hears(self) -> list[list[bytes]]:
        """Return what the receiver hears; the first message is waited for."""
        deadline = time.monotonic() + WAIT_S
        while (parts := self.peers.hear(0.02)) is None:
            assert time.monotonic() < deadline, "nothing is heard"
            self.relay.pass_on()
        found = [[bytes(p) for p in parts]]
        while (parts := self.peers.hear(0.0)) is not None:
            found.append([bytes(p) for p in parts])
        return found

    def hears_nothing(self) -> bool:
        self.relay.pass_on()
        return self.peers.hear(0.05) is None

    def close(self) -> None:
        self.peers.close()
        self.relay.close()


@pytest.fixture
def hosts(tmp_path) -> Iterator[list[Host]]:
    found = [Host(n, tmp_path) for n in (1, 2, 3)]
    yield found
    for host in found:
        host.close()


def test_a_header_reaches_the_others_as_it_came_and_not_its_teller(hosts):
    log = SeriesLog(1)
    hosts[1].peers.tell(SeriesStart(5), [memoryview(b"header"), memoryview(b"mask")])
    hosts[1].share(log, 1)
    for host in hosts:
        host.share(log)
    assert hosts[0].hears() == hosts[2].hears() == [[b"header", b"mask"]]
    assert hosts[1].hears_nothing()


def test_a_restarted_log_is_told_again_and_nobody_hears_twice(hosts):
    log = SeriesLog(1)
    hosts[0].peers.tell(SeriesStart(5), [memoryview(b"header")])
    hosts[0].share(log, 1)
    hosts[1].share(log)
    assert hosts[1].hears() == [[b"header"]]
    log = SeriesLog(2)
    for told in hosts[0].relay.recent:
        assert log.tell(told)
        assert not log.tell(told)
    for host in hosts:
        host.share(log)
    assert hosts[1].hears_nothing()
    assert hosts[2].hears() == [[b"header"]]


def test_what_is_told_before_the_receiver_is_there_waits_for_it(tmp_path):
    relay = Relay(2, tmp_path / "2")
    relay.pass_on([Told(1, 0, (b"start", b"header"))])
    peers = Peers(relay.endpoint, 1 << 20)
    deadline = time.monotonic() + WAIT_S
    while (parts := peers.hear(0.02)) is None:
        assert time.monotonic() < deadline, "nothing is heard"
        relay.pass_on()
    assert [bytes(p) for p in parts] == [b"header"]
    peers.close()
    relay.close()


def test_who_comes_late_hears_of_the_latest_series_alone(hosts):
    log = SeriesLog(1)
    host = hosts[0]
    for series in (1, 2):
        host.peers.tell(SeriesStart(series), [memoryview(b"header %d" % series)])
        if series == 1:
            host.peers.tell(SeriesEnd(series), [memoryview(b"end %d" % series)])
    host.share(log, 3)
    hosts[2].share(log)
    assert hosts[2].hears() == [[b"header 2"]]


def test_who_comes_after_a_series_is_over_hears_nothing_of_it(hosts):
    log = SeriesLog(1)
    hosts[0].peers.tell(SeriesStart(1), [memoryview(b"header")])
    hosts[0].peers.tell(SeriesEnd(1), [memoryview(b"end")])
    hosts[0].share(log, 2)
    hosts[2].share(log)
    assert hosts[2].hears_nothing()
    hosts[0].peers.tell(SeriesStart(2), [memoryview(b"header 2")])
    hosts[0].share(log, 1)
    hosts[2].share(log)
    assert hosts[2].hears() == [[b"header 2"]]


def test_the_log_is_bounded_and_a_slow_reader_goes_on_with_what_is_kept():
    log = SeriesLog(1)
    place, news = log.after(None)
    assert news == []
    for n in range(3 * KEPT):
        log.tell(Told(1, n, (b"end", b"%d" % n)))
    place, news = log.after(place)
    assert [t.count for t in news] == list(range(2 * KEPT, 3 * KEPT))
    assert log.after(place) == (place, [])
