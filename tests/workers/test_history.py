"""Rates come with their interval; what lies back is compared with its like."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.page_parts import child, healthy_state, judged

from hitfinder.stream.results import Outcome
from hitfinder.workers.history import HITS, LATELY_S, SECONDS, History


def counted(hits: int, misses: int, missing: int = 0, **changes: Any) -> dict[str, Any]:
    """Return a daemon's counters after so many frames."""
    failed = {"dropped": 0, "corrupt": 0, "lost": 0, "missing": missing}
    return healthy_state(counts={"hit": hits, "miss": misses, **failed}, **changes)


def miss(photons_per_px: float, clen_m: float = 0.15) -> Any:
    """Return a miss with its background and the header in force."""
    stated = {"header_clen_m": clen_m, "header_photon_energy_eV": 7000.0}
    return judged(Outcome.MISS, background_photons_per_px=photons_per_px, **stated)


def test_a_rate_is_a_share_with_its_wilson_interval_over_each_span() -> None:
    history = History()
    history.step(counted(0, 0), 1000.0)
    history.step(counted(1, 9), 1001.0)
    history.step(counted(6, 14, n_bytes=5000), 1003.0)
    said = history.rates({"hit": 50, "miss": 50})
    assert said["hit_rate"]["second"]["value"] == pytest.approx(0.5)
    assert said["hit_rate"]["minute"]["hits"] == 6
    assert said["hit_rate"]["minute"]["value"] == pytest.approx(0.3)
    # Wilson's interval of 50 of 100 (Newcombe, Stat. Med. 17, 857, 1998, method 3).
    series = said["hit_rate"]["series"]
    assert (series["low"], series["high"]) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert said["frames_per_s"] == pytest.approx(5.0)
    assert said["wire_bytes_per_s"] == pytest.approx(2000.0)


def test_no_frames_have_no_rate() -> None:
    said = History().rates(None)
    assert said["hit_rate"]["minute"]["value"] is None
    assert said["hit_rate"]["series"] is None
    assert said["frames_per_s"] == 0.0


def test_what_failed_is_counted_for_a_minute() -> None:
    history = History()
    history.step(counted(0, 0), 0.0)
    history.step(counted(0, 0, missing=7), 1.0)
    assert history.lately()["failed"] == 7
    for second in range(LATELY_S):
        history.step(counted(0, 0, missing=7), 2.0 + second)
    assert history.lately()["failed"] == 0


def test_first_starts_are_no_restarts() -> None:
    history = History()
    history.step(counted(0, 0, children=[child("sink", starts=0)]), 0.0)
    history.step(counted(0, 0, children=[child("sink", starts=1)]), 1.0)
    assert history.lately()["restarts"] == 0
    history.step(counted(0, 0, children=[child("sink", starts=3)]), 2.0)
    assert history.lately()["restarts"] == 2


def test_backgrounds_are_compared_under_one_stated_geometry() -> None:
    history = History()
    misses = 0
    for second in range(3 * LATELY_S):
        # An hour earlier, at another camera length, the background was another.
        clen_m, level = (0.25, 0.01) if second < LATELY_S else (0.15, 0.03)
        for _ in range(4):
            history.count(miss(level if second < 2 * LATELY_S else 2 * level, clen_m), 0)
        misses += 4
        history.step(counted(0, misses), float(second))
    said = history.lately()
    assert said["now"]["background_photons_per_px"] == pytest.approx(0.06)
    assert said["before"]["background_photons_per_px"] == pytest.approx(0.03)
    assert said["before"]["hit_rate"]["judged"] == 4 * LATELY_S


def test_memory_is_bounded() -> None:
    history = History()
    for n in range(SECONDS + 50):
        history.step(counted(n, n), float(n))
    for frame in range(HITS + 50):
        history.count(judged(Outcome.HIT, frame, d_min_A=2.0), 0)
    assert len(history.seconds) == SECONDS
    assert len(history.hits) == HITS
