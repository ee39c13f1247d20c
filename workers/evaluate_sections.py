"""Each part of an evaluation in words: its figures, its tables, its picture.

One rule: a section says how its figures came about before it shows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hitfinder.workers import evaluate_plots as plots
from hitfinder.workers import evaluate_tables as tables
from hitfinder.workers.evaluate_blanks import blank_rates, reliabilities
from hitfinder.workers.evaluate_comparison import RATE, compare
from hitfinder.workers.evaluate_cost import Cost
from hitfinder.workers.evaluate_daemon import LiveRun
from hitfinder.workers.evaluate_gate import (
    ALL,
    FIRST_FRAMES,
    OUTPUTS,
    SHIPPED,
    gate_figures,
    position_figures,
)
from hitfinder.workers.evaluate_heads import Figures, HeadsStudy
from hitfinder.workers.evaluate_heads_plot import draw_heads, lines_of
from hitfinder.workers.evaluate_plans import N_HOT_PIXELS
from hitfinder.workers.evaluate_report import Section
from hitfinder.workers.evaluate_scores import Scored
from hitfinder.workers.evaluate_tree import TreeRate

TITLES = {"gate": "Hits found", "held-out": "Settings that no training used"}
GATE = f"""Each data set and width is one series, judged in order through one context: hits
scattered among blanks, {N_HOT_PIXELS} hot pixels at fixed places from the first frame on, no mask
for them. Cuts: the shipped threshold (1e-3), and what the blanks of these series give at 1e-3 and
1e-2, one for all data sets of a flux. Intervals are Wilson's, 95 %; S90's spread is a bootstrap
over patterns (16, 50, 84 %)."""
HELD_OUT = "Crystals, spot shapes and nuisances of the generator that no training used; see above."
BLANKS = f"""No crystal; shipped threshold; normal and low fluxes. Hot pixels shine from the first
frame of a series of 1000 on; `first frames` are the first {FIRST_FRAMES} of each series."""
CALIBRATION = """Half of the frames hold a crystal of 0.001 to 1 of the full strength; thickness
and centre vary, some frames have powder rings, five hot pixels shine; no salt, streak or ice. Hits
of one or two reflections of 3 expected photons are left out of `spots3`. stated -> true (n)."""
POSITIONS = """All hits of the normal flux, missed ones included. A reflection is found if a peak
with p >= 0.5 lies within 2 px; it is clear if no neighbour of a tenth of its photons and no gap
lies within 4 px + 3 sigma. A peak of at least that many photons is right within 2 px of any
reflection of half an expected photon or more; `any peak` is right within 2 px + 2 sigma."""
COMPARISON = f"""The same frames for every row: one showing of the last patterns at each strength,
3e8 photons, and some blanks. Cuts for each data set from its blanks among them, at {RATE:g} or the
least rate that they can tell: kind to scores whose meaning changes with the data set."""
COST = """Thread time of one core, medians; a memcpy of the same 4M frame in the same minute."""
DAEMON = """The same kind of series, sent by an emulated detector to `hitfinder-stream run`; rates
from the rows of its ledgers. Hot pixels stay where they are from series to series."""
HEADS = """Pixels only, without the header. `drawn water` goes straight into the rings, `judged`
frames through the pipeline with their spots; thickness and beam centre jitter in all. The bound is
Cramer and Rao's with scale and centre unknown; a Gaussian at the bound has a median of 0.67."""
TREES = """Overlays and the water behind them as they lie in the tree; shipped threshold."""
NO_TREES = "None given (`--data`)."
WHOLE = "The same for those that can look at all frames of the series:"


def gate(part: str, scored: Sequence[Scored], shipped: Mapping[str, float], out: Path) -> Section:
    """Return hits by strength and flux, and S90."""
    figures = gate_figures(scored, shipped)
    text = [GATE if part == "gate" else HELD_OUT, tables.sensitivity_table(figures)]
    for output in OUTPUTS:
        text.append(f"Full crystals, `{output}`, shipped threshold:")
        text.append(tables.full_table(figures, output))
        text.append(f"Share found by strength, `{output}`, shipped threshold:")
        text.append(tables.strength_table(figures.points, output, SHIPPED))
    text += ["Blanks of these series that pass:", tables.cut_table(figures)]
    picture = plots.draw_sensitivity(figures, out / f"{part}.png")
    return Section(TITLES[part], "\n\n".join(text), asdict(figures), [picture.name])


