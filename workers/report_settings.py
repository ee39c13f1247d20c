"""A run's settings and the commands that come next, as lines to copy.

One rule: a value that does not hold for all series says for how many it does.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hitfinder.workers.report_series import HIT, NOT_CLOSED, StoredSeries

MAX_VALUES, MAX_NEXT = 12, 3


def settings_lines(series: Sequence[StoredSeries]) -> list[str]:
    """Return the versions, hashes and geometry in force, and in how many series if not in all."""
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for one in series:
        for key, value in one.provenance.items():
            if key != "config":
                values[key][str(value)] += 1
        for model in sorted(one.models):
            values["model"][model] += 1
        geometry = one.geometry
        for key in ("photon_energy_eV", "clen_m", "beam_center_px", "pixel_size_m"):
            value, source = getattr(geometry, key), geometry.sources.get(key, "nobody")
            said = "unknown" if value is None else _plain(value)
            values[key][f"{said} (from {source})"] += 1
    lines = []
    for key, found in values.items():
        for value, n in found.most_common(MAX_VALUES):
            where = "" if n == len(series) else f"  # {n} of {len(series)} series"
            lines.append(f"{key} = {value}{where}")
        if len(found) > MAX_VALUES:
            lines.append(f"{key}: {len(found) - MAX_VALUES} other values")
    return [*lines, *_change_lines(series)]


def _change_lines(series: Sequence[StoredSeries]) -> list[str]:
    """Return what the operator changed while the series ran, the first of them."""
    lines = []
    for one in series:
        for change in one.changes:
            held = [f"{k} {v}" for k, v in change.items() if k != "frame" and v is not None]
            lines.append(
                f"changed: series {one.start.series} from frame {change.get('frame')} on: "
                f"{', '.join(held) or 'as configured'}"
            )
    more = [f"changed: {len(lines) - MAX_VALUES} times more"] if len(lines) > MAX_VALUES else []
    return lines[:MAX_VALUES] + more


def _plain(value: Any) -> str:
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"


def config_lines(series: Sequence[StoredSeries]) -> list[str]:
    """Return the effective configuration, a key a line; of the first series if they differ."""
    try:
        tree = json.loads(str(series[0].provenance.get("config", "{}")))
    except ValueError:
        return []
    if not isinstance(tree, dict):
        return []
    return [
        f"{part}.{key} = {json.dumps(value)}"
        for part, keys in tree.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
        if value is not None
    ]


def next_lines(run: Path, series: Sequence[StoredSeries]) -> list[str]:
    """Return the commands that come next, ready to be pasted."""
    where = shlex.quote(str(run))
    lines = []
    if any(one.state == NOT_CLOSED for one in series):
        lines += [f"hitfinder-stream check {where} --repair", ""]
    best = sorted(series, key=lambda one: -int((one.frames["outcome"] == HIT).sum()))
    for one in best[:MAX_NEXT]:
        if not one.counts["hit"]:
            break
        folder = shlex.quote(str(one.folder))
        lines += [
            f"# series {one.start.series}: {one.counts['hit']} hits",
            f"cd {folder} && indexamajig -i hits.lst -g detector.geom --peaks=cxi -o hits.stream",
            f"dials.import {shlex.quote(str(one.folder / 'master.h5'))}",
            "",
        ]
    return [*lines, f"hitfinder-stream check {where}", f"hitfinder-stream report {where}"]
