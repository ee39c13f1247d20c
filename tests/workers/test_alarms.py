"""Each alarm is raised by its cause, says what was seen, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.page_parts import child, healthy_state, level, open_series

from hitfinder.workers.alarms import ADVICE, alarms_of

FULL = {"dtype": "uint16", "n_frames": 30, "n_saturated_frames": 0, "most_counts": 40}
BRIGHT = {**FULL, "most_counts_median": 200}
DETECTOR = {"answers": True, "state": "ready", "n_dropped": 0, "buffer_used": None, "error": ""}


def lately(**changes: Any) -> dict[str, Any]:
    return {"lately": {**healthy_state()["lately"], **changes}}


CAUSES = {
    "header_mismatch": ({"series_open": [open_series(header_mismatch=True)]}, "7002 ± 8 eV"),
    "hit_rate_collapse": (lately(now=level(20, 980)), "2.0% hits"),
    "background_drift": (
        lately(now=level(200, 800, background_photons_per_px=0.06)),
        "0.06 photons per pixel",
    ),
    "saturation": ({"brightest": {**BRIGHT, "n_saturated_frames": 5}}, "5 of the latest 30"),
    "eight_bit_wrap": ({"brightest": {**BRIGHT, "dtype": "uint8"}}, "200 of 255"),
    "hot_pixels": (lately(now=level(200, 800, n_hot_pixels=60)), "48 pixels"),
    "frames_lost": (lately(failed=3), "3 frames"),
    "ring_filling": ({**lately(ring_used=0.9), "ring_slots_used": 60}, "60 of 64"),
    "child_restarting": (lately(restarts=2), "2 restarts"),
    "bad_bytes": (lately(malformed=4), "4 malformed"),
    "detector_buffer": ({"detector": {**DETECTOR, "n_dropped": 7}}, "dropped 7 images"),
    "detector_silent": (
        {"detector": {**DETECTOR, "answers": False, "error": "timed out"}},
        "timed out",
    ),
    "no_source": ({"connected": 0}, "no detector"),
}


def test_a_healthy_daemon_raises_none() -> None:
    assert alarms_of(healthy_state()) == []


def test_every_alarm_has_a_cause_here() -> None:
    assert set(CAUSES) == set(ADVICE)


@pytest.mark.parametrize("name", CAUSES)
def test_a_cause_raises_its_alarm_alone_and_says_what_was_seen(name: str) -> None:
    changes, words = CAUSES[name]
    (alarm,) = alarms_of(healthy_state(**changes))
    assert alarm["name"] == name
    assert words in alarm["text"]
    assert alarm["advice"]


@pytest.mark.parametrize(
    "changes",
    [
        # A rate that may have halved by chance, a background that breathes, a few new hot pixels.
        lately(now=level(5, 30)),
        lately(now=level(200, 800, background_photons_per_px=0.04)),
        lately(now=level(200, 800, n_hot_pixels=25)),
        # The first minute of a run: nothing to compare with, hot pixels are being learned.
        lately(before=level(0, 0, background_photons_per_px=None, n_hot_pixels=None)),
        lately(before=level(20, 80, n_hot_pixels=0), now=level(200, 800, n_hot_pixels=60)),
        # 16-bit counters are far from full; a cosmic ray fills a pixel of one frame.
        {"brightest": BRIGHT},
        {"brightest": {**BRIGHT, "n_saturated_frames": 1}},
        # Starting, and connecting.
        {"children": [child("receiver", alive=False, ready=False, starts=0)]},
        {"connected": 0, "uptime_s": 2.0},
        # A recorded run is read as fast as the ring takes it, from no endpoint.
        {"children": [child("reader")], "connected": 0, **lately(ring_used=1.0)},
        {"children": [child("reader", alive=False, done=True, last_exit="exit 0")]},
    ],
)
def test_what_is_no_alarm(changes: dict[str, Any]) -> None:
    assert alarms_of(healthy_state(**changes)) == []


def test_a_file_writers_buffer_that_fills_is_told_in_per_cent() -> None:
    (alarm,) = alarms_of(healthy_state(detector={**DETECTOR, "buffer_used": 0.75}))
    assert (alarm["name"], alarm["urgency"]) == ("detector_buffer", "page")
    assert "75%" in alarm["text"]
    assert alarms_of(healthy_state(detector={**DETECTOR, "buffer_used": 0.2})) == []


def test_a_dead_child_is_named_until_its_successor_is_there() -> None:
    dead = child("worker", alive=False, ready=False, last_exit="signal 9")
    (alarm,) = alarms_of(healthy_state(children=[child("receiver"), dead]))
    assert alarm["text"] == "worker is down: signal 9"


def test_the_urgent_ones_come_first() -> None:
    both = {**lately(failed=1), "series_open": [open_series(header_mismatch=True)]}
    assert [a["urgency"] for a in alarms_of(healthy_state(**both))] == ["page", "look"]