def blanks(scored: Sequence[Scored], shipped: Mapping[str, float]) -> Section:
    """Return false-positive rates by kind."""
    rates = blank_rates(scored, shipped)
    among = list(dict.fromkeys(r.among for r in rates))
    sets = sorted(a for a in among if a.isdigit())
    rest = sorted(a for a in among if a != ALL and not a.isdigit())
    text = [BLANKS, tables.blank_table(rates, [ALL, *rest])]
    text += ["By data set:", tables.blank_table(rates, sets)]
    return Section("Blanks", "\n\n".join(text), {"rates": [asdict(r) for r in rates]})


def calibration(scored: Sequence[Scored], out: Path) -> Section:
    """Return whether the probabilities come true."""
    found = reliabilities(scored)
    picture = plots.draw_reliability(found, out / "reliability.png")
    text = f"{CALIBRATION}\n\n{tables.reliability_table(found)}"
    figures = {output: asdict(r) for output, r in found.items()}
    return Section("Probabilities", text, figures, [picture.name])


def positions(scored: Sequence[Scored]) -> Section:
    """Return recall and precision of the reported spots."""
    figures = position_figures(scored)
    text = [POSITIONS, tables.position_table(figures)]
    text += ["Recall by expected photons (reflections):", tables.recall_table(figures[ALL])]
    plain = {d: {f"{w:g}": asdict(p) for w, p in widths.items()} for d, widths in figures.items()}
    return Section("Positions", "\n\n".join(text), plain)


def comparison(
    same: Mapping[str, Sequence[Scored]], whole: Mapping[str, Sequence[Scored]], out: Path
) -> Section:
    """Return this gate beside what was taken from it and beside the references."""
    rows, live = compare(same), compare(whole)
    text = [COMPARISON, tables.comparison_table(rows), WHOLE, tables.comparison_table(live)]
    picture = plots.draw_comparison(rows, out / "comparison.png")
    figures = {"same": [asdict(r) for r in rows], "whole": [asdict(r) for r in live]}
    return Section("Beside others", "\n\n".join(text), figures, [picture.name])


def cost(measured: Cost) -> Section:
    """Return what judging costs beside the front end."""
    figures = {**asdict(measured), "gate_ms": measured.gate_ms, "x_memcpy": measured.x_memcpy}
    return Section("Cost", f"{COST}\n\n{tables.cost_table(measured)}", figures)


def heads(study: HeadsStudy, out: Path) -> Section:
    """Return what single frames and series tell of energy and camera length."""
    draw_heads(study, out / "heads.png")
    single = {"drawn": study.drawn, "judged": study.judged, **study.sets}
    figures = {name: _single(rows) for name, rows in single.items()}
    for (dataset, n_frames), rows in study.series.items():
        worst = rows.error.max(axis=0).tolist()
        middle = np.median(rows.error, axis=0).tolist()
        figures[f"{dataset}, {n_frames} frames"] = {"median_eV_m": middle, "largest_eV_m": worst}
    if study.linear_named:
        figures["named_by_linear_heads"] = dict(study.linear_named)
    figures["header"] = {"honest": study.n_honest, "called_wrong": study.n_alarms}
    text = "\n".join((HEADS, "", *lines_of(study)))
    return Section("Photon energy and camera length", text, figures, ["heads.png"])


def _single(rows: Figures) -> dict[str, Any]:
    ratio, n_told = rows.error_over_bound()
    return {
        "frames": len(rows.rows),
        "within_1_sigma": rows.coverage(1).tolist(),
        "within_2_sigma": rows.coverage(2).tolist(),
        "median_error_over_bound": ratio.tolist(),
        "of": n_told.tolist(),
        "setting_named": rows.named if rows.rows else None,
    }


def daemon(run: LiveRun, shipped: Mapping[str, float]) -> Section:
    """Return what the running daemon made of such series."""
    found = gate_figures(run.scored, shipped)
    text = [DAEMON, tables.conservation_table(run)]
    text += [f"wrong: {problem}" for problem in run.problems] or ["Everything adds up."]
    for output in OUTPUTS:
        text.append(f"Full crystals, `{output}`, shipped threshold:")
        text.append(tables.full_table(found, output))
        text.append(tables.strength_table(found.points, output, SHIPPED))
    text.append(tables.cut_table(found))
    figures = {
        "announced": run.announced,
        "counts": dict(run.counts),
        "problems": list(run.problems),
        **asdict(found),
    }
    return Section("Through the daemon", "\n\n".join(text), figures)


def trees(found: Mapping[str, Sequence[TreeRate]]) -> Section:
    """Return what was found in data set trees."""
    text = [TREES if found else NO_TREES]
    for name, rates in found.items():
        text += [f"`{name}`:", tables.tree_table(rates)]
    figures = {name: [asdict(r) for r in rates] for name, rates in found.items()}
    return Section("Data set trees", "\n\n".join(text), figures)
