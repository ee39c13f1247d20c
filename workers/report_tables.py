"""A report's figures as tables and sentences.

One rule: what is unknown is a question mark, a rate has its interval, and a long list says how
much of it is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.metrics import wilson
from hitfinder.stream.results import OUTCOMES, Outcome
from hitfinder.workers.report_series import COMPLETE, NOT_CLOSED, OPEN, StoredSeries

MAX_ALARMS, MAX_REASONS, MAX_SERIES = 30, 12, 300
MEANINGS = {
    Outcome.HIT: "kept, with its spots",
    Outcome.MISS: "judged, no crystal; a sample is kept",
    Outcome.DROPPED: "no room in the ring, said so",
    Outcome.CORRUPT: "its bytes were wrong",
    Outcome.LOST: "received, lost by a failure of the daemon",
    Outcome.MISSING: "announced, never received",
}
Series = Sequence[StoredSeries]
Row = tuple[str, ...]


def count(n: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{n:,}".replace(",", "\u202f")


def shown(value: object, value_format: str, unit: str = "") -> str:
    """Return a number in a format, a question mark for what is none."""
    if isinstance(value, int | float) and math.isfinite(value):
        return f"{value:{value_format}}{unit}"
    return "?"


def percent(k: int, n: int) -> str:
    """Return a share with its 95 % interval."""
    if not n:
        return "?"
    rate = wilson(k, n)
    return f"{100 * k / n:.2f} % (95 %: {100 * rate.low:.2f} to {100 * rate.high:.2f})"


def total_counts(series: Series) -> dict[str, int]:
    """Return outcome -> frames of all series."""
    return {o.value: sum(one.counts[o.value] for one in series) for o in OUTCOMES}


def alarm_sentences(series: Series, unread: Sequence[str]) -> list[str]:
    """Return what somebody should look at: what is not closed, alarms, odd headers."""
    found = list(unread)
    for one in series:
        name = f"series {one.start.series}"
        n = len(one.frames)
        if one.state == NOT_CLOSED:
            found.append(
                f"{name}: not closed, its writer was killed: {count(n)} frames have a verdict "
                f"(header: {_or_unknown(one.n_announced)}); check --repair mends the folder"
            )
        elif one.state == OPEN:
            found.append(
                f"{name}: still open: {count(n)} frames have a verdict so far "
                f"(header: {_or_unknown(one.n_announced)})"
            )
        said = one.summary
        found += [f"{name}: {alarm}" for alarm in (said.alarms if said else ())]
        found += [f"{name}, header: {w}" for w in (said.warnings if said else one.start.warnings)]
    return _cut(found, MAX_ALARMS)


def _or_unknown(n: int | None) -> str:
    return "no number" if n is None else count(n)


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"... and {len(lines) - most} more"]


def count_rows(series: Series) -> list[Row]:
    """Return a row an outcome, and their sum against what was announced."""
    counts = total_counts(series)
    n = sum(counts.values())
    rows = [
        (o.value, MEANINGS[o], count(counts[o.value]), _share(counts[o.value], n))
        for o in OUTCOMES
    ]
    return [*rows, ("sum", "frames with a verdict", count(n), ""), _announced_row(series)]


def _announced_row(series: Series) -> Row:
    unsaid = sum(one.n_announced is None for one in series)
    n = sum(one.n_announced or 0 for one in series)
    words = f"by the headers; {unsaid} did not say" if unsaid else "by the headers"
    return "announced", words, count(n), ""


def _share(k: int, n: int) -> str:
    return f"{100 * k / n:.2f} %" if n else ""


def reason_rows(series: Series) -> list[Row]:
    """Return (outcome, why, frames) of what was neither hit nor miss, the most frequent first."""
    reasons: Counter[tuple[str, str]] = Counter()
    for one in series:
        reasons.update(one.reasons)
    ranked = reasons.most_common()
    rows = [(outcome, why or "no reason given", count(n)) for (outcome, why), n in ranked]
    left = sum(n for _, n in ranked[MAX_REASONS:])
    more = [("", f"{len(rows) - MAX_REASONS} other reasons", count(left))] if left else []
    return [*rows[:MAX_REASONS], *more]


def about_rows(run: Path, series: Series, frames: NDArray[np.void]) -> list[Row]:
    """Return what was measured, when and with which detector."""
    states = Counter(one.state for one in series)
    said = [f"{states[s]} {s}" for s in (COMPLETE, OPEN, NOT_CLOSED) if states[s]]
    t_ns = frames["t_received_ns"][frames["t_received_ns"] > 0]
    rows: list[Row] = [("folder", str(run)), ("series", ", ".join(said) or "none")]
    if len(t_ns):
        first, last = int(t_ns.min()), int(t_ns.max())
        rows.append(("received", f"{_utc(first)} to {_utc(last)} UTC"))
        rows.append(("frames a second", f"{shown(_rate_Hz(series), '.1f')} while a series ran"))
    rows += [
        ("armed", _together(one.start.arm_date for one in series)),
        ("detector", _together(_detector(one) for one in series)),
        ("images (ss, fs)", _together(_layout(one) for one in series)),
        ("exposure", _together(_ms(one.start.count_time_s) for one in series)),
        # A row is written before it is published: no file knows how long that took.
        ("latency", "not in the files; /metrics of the daemon has it while it runs"),
    ]
    return [(name, value) for name, value in rows if value]


def _detector(one: StoredSeries) -> str:
    return " ".join(s for s in (one.start.detector, one.start.serial_number) if s)


def _layout(one: StoredSeries) -> str:
    if one.start.shape is None:
        return ""
    return f"{one.start.shape[0]} x {one.start.shape[1]} {one.start.dtype or ''}"


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:g} ms"


def _together(values: Iterable[str | None]) -> str:
    """Return the different values that there are; first and last of many."""
    found = list(dict.fromkeys(v for v in values if v))
    if len(found) > 3:
        return f"{found[0]} ... {found[-1]} ({len(found)} different)"
    return ", ".join(found)


def _utc(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns * 1e-9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _rate_Hz(series: Series) -> float:
    """Return frames a second, pauses between series left out; NaN if no two frames came."""
    n, span_s = 0, 0.0
    for one in series:
        t_ns = one.frames["t_received_ns"][one.frames["t_received_ns"] > 0]
        if len(t_ns) > 1:
            n += len(t_ns) - 1
            span_s += float(t_ns.max() - t_ns.min()) * 1e-9
    return n / span_s if span_s else math.nan


SERIES_HEAD = (
    *("series", "state", "first frame, UTC", "frames", "hits", "misses", "other", "hit rate"),
    *("header eV", "pixels eV", "header m", "pixels m", "frames against the header"),
)


def series_rows(series: Series) -> list[Row]:
    """Return a row a series, for `SERIES_HEAD`."""
    rows: list[Row] = []
    for one in series[:MAX_SERIES]:
        counts, said = one.counts, one.posterior
        n_judged = counts["hit"] + counts["miss"]
        t_ns = one.frames["t_received_ns"][one.frames["t_received_ns"] > 0]
        energy = shown(said.get("photon_energy_eV"), ".0f")
        clen = shown(said.get("clen_m"), ".4f")
        rows.append(
            (
                str(one.start.series),
                one.state,
                _utc(int(t_ns.min())) if len(t_ns) else "?",
                count(len(one.frames)),
                count(counts["hit"]),
                count(counts["miss"]),
                count(len(one.frames) - n_judged),
                f"{100 * counts['hit'] / n_judged:.1f} %" if n_judged else "?",
                shown(one.geometry.photon_energy_eV, ".0f"),
                f"{energy} ± {shown(said.get('photon_energy_sigma_eV'), '.0f')}",
                shown(one.geometry.clen_m, ".4f"),
                f"{clen} ± {shown(said.get('clen_sigma_m'), '.4f')}",
                count(int((one.frames["mismatch"] == 1).sum())),
            )
        )
    return rows


def learned_rows(series: Series) -> list[Row]:
    """Return what frames have shown of the detector, a row a series that has ended."""
    rows = []
    for one in series[:MAX_SERIES]:
        said = one.summary.learned if one.summary else {}
        if said:
            scale, scatter = said.get("flux_scale_mean"), said.get("flux_scale_scatter")
            names = ("n_hot", "n_dead_px", "n_shadow_px", "n_judged_before_known")
            flux = f"{shown(scale, '.3f')} ± {shown(scatter, '.3f')}"
            rows.append((str(one.start.series), *(shown(said.get(n), "d") for n in names), flux))
    return rows
