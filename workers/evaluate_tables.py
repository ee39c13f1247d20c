"""The evaluation's figures as Markdown tables.

One rule: a figure stands beside its interval or its number of cases, and a limit is written as
one: `<=` where the weakest crystal shown is found, `>` where the strongest is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hitfinder.models.metrics import Rate, Reliability
from hitfinder.sim.physics import PULSE_PHOTONS
from hitfinder.workers.evaluate_blanks import BlankRate
from hitfinder.workers.evaluate_comparison import Row
from hitfinder.workers.evaluate_cost import HIT_SHARE, Cost
from hitfinder.workers.evaluate_daemon import LiveRun
from hitfinder.workers.evaluate_gate import (
    ALL,
    FIRST_FRAMES,
    OUTPUTS,
    SHIPPED,
    GateFigures,
    Point,
)
from hitfinder.workers.evaluate_plans import FREE, STRENGTHS
from hitfinder.workers.evaluate_positions import PHOTON_EDGES, Positions
from hitfinder.workers.evaluate_tree import TreeRate


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def rate_text(rate: Rate) -> str:
    """Return `k/n [low-high]`, in shares."""
    digits = 3 if rate.value >= 0.01 or not rate.k else 5
    interval = f"{rate.low:.{digits}f}-{rate.high:.{max(digits, 4 if rate.n > 999 else 3)}f}"
    return f"{rate.k}/{rate.n} [{interval}]"


def width_text(width_mrad: float) -> str:
    """Return a column's name for a spot width."""
    if width_mrad == FREE:
        return "widths as drawn"
    return f"{width_mrad:g} mrad" if width_mrad else "sharp"


def cut_table(figures: GateFigures) -> str:
    """Return what each cut let pass of the blanks among the hits."""
    rows = [
        [c.output, c.name, flux_text(c.n_photons), f"{c.value:.6g}", *map(rate_text, rates)]
        for c in figures.cuts
        for rates in ((c.passed, c.later),)
    ]
    later = f"of these beyond the first {FIRST_FRAMES} frames"
    return table(["output", "cut", "photons", "threshold", "blanks that pass", later], rows)


def flux_text(n_photons: float) -> str:
    """Return photons a pulse for a table."""
    return "as drawn" if n_photons == FREE else f"{n_photons:.0e}".replace("e+0", "e")


def full_table(figures: GateFigures, output: str, cut: str = SHIPPED) -> str:
    """Return the share of full crystals found: data set x flux x width."""
    points = [p for p in figures.points if (p.output, p.cut) == (output, cut)]
    top = max(p.strength for p in points)
    columns = sorted({(-p.n_photons, p.width_mrad) for p in points})
    head = ["set", *(f"{flux_text(-f)} {width_text(w)}" for f, w in columns)]
    rows = []
    for dataset in sorted({p.dataset for p in points}):
        found = {
            (-p.n_photons, p.width_mrad): rate_text(p.rate)
            for p in points
            if p.dataset == dataset and p.strength == top
        }
        rows.append([dataset, *(found.get(c, "") for c in columns)])
    pooled = [rate_text(figures.pooled(output, cut, -f, w)) for f, w in columns]
    return table(head, [*rows, [ALL, *pooled]])


def strength_table(points: Sequence[Point], output: str, cut: str) -> str:
    """Return TPR by strength: a row a data set and width."""
    mine = [p for p in points if p.output == output and p.cut == cut]
    most = max(p.n_photons for p in mine)
    found: dict[tuple[float, str], dict[float, Rate]] = {}
    for p in mine:
        if p.n_photons == most:
            found.setdefault((p.width_mrad, p.dataset), {})[p.strength] = p.rate
    rows = [
        [dataset, width_text(width), *(f"{rates[s].value:.3f}" for s in sorted(rates))]
        for (width, dataset), rates in sorted(found.items())
    ]
    strengths = sorted({s for rates in found.values() for s in rates})
    return table(["set", "spots", *(f"s={s:g}" for s in strengths)], rows)


def s90_text(value: float) -> str:
    """Return S90 with its limit's sign."""
    if math.isinf(value):
        return f"> {STRENGTHS[-1]:g}"
    return f"<= {value:.3f}" if value <= STRENGTHS[0] else f"{value:.4f}"


def sensitivity_table(figures: GateFigures) -> str:
    """Return S90 by data set, mean and spread, beside the blanks that pass the cut."""
    found = figures.sensitivity
    names = sorted({name for s in found for name in s.by_set})
    most = max(c.n_photons for c in figures.cuts)
    passed = {(c.output, c.name): c.passed for c in figures.cuts if c.n_photons == most}
    rows = []
    for s in found:
        spread = f"{s90_text(s.spread.low)} / {s90_text(s.spread.middle)} / "
        spread += s90_text(s.spread.high)
        row = [s.output, s.cut, rate_text(passed[s.output, s.cut]), width_text(s.width_mrad)]
        row += [f"**{s90_text(s.mean)}**", spread]
        rows.append([*row, *(s90_text(s.by_set[n]) for n in names if n in s.by_set)])
    head = ["output", "cut", "blanks that pass", "spots", "geometric mean", "16 / 50 / 84 %"]
    head += names
    return table(head, rows)


