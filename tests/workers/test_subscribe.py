"""A results topic as a table that a person can read."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.workers.page_parts import healthy_state

from hitfinder.stream.results import Outcome, Record
from hitfinder.workers.subscribe import HEAD, line_of


def message(outcome: Outcome, **said: Any) -> dict[str, Any]:
    record = Record(series=12, frame=345, outcome=outcome, **said)
    made: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(record))
    return made


HIT = {
    "p_hit": 0.998,
    "n_peaks": 31,
    "n_photons": 123456,
    "photon_energy_eV": 7015.2,
    "photon_energy_sigma_eV": 51.0,
    "clen_m": 0.1502,
    "clen_sigma_m": 0.0013,
    "tells_parameters": True,
    "d_min_A": 2.13,
}


def test_a_hits_figures_stand_under_their_heads() -> None:
    row = line_of("result.hit", message(Outcome.HIT, **HIT))
    for head, value in (
        ("series", "12"),
        ("frame", "345"),
        ("p", "0.998"),
        ("spots", "31"),
        ("photons", "123456"),
        ("energy (eV)", "7015 ±   51"),
        ("clen (m)", "0.150 ± 0.001"),
        ("d (A)", "2.1"),
    ):
        end = HEAD.index(f" {head}") + 1 + len(head)
        assert row[:end].endswith(value), head


def test_what_one_frame_cannot_tell_is_said_and_why_there_is_no_judgement() -> None:
    unsure = message(Outcome.HIT, **{**HIT, "tells_parameters": False, "d_min_A": None})
    assert line_of("result.hit", unsure).endswith("-  one frame cannot tell")
    lost = message(Outcome.LOST, reason="3 workers died while judging it")
    assert line_of("result.other", lost).endswith("345  lost: 3 workers died while judging it")


def test_a_status_is_a_line_with_its_alarms() -> None:
    state = healthy_state(alarms=[{"name": "no_source", "text": "nobody is there"}])
    line = line_of("status", state)
    assert "up 300 s; 20 hit, 80 miss, 0 dropped" in line
    assert "3 of 64 slots" in line
    assert line.endswith("ALARM no_source: nobody is there")


def test_a_series_end_says_what_its_frames_say() -> None:
    posterior = {
        "n_frames": 100,
        "photon_energy_eV": 7001.0,
        "photon_energy_sigma_eV": 8.0,
        "clen_m": 0.15,
        "clen_sigma_m": 0.0002,
        "tells_parameters": True,
        "header_mismatch": True,
    }
    end = {"series": 12, "announced": 100, "hit": 20, "reason": "ended", "posterior": posterior}
    line = line_of("series.end", end)
    assert "series 12, announced 100, hit 20, reason ended" in line
    assert line.endswith("THE HEADER SAYS OTHERWISE")
