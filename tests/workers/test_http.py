"""The status page answers, shows the figures, and changes nothing."""

import http.client
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from hitfinder.workers.config import ConfigError
from hitfinder.workers.http import serve_status


def state() -> dict[str, Any]:
    return {
        "uptime_s": 3.5,
        "counts": {"hit": 2, "miss": 5, "corrupt": 1},
        "n_messages": 9,
        "n_bytes": 1000,
        "n_malformed": 1,
        "n_series_closed": 1,
        "series_open": [
            {
                "series": 12,
                "posterior": {
                    "n_frames": 40,
                    "photon_energy_eV": 7001.5,
                    "photon_energy_sigma_eV": 8.0,
                    "clen_m": 0.15,
                    "clen_sigma_m": 2e-4,
                    "header_mismatch": None,
                },
            },
            {"series": 13, "posterior": None},
        ],
        "ring_slots": 48,
        "ring_slots_used": 3,
        "n_hot_pixels": 12,
        "latency_p50_s": 0.0125,
        "latency_p99_s": None,
        "children": [{"name": "worker", "alive": True, "starts": 2, "last_exit": "signal 9"}],
        "errors": ["frame 3: <script>alert(1)</script>"],
    }


def ask(
    path: str, method: str = "GET", of: Callable[[], dict[str, Any]] = state
) -> tuple[int, str]:
    """Serve the state on a free port and ask it once."""
    with serve_status("127.0.0.1:0", of) as address:
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request(method, path)
        answer = connection.getresponse()
        status, text = answer.status, answer.read().decode()
        connection.close()
        return status, text


def test_metrics_are_prometheus_text_with_units_in_the_names() -> None:
    status, text = ask("/metrics")
    assert status == 200
    assert 'hitfinder_frames_total{outcome="hit"} 2.0\n' in text
    assert "hitfinder_received_bytes_total 1000.0\n" in text
    assert "hitfinder_hot_pixels 12.0\n" in text
    assert 'hitfinder_latency_seconds{quantile="0.5"} 0.0125\n' in text
    assert 'quantile="0.99"' not in text
    assert 'hitfinder_series_photon_energy_eV{series="12"} 7001.5\n' in text
    assert 'hitfinder_series_clen_meters{series="12"} 0.15\n' in text
    assert "header_mismatch{" not in text


def test_bytes_from_the_wire_cannot_become_markup() -> None:
    status, text = ask("/")
    assert status == 200
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_not_ready_while_a_child_is_down_and_says_which() -> None:
    down = {**state(), "children": [{"name": "sink", "alive": False}]}
    status, text = ask("/readyz", of=lambda: down)
    assert (status, json.loads(text)) == (503, {"ready": False, "down": ["sink"]})
    assert ask("/readyz")[0] == 200
    assert ask("/healthz", of=lambda: down)[0] == 200


def test_nothing_can_be_written() -> None:
    assert ask("/", "POST")[0] == 405
    assert ask("/metrics", "PUT")[0] == 405


@pytest.mark.parametrize("bind", ["8080", "localhost:", "127.0.0.1:port"])
def test_a_malformed_address_is_said(bind: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"), serve_status(bind, state):
        pass


def test_a_taken_port_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="give another with --http"):
            with serve_status(bind, state):
                pass
