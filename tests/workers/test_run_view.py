"""What a person at a terminal sees of the daemon's state."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from tests.workers.page_parts import child, healthy_state

from hitfinder.workers.alarms import alarms_of
from hitfinder.workers.history import hit_rate
from hitfinder.workers.run_view import RunView, view_of


def shown(**changes: Any) -> str:
    """Return the view of a state as plain text."""
    rates = {
        "hit_rate": {span: hit_rate(20, 80) for span in ("second", "minute", "series")},
        "frames_per_s": 107.4,
        "wire_bytes_per_s": 2.5e7,
        "stored_bytes_per_s": 5e6,
    }
    console = Console(width=100)
    with console.capture() as capture:
        console.print(view_of(healthy_state(**{**rates, **changes})))
    return capture.get()


def test_rates_come_with_their_intervals() -> None:
    text = shown()
    assert "20.0% [13.3-28.9] last minute" in text
    assert "107 frames/s, wire 25.0 MB/s, disk 5.0 MB/s, latency 12 ms / -" in text
    assert "3 of 64 slots" in text
    assert "0 dropped, 0 corrupt, 0 lost, 0 missing" in text
    assert "series 12" in text
    assert "no alarm" in text
    assert "replay" not in text
    assert "last series" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source_total": 400}, "100 of 400 frames, 3 s left"),
        ({"source_total": 100}, "100 of 100 frames "),
        ({"children": [child("receiver"), child("worker", ready=False)]}, "starting    worker"),
        ({"hit_rate": dict.fromkeys(("second", "minute", "series"))}, "- last minute"),
        (
            {"last_series": {"series": 11, "announced": 50, "hit": 7, "reason": "ended"}},
            "11: 50 frames, 7 hits, ended",
        ),
    ],
)
def test_what_there_is_is_said(changes: dict[str, Any], words: str) -> None:
    assert words in shown(**changes)


def test_an_alarm_says_what_to_do() -> None:
    lost = healthy_state(connected=0)
    (alarm,) = alarms_of(lost)
    text = " ".join(shown(alarms=[alarm]).split())
    assert f"no_source: {alarm['text']}. {alarm['advice']}" in text
    assert "no alarm" not in text


def test_without_a_terminal_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with RunView() as view:
        view.start()
        view.update(healthy_state())
    assert capfd.readouterr() == ("", "")
