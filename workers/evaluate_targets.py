"""What the hit finder is asked to reach, beside what was measured.

One rule: a target is met by the measured value, whose interval or worst case stands beside it; a
part that was not run leaves its targets out, and too few cases are named as what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hitfinder.models.metrics import wilson
from hitfinder.sim.physics import PULSE_PHOTONS
from hitfinder.workers.evaluate_gate import ALL, SHIPPED
from hitfinder.workers.evaluate_report import Section
from hitfinder.workers.evaluate_tables import rate_text, s90_text, table, width_text

FULL_TPR, FPR, MANY_BLANKS = 0.999, 1e-3, 10_000
LOW_FLUX = (
    (3e7, "01 to 09", 0.98, "123456789"),
    (1e7, "01 to 06", 0.97, "123456"),
    (1e7, "07 to 09", 0.90, "789"),
)
S90 = {0.0: (0.015, 0.010), 2.0: (0.035, 0.025)}
"""Width -> target and what would be splendid."""
POSITIONS = 0.95
COST = 1.5
KINDS = ("ideal", "jitter", "rings", "hot")
OUTPUT = "any"

Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One figure that was asked for."""

    what: str
    asked: str
    measured: str
    is_met: bool


def targets(sections: Mapping[str, Section]) -> Section:
    """Return what was asked beside what was found, for the parts that were run."""
    readers: dict[str, Callable[[Figures], Iterator[Target]]] = {
        "gate": _gate,
        "blanks": _blanks,
        "positions": _positions,
        "cost": _cost,
    }
    found = [t for p, read in readers.items() if p in sections for t in read(sections[p].figures)]
    rows = [[t.what, t.asked, t.measured, "yes" if t.is_met else "**no**"] for t in found]
    text = f"Output `{OUTPUT}` at the shipped threshold.\n\n"
    text += table(["", "asked", "measured", "met"], rows)
    return Section("Asked and found", text, {"targets": [asdict(t) for t in found]})


def _gate(figures: Figures) -> Iterator[Target]:
    points = [p for p in figures["points"] if (p["output"], p["cut"]) == (OUTPUT, SHIPPED)]
    top = max(p["strength"] for p in points)
    full = [p for p in points if p["strength"] == top]
    normal = [p["rate"] for p in full if p["n_photons"] == PULSE_PHOTONS]
    tpr = wilson(sum(r["k"] for r in normal), sum(r["n"] for r in normal))
    passed = next(
        c["passed"]
        for c in figures["cuts"]
        if (c["output"], c["name"], c["n_photons"]) == (OUTPUT, SHIPPED, PULSE_PHOTONS)
    )
    blank = wilson(passed["k"], passed["n"])
    yield Target(
        "10 um, 3e8 photons, all sets and widths, hot pixels",
        f"TPR >= {FULL_TPR} at FPR <= {FPR:g}",
        f"{rate_text(tpr)} at {rate_text(blank)}",
        tpr.value >= FULL_TPR and blank.value <= FPR,
    )
    for flux, sets, asked, last in LOW_FLUX:
        mine = [p for p in full if p["n_photons"] == flux and p["dataset"][-1] in last]
        if mine:
            worst = min(mine, key=lambda p: p["rate"]["k"] / p["rate"]["n"])
            rate = wilson(worst["rate"]["k"], worst["rate"]["n"])
            where = f"{worst['dataset']}, {width_text(worst['width_mrad'])}"
            said = f"worst {rate_text(rate)} ({where})"
            yield Target(
                f"10 um, {flux:.0e} photons, each of {sets}".replace("e+0", "e"),
                f"TPR >= {asked}",
                said,
                rate.value >= asked,
            )
    for found in figures["sensitivity"]:
        if (found["output"], found["cut"]) == (OUTPUT, SHIPPED) and found["width_mrad"] in S90:
            asked, splendid = S90[found["width_mrad"]]
            spread = found["spread"]
            ends = f"{s90_text(spread['low'])} to {s90_text(spread['high'])}"
            yield Target(
                f"S90, {width_text(found['width_mrad'])}, {found['n_patterns']} patterns a set",
                f"<= {asked} (splendid: {splendid})",
                f"{s90_text(found['mean'])} ({ends})",
                found["mean"] <= asked and blank.value <= FPR,
            )


def _blanks(figures: Figures) -> Iterator[Target]:
    for entry in figures["rates"]:
        if entry["output"] == OUTPUT and entry["among"] == ALL and entry["kind"] in KINDS:
            rate = wilson(entry["rate"]["k"], entry["rate"]["n"])
            is_enough = rate.n >= MANY_BLANKS
            yield Target(
                f"blanks: {entry['kind']}",
                f"FPR <= {FPR:g} on {MANY_BLANKS}",
                rate_text(rate) + ("" if is_enough else ", too few"),
                rate.value <= FPR and is_enough,
            )


def _positions(figures: Figures) -> Iterator[Target]:
    for width, p in figures[ALL].items():
        for name in ("recall", "precision"):
            rate = wilson(p[name]["k"], p[name]["n"])
            yield Target(
                f"spots of >= {p['limit_photons']:g} photons, {width_text(float(width))}: {name}",
                f">= {POSITIONS}",
                rate_text(rate),
                rate.value >= POSITIONS,
            )


def _cost(figures: Figures) -> Iterator[Target]:
    cost: float = figures["x_memcpy"]
    what = "gate and heads, one core, 20 % hits, beside the front end"
    yield Target(what, f"<= {COST} memcpys", f"{cost:.2f}", cost <= COST)
