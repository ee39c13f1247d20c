"""What a daemon listens on, and a peer that announces more than there is memory."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from tests.system.daemon import WAIT_S, Daemon, Detector, free_port
from tests.system.frames import wire_series

from hitfinder.workers.config import Config

pytestmark = pytest.mark.system

# ZMTP 3.0 (ZeroMQ RFC 23): a greeting without security, and what a PUSH socket says of itself.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH"
LONG_FRAME = 0x02
LISTEN = "0A"


def listening(daemon: Daemon) -> set[str]:
    """Return the TCP addresses that any process of the daemon listens on, as the kernel says."""
    inodes = set()
    for pid in (daemon.process.pid, *daemon.children().values()):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(fd))
            except FileNotFoundError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{daemon.process.pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTEN and f"socket:[{words[9]}]" in inodes:
                address, port = words[1].split(":")
                if table == "tcp":
                    address = socket.inet_ntoa(struct.pack("<I", int(address, 16)))
                found.add(f"{address}:{int(port, 16)}")
    return found


def test_addresses_are_loopback_unless_told_otherwise():
    config = Config()
    assert config.sink.results.startswith("tcp://127.0.0.1:")
    assert config.http.bind.startswith("127.0.0.1:")


def test_a_daemon_listens_on_results_and_page_alone_and_outlives_a_peer_that_promises_a_terabyte(
    tmp_path,
):
    with Detector() as detector, socket.create_server(("127.0.0.1", free_port())) as liar:
        liar.settimeout(WAIT_S)
        sources = ("--source", detector.endpoint)
        sources += ("--source", f"tcp://127.0.0.1:{liar.getsockname()[1]}")
        with Daemon(tmp_path, "run", *sources) as daemon:
            daemon.wait_ready()
            assert listening(daemon) == {daemon.endpoint.removeprefix("tcp://"), daemon.http}
            peer, _ = liar.accept()
            with peer:
                peer.settimeout(WAIT_S)
                peer.sendall(GREETING + bytes([4, len(READY)]) + READY)
                peer.sendall(bytes([LONG_FRAME]) + struct.pack(">Q", 1 << 40))
                assert _is_hung_up_on(peer)
            good = wire_series("v2", 1, 4)
            detector.send(*good.messages)
            assert daemon.closed(1).n_judged == 4
            again, _ = liar.accept()  # it comes back, as to any detector
            again.close()
            assert daemon.terminate() == 0, daemon.log
            assert [child["starts"] for child in daemon.status["children"]] == [1, 1, 1]


def _is_hung_up_on(peer: socket.socket) -> bool:
    """Read the other side's greeting until it closes; say whether it does within the time."""
    try:
        while peer.recv(1024):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True
