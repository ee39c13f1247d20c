"""What a daemon has been doing, second by second: rates, levels, hits, the series so far.

One rule: a frame costs a few additions; all else is done once a second, in a memory that does
not grow. A rate always comes with its 95 % interval, and what lies back is compared only with
seconds under the same stated energy and camera length.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hitfinder.models.metrics import wilson
from hitfinder.stream.results import Outcome, Record

# Seconds, hits and series that are kept.
SECONDS, HITS, SERIES = 600, 1000, 40
# What is called lately: long enough for a rate, short enough to act on.
LATELY_S = 60
# A ring that is full at one glance may be a burst.
STEADY_S = 3
FAILED = tuple(o.value for o in Outcome if o not in (Outcome.HIT, Outcome.MISS))

Stated = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Second:
    """What happened in one second.

    Attributes:
        t_s: its end, Unix time.
        span_s: how long it really was.
        stated: photon energy (eV) and camera length (m) of the header in force.
        hits, misses: frames judged; `failed` those with another verdict.
        wire_bytes, stored_bytes: received, and written as received.
        ring_used: share of the ring's slots that hold a frame.
        latency_p50_s, latency_p99_s: reception to publication, None if nothing was published yet.
        miss_photons_per_px: background, summed over the misses.
        n_malformed: messages refused.
        n_restarts: children started again.
        n_hot: pixels known to be hot at its end.
    """

    t_s: float
    span_s: float
    stated: Stated
    hits: int
    misses: int
    failed: int
    wire_bytes: int
    stored_bytes: int
    ring_used: float
    latency_p50_s: float | None
    latency_p99_s: float | None
    miss_photons_per_px: float
    n_malformed: int
    n_restarts: int
    n_hot: int


class History:
    """The seconds, hits and series of one daemon.

    Attributes:
        seconds: the latest `SECONDS`, oldest first.
        hits: (spots, resolution in angstrom or None) of the latest `HITS` hits.
        series: the latest `SERIES` series as their `series.end` said.
    """

    def __init__(self) -> None:
        self.seconds: deque[Second] = deque(maxlen=SECONDS)
        self.hits: deque[tuple[int, float | None]] = deque(maxlen=HITS)
        self.series: deque[dict[str, Any]] = deque(maxlen=SERIES)
        self.stated: Stated = None, None
        self._stored_bytes, self._miss_photons_per_px = 0, 0.0
        self._before: dict[str, Any] | None = None

    def count(self, record: Record, stored_bytes: int) -> None:
        """Count a published frame; `stored_bytes` is what the sink wrote of its image."""
        self._stored_bytes += stored_bytes
        if record.header_clen_m is not None or record.header_photon_energy_eV is not None:
            self.stated = record.header_photon_energy_eV, record.header_clen_m
        if record.outcome is Outcome.HIT:
            self.hits.append((record.n_peaks or 0, record.d_min_A))
        elif record.background_photons_per_px is not None:
            self._miss_photons_per_px += record.background_photons_per_px

    def step(self, state: dict[str, Any], now_s: float) -> None:
        """End a second.

        Args:
            state: the daemon's counters; see `Supervisor`.
            now_s: Unix time.
        """
        n_restarts = sum(max(child["starts"] - 1, 0) for child in state["children"])
        now = {
            "t_s": now_s,
            "counts": state["counts"],
            "wire_bytes": state["n_bytes"],
            "n_malformed": state["n_malformed"],
            "n_restarts": n_restarts,
        }
        before = self._before or {**now, "counts": dict.fromkeys(state["counts"], 0)}
        n = {o: state["counts"][o] - before["counts"][o] for o in state["counts"]}
        self.seconds.append(
            Second(
                t_s=now_s,
                span_s=now_s - before["t_s"],
                stated=self.stated,
                hits=n[Outcome.HIT],
                misses=n[Outcome.MISS],
                failed=sum(n[o] for o in FAILED),
                wire_bytes=now["wire_bytes"] - before["wire_bytes"],
                stored_bytes=self._stored_bytes,
                ring_used=state["ring_slots_used"] / state["ring_slots"],
                latency_p50_s=state["latency_p50_s"],
                latency_p99_s=state["latency_p99_s"],
                miss_photons_per_px=self._miss_photons_per_px,
                n_malformed=now["n_malformed"] - before["n_malformed"],
                n_restarts=n_restarts - before["n_restarts"],
                n_hot=state["n_hot_pixels"],
            )
        )
        self._before = now
        self._stored_bytes, self._miss_photons_per_px = 0, 0.0

    def last_series(self) -> dict[str, Any] | None:
        """Return what the latest series' end said, None before the first."""
        return self.series[-1] if self.series else None

    def rates(self, series_counts: dict[str, int] | None) -> dict[str, Any]:
        """Return what goes through per second now, and the share of hits over three spans.

        Args:
            series_counts: verdicts of the series that is open, None if none is.
        """
        seconds = list(self.seconds)
        last, lately = seconds[-1:], seconds[-LATELY_S:]
        hits = {
            "second": hit_rate(sum(s.hits for s in last), sum(s.misses for s in last)),
            "minute": hit_rate(sum(s.hits for s in lately), sum(s.misses for s in lately)),
            "series": None,
        }
        if series_counts is not None:
            hits["series"] = hit_rate(series_counts[Outcome.HIT], series_counts[Outcome.MISS])
        return {
            "hit_rate": hits,
            "frames_per_s": per_second(last, lambda s: s.hits + s.misses + s.failed),
            "wire_bytes_per_s": per_second(last, lambda s: s.wire_bytes),
            "stored_bytes_per_s": per_second(last, lambda s: s.stored_bytes),
        }

    def lately(self) -> dict[str, Any]:
        """Return the last minute beside what came before it under the same stated geometry."""
        seconds = list(self.seconds)
        alike = [s for s in seconds if s.stated == self.stated]
        lately = [s for s in seconds[-LATELY_S:] if s.stated == self.stated]
        before = alike[: len(alike) - len(lately)]
        return {
            "ring_used": min((s.ring_used for s in seconds[-STEADY_S:]), default=0.0),
            "failed": sum(s.failed for s in seconds[-LATELY_S:]),
            "malformed": sum(s.n_malformed for s in seconds[-LATELY_S:]),
            "restarts": sum(s.n_restarts for s in seconds[-LATELY_S:]),
            "now": _level(lately),
            "before": _level(before),
        }


def _level(seconds: Sequence[Second]) -> dict[str, Any]:
    """Return hits, misses, mean background of a miss and hot pixels over some seconds."""
    hits, misses = sum(s.hits for s in seconds), sum(s.misses for s in seconds)
    photons = sum(s.miss_photons_per_px for s in seconds)
    return {
        "hit_rate": hit_rate(hits, misses),
        "background_photons_per_px": photons / misses if misses else None,
        "n_hot_pixels": seconds[-1].n_hot if seconds else None,
    }


def hit_rate(hits: int, misses: int) -> dict[str, Any]:
    """Return the share of hits with its 95 % Wilson interval; `value` is None of no frames."""
    rate = wilson(hits, hits + misses)
    value = None if math.isnan(rate.value) else rate.value
    return {"hits": hits, "judged": rate.n, "value": value, "low": rate.low, "high": rate.high}


def per_second(seconds: Sequence[Second], what: Any) -> float:
    """Return a sum over some seconds divided by how long they were."""
    span_s = sum(s.span_s for s in seconds)
    return float(sum(what(s) for s in seconds) / span_s) if span_s > 0 else 0.0
