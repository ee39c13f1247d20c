"""Claims for `check` without a run: one line a question, and how to fix what is wrong."""

import socket
from pathlib import Path

import pytest

from hitfinder.workers.config import Config, GateConfig, HttpConfig, RingConfig, SinkConfig
from hitfinder.workers.host import check_host


def _config() -> Config:
    """Return a config whose ports the system chooses, so that tests can run side by side."""
    return Config(
        sink=SinkConfig(results="tcp://127.0.0.1:*"), http=HttpConfig(bind="127.0.0.1:0")
    )


def _answers(config: Config) -> tuple[int, list[str]]:
    lines: list[str] = []
    return check_host(lines.append, config), lines


def test_a_host_that_runs_the_tests_can_run_the_daemon() -> None:
    status, lines = _answers(_config())
    assert status == 0, lines
    assert all(line.startswith("ok ") for line in lines)
    for word in ("kernels", "torch", "device", "weights", "32008", "32004", "memory", "http.bind"):
        assert any(word in line for line in lines), word


@pytest.mark.parametrize("key", ["sink.results", "http.bind"])
def test_a_taken_port_is_named_with_the_option_that_changes_it(key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = _config()
        if key == "sink.results":
            config.sink.results = f"tcp://{address}"
        else:
            config.http.bind = address
        status, lines = _answers(config)
    (wrong,) = [line for line in lines if line.startswith("wrong")]
    assert status == 1
    assert key in wrong
    assert address in wrong
    assert {"sink.results": "--results", "http.bind": "--http"}[key] in wrong


def test_weights_that_do_not_match_their_card_are_named(tmp_path: Path) -> None:
    from hitfinder.models.vouched import card_path
    from hitfinder.models.weights_file import shipped_path

    model = tmp_path / "mine.safetensors"
    model.write_bytes(shipped_path().read_bytes()[:-1])
    card_path(model).write_text(card_path(shipped_path()).read_text())
    config = _config()
    config.gate = GateConfig(model=str(model))
    status, lines = _answers(config)
    assert status == 1
    assert any(line.startswith("wrong weights: mine.safetensors: sha256") for line in lines)


def test_a_ring_beyond_the_memory_is_named() -> None:
    config = _config()
    config.ring = RingConfig(slots=1 << 20)
    status, lines = _answers(config)
    assert status == 1
    assert any("lower ring.slots" in line for line in lines)
