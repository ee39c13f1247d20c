"""The summary of a series, `summary.json`: counts, rates, geometry, provenance, alarms.

One rule: it is written last, so its presence says that the folder is complete. Its counts are
those of the ledger (conservation, design section 6): announced = hit + miss + dropped + corrupt
+ lost + missing, and where that does not hold an alarm says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hitfinder.stream.errors import StoreError
from hitfinder.stream.swmr import replace_file

SUMMARY_SCHEMA = 1


class StoredFile(msgspec.Struct, frozen=True):
    """One file of images: its name in the folder and its number of rows."""

    name: str
    n_rows: int


class SeriesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a series.

    Attributes:
        folder: name of the series folder.
        n_announced: images the header promised, None if it did not say.
        counts: rows of the ledger by outcome, all six outcomes.
        hit_rate: hits of all judged frames, None if none was judged.
        reason: why the series closed.
        d_min_A_hits: hits by resolution: "2.0" holds those of 2.0 to 2.5 A.
        reported: counts as the caller kept them, for comparison.
        alarms: what somebody should look at, one sentence each.
        learned: pixels that the frames have shown to be bad, and how the flux varied; see
            `learned.summarise_learned`.
    """

    schema: int = SUMMARY_SCHEMA
    folder: str
    series: int
    series_uid: str | None
    n_announced: int | None
    counts: dict[str, int]
    hit_rate: float | None
    reason: str
    files: list[StoredFile]
    closed_at: str
    geometry: dict[str, Any]
    provenance: dict[str, Any]
    d_min_A_hits: dict[str, int] = {}
    reported: dict[str, int] = {}
    warnings: list[str] = []
    alarms: list[str] = []
    extra: dict[str, Any] = {}
    learned: dict[str, Any] = {}


def hit_rate(counts: Mapping[str, int]) -> float | None:
    """Return hits / (hits + misses)."""
    judged = counts["hit"] + counts["miss"]
    return counts["hit"] / judged if judged else None


def count_alarms(
    counts: Mapping[str, int], n_announced: int | None, reported: Mapping[str, int]
) -> list[str]:
    """Return a sentence for every count that does not add up."""
    alarms = [
        f"{n} frames were counted as {outcome}, the ledger has {counts[outcome]}"
        for outcome, n in reported.items()
        if outcome in counts and counts[outcome] != n
    ]
    n_rows = sum(counts.values())
    if n_announced is not None and n_rows != n_announced:
        alarms.append(f"{n_announced} frames were announced, the ledger has {n_rows} rows")
    return alarms


def write_summary(path: Path, summary: SeriesSummary) -> None:
    """Write a summary as indented JSON, whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(summary), indent=1)
    replace_file(path, lambda part: _write(part, text))


def _write(part: Path, text: bytes) -> None:
    part.write_bytes(text + b"\n")


def read_summary(path: Path) -> SeriesSummary:
    """Return the summary of a series.

    Raises:
        StoreError: it is not a summary that this version can read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=SeriesSummary)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{path.name}: not a readable summary ({error})") from error


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