def blank_table(rates: Sequence[BlankRate], among: Sequence[str]) -> str:
    """Return what passed of each kind of blanks: rows kind and output, columns `among`."""
    found = {(r.kind, r.output, r.among): r.rate for r in rates}
    kinds = list(dict.fromkeys(r.kind for r in rates))
    rows = [
        [kind, output, *(_short(found.get((kind, output, a))) for a in among)]
        for kind in kinds
        for output in OUTPUTS
    ]
    return table(["kind", "output", *among], rows)


def _short(rate: Rate | None) -> str:
    return "" if rate is None else rate_text(rate)


def position_table(figures: Mapping[str, Mapping[float, Positions]]) -> str:
    """Return recall, precision, error and intensity by data set and width."""
    head = ["set", "spots", "photons >=", "recall", "recall, clear", "precision"]
    head += ["precision, any peak", "rms px", "intensity / expected"]
    rows = [
        [
            dataset,
            width_text(width),
            f"{p.limit_photons:g}",
            *map(rate_text, (p.recall, p.clear_recall, p.precision, p.precision_near)),
            f"{p.rms_px:.2f}",
            f"{p.intensity_ratio:.3f}",
        ]
        for dataset, widths in figures.items()
        for width, p in widths.items()
    ]
    return table(head, rows)


def recall_table(figures: Mapping[float, Positions]) -> str:
    """Return recall by expected photons, all data sets."""
    edges = zip(PHOTON_EDGES, PHOTON_EDGES[1:], strict=False)
    head = ["spots", *(f"{a:g}-{b:g}" if b < math.inf else f">= {a:g}" for a, b in edges)]
    rows = [
        [width_text(width), *(f"{r.value:.3f} ({r.n})" for r in p.recall_by_photons)]
        for width, p in figures.items()
    ]
    return table(head, rows)


def reliability_table(found: Mapping[str, Reliability]) -> str:
    """Return stated against true probability, bin by bin, and the expected calibration error."""
    rows = [
        [
            output,
            f"{r.expected_calibration_error:.4f}",
            *(
                f"{stated:.3f} -> {true:.3f} ({n})" if n else ""
                for stated, true, n in zip(r.stated, r.true, r.n, strict=True)
            ),
        ]
        for output, r in found.items()
    ]
    n_bins = max(len(r.n) for r in found.values())
    head = ["output", "ECE", *(f"{k / n_bins:g}-{(k + 1) / n_bins:g}" for k in range(n_bins))]
    return table(head, rows)


def comparison_table(rows: Sequence[Row]) -> str:
    """Return S90 and the full crystals found of every scorer."""
    widths = sorted({s.width_mrad for r in rows for s in r.sensitivity})
    head = ["scorer", "output", "FPR", *(f"S90 {width_text(w)}" for w in widths)]
    body = []
    for r in rows:
        s90 = {s.width_mrad: s for s in r.sensitivity}
        shown = [
            f"**{s90_text(s90[w].mean)}** ({s90_text(s90[w].spread.low)} to "
            f"{s90_text(s90[w].spread.high)})"
            for w in widths
        ]
        cells = [r.label, r.output, f"{r.rate:.1e}", *shown]
        body.append([*cells, rate_text(r.full), str(r.n_frames)])
    return table([*head, f"full crystals, {PULSE_PHOTONS:.0e} photons", "frames"], body)


def cost_table(cost: Cost) -> str:
    """Return what judging costs."""
    memcpy = cost.memcpy_ms
    steps = {
        "memcpy of a decoded frame": memcpy,
        "pool 4 x 4 (front end)": cost.pool_ms,
        "background (front end)": cost.background_ms,
        "judge a blank, background included": cost.blank_ms,
        "judge a hit, background included": cost.hit_ms,
        f"**gate and heads at {HIT_SHARE:.0%} hits, background left out**": cost.gate_ms,
    }
    rows = [[name, f"{ms:.2f}", f"{ms / memcpy:.2f}"] for name, ms in steps.items()]
    return table(["step, one core", "ms", "x memcpy"], rows)


def conservation_table(run: LiveRun) -> str:
    """Return what became of the announced frames."""
    head = ["announced", *run.counts, "sum"]
    return table(head, [[str(n) for n in (run.announced, *run.counts.values(), run.n_rows)]])


def tree_table(rates: Sequence[TreeRate]) -> str:
    """Return what passed of a tree's frames."""
    rows = [[r.dataset, r.output, rate_text(r.hits), rate_text(r.blanks)] for r in rates]
    return table(["set", "output", "hits found", "blanks that pass"], rows)
