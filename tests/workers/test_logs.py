"""A log for people or for programs; both say the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from hitfinder.workers.config import LogConfig
from hitfinder.workers.logs import log_to_stderr

log = logging.getLogger("hitfinder.test")


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Give the root logger back its handlers."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_an_object_a_line_with_figures_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr(LogConfig("json"), "worker")
    log.warning("alarm %s:\n%s", "x", "ä", extra={"said": {"alarm": "x", "n": 3}})
    try:
        raise ValueError("no such frame")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first.pop("t").endswith("+00:00")
    assert first == {
        "level": "WARNING",
        "process": "worker",
        "logger": "hitfinder.test",
        "message": "alarm x:\nä",
        "alarm": "x",
        "n": 3,
    }
    assert "no such frame" in second["traceback"]


def test_text_names_the_process_that_is_not_the_supervisor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_to_stderr(LogConfig(), "worker")
    log.info("%d frames", 3)
    log_to_stderr(LogConfig())
    log.info("4 frames")
    worker, supervisor = capsys.readouterr().err.splitlines()
    assert worker.endswith(" INFO worker: 3 frames")
    assert supervisor.endswith(" INFO 4 frames")
