"""An encrypted results topic is read by those whose key is known, and by nobody else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from hitfinder.stream.results import Outcome, Record
from hitfinder.workers.config import ConfigError
from hitfinder.workers.curve import Keys, guard, introduce, keys_of, make_keys
from hitfinder.workers.feed import Feed

DEADLINE_S = 10.0
TURNED_AWAY = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)


class Topic:
    """A guarded PUB socket with keys for a daemon, a reader it knows and one it does not."""

    def __init__(self, folder: Path) -> None:
        self.server, self._secret = make_keys(folder, "daemon")
        _, self.reader = make_keys(folder / "readers", "reader")
        _, self.stranger = make_keys(folder / "elsewhere", "stranger")
        self.context = zmq.Context()
        self._pub = self.context.socket(zmq.PUB)
        self._doorman = guard(self.context, self._pub, self._secret, folder / "readers")
        self._pub.bind("tcp://127.0.0.1:*")
        self.endpoint = self._pub.getsockopt_string(zmq.LAST_ENDPOINT)

    def subscriber(self, key: Path | None) -> zmq.Socket[bytes]:
        sub = self.context.socket(zmq.SUB)
        sub.set(zmq.LINGER, 0)
        sub.set(zmq.SUBSCRIBE, b"")
        if key is not None:
            introduce(sub, Keys(key, self.server))
        sub.connect(self.endpoint)
        return sub

    def publish_until(self, sub: zmq.Socket[bytes]) -> None:
        """Publish until this one has read something."""
        deadline = time.monotonic() + DEADLINE_S
        while not sub.poll(20):
            assert time.monotonic() < deadline
            self.publish(b"verdict")

    def publish(self, *parts: bytes) -> None:
        self._pub.send_multipart(parts)

    def close(self) -> None:
        self._pub.close(0)
        self._doorman.stop()
        self.context.term()


@pytest.fixture
def topic(tmp_path) -> Iterator[Topic]:
    opened = Topic(tmp_path)
    yield opened
    opened.close()


def test_a_known_reader_reads_a_stranger_and_the_keyless_do_not(topic):
    strangers = [topic.subscriber(topic.stranger), topic.subscriber(None)]
    monitors = [s.get_monitor_socket(TURNED_AWAY) for s in strangers]
    reader = topic.subscriber(topic.reader)
    topic.publish_until(reader)
    assert reader.recv() == b"verdict"
    # The two are told so, each in its way: by the key's refusal, by a mechanism it does not know.
    assert all(m.poll(1000 * DEADLINE_S) for m in monitors)
    assert [s.poll(0) for s in strangers] == [0, 0]
    for stranger in strangers:
        stranger.disable_monitor()
    for socket in (*strangers, *monitors, reader):
        socket.close(0)


def test_a_feed_with_keys_hears_of_hits(topic, tmp_path):
    hit = msgspec.msgpack.encode(Record(series=1, frame=7, outcome=Outcome.HIT))
    deadline = time.monotonic() + DEADLINE_S

    def heard() -> bool:
        assert time.monotonic() < deadline
        topic.publish(b"result.hit", hit)
        return feed.counts.waiting > 0

    keys = keys_of(topic.reader, topic.server)
    feed = Feed(tmp_path, topic.endpoint, "tcp://127.0.0.1:*", 10, keys)
    try:
        assert feed.serve(heard).waiting
    finally:
        feed.close()
    with pytest.raises(ConfigError, match="go together"):
        keys_of(topic.reader, None)


def test_keys_that_cannot_serve_are_refused(tmp_path):
    public, secret = make_keys(tmp_path, "daemon")
    assert os.stat(secret).st_mode & 0o777 == 0o600
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        with pytest.raises(ConfigError, match="no secret key"):
            guard(context, socket, public, None)
        with pytest.raises(ConfigError, match="nowhere"):
            guard(context, socket, tmp_path / "nowhere", None)
        with pytest.raises(ConfigError, match=r"no folder with \*.key files"):
            guard(context, socket, secret, tmp_path / "nobody")
        secret.chmod(0o644)
        with pytest.raises(ConfigError, match="others may read it; chmod 600"):
            guard(context, socket, secret, None)
