"""`evaluate`: how good weights are on frames with a known truth, in tables, pictures and JSON.

One rule: everything is a function of weights, patterns, options and seed; what is scored once is
kept in the folder, so a stopped evaluation goes on and another one beside it is the same.
Series in `evaluate_plans.py`, scores in `evaluate_scoring.py`, figures in `evaluate_gate.py`,
`evaluate_blanks.py`, `evaluate_comparison.py`, their words in `evaluate_tables.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from hitfinder.models.calibration import GateMode
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.references.linear_heads import LINEAR_HEADS, LinearHeadsReference
from hitfinder.models.references.stored import is_stored
from hitfinder.models.weights import load
from hitfinder.sim.physics import PULSE_PHOTONS, Detector
from hitfinder.workers import evaluate_sections as sections
from hitfinder.workers.bench import describe_machine
from hitfinder.workers.evaluate_cost import measure_cost
from hitfinder.workers.evaluate_daemon import daemon_plans, judge_live
from hitfinder.workers.evaluate_frames import digest, load_patterns
from hitfinder.workers.evaluate_heads import HeadsPlan, study_heads
from hitfinder.workers.evaluate_kinds import blank_kinds, chance_settings, held_out_settings
from hitfinder.workers.evaluate_options import (
    FORGETFUL,
    OURS,
    RATE,
    SCORED_PARTS,
    EvaluateOptions,
)
from hitfinder.workers.evaluate_plans import (
    SeriesPlan,
    blank_plans,
    chance_plans,
    gate_plans,
    held_out_plans,
)
from hitfinder.workers.evaluate_report import Section, kept, write_report
from hitfinder.workers.evaluate_scorers import ScorerName, reference_names
from hitfinder.workers.evaluate_scores import Scored, ScoreFolder
from hitfinder.workers.evaluate_scoring import Task, score_all
from hitfinder.workers.evaluate_targets import targets
from hitfinder.workers.evaluate_tree import judge_tree, trees

HEADLINE = "How good the hit finder is"


def evaluate(options: EvaluateOptions, console: Console) -> Path:
    """Evaluate, print the report and return its path.

    Raises:
        ModelError: unusable weights.
        SimulationError: data that holds no patterns.
    """
    study = _Study(options, console)
    study.score()
    found = {part: study.section(part) for part in options.parts}
    report = write_report(
        options.out, HEADLINE, study.made(), {"targets": targets(found), **found}
    )
    console.print(Markdown(report.read_text()))
    console.print(f"written to {report}", soft_wrap=True)
    return report


class _Study:
    """An evaluation under way: its plans, its scorers, the scores that are there."""

    def __init__(self, options: EvaluateOptions, console: Console) -> None:
        self._options, self._console = options, console
        self._loaded = load(options.weights)
        thresholds = self._loaded.calibration
        self._shipped = {str(m): thresholds.threshold(m, RATE) for m in GateMode}
        self._patterns = patterns = load_patterns(options.data)
        self._n_patterns = {
            name: min(len(patterns[name]), options.n_patterns) for name in options.datasets
        }
        digests = {name: digest(patterns[name]) for name in patterns}
        self._folder = ScoreFolder(options.out / "scores", digests, options.detector_shape)
        self._ours = ScorerName(OURS, "live", options.weights)
        self._others = [ScorerName(FORGETFUL, "forgetful", options.weights)]
        self._others += [
            ScorerName(label, "live", path) for label, path in options.ablation.items()
        ]
        self._others += reference_names(options.references)
        self._plans = self._planned()

    def _planned(self) -> dict[str, list[SeriesPlan]]:
        o = self._options
        planned: dict[str, Callable[[], list[SeriesPlan]]] = {
            "gate": lambda: gate_plans(self._n_patterns, o.repeats, o.seed, o.strengths),
            "held-out": lambda: held_out_plans(
                held_out_settings(), o.datasets, o.n_patterns, o.seed, o.strengths
            ),
            "blanks": lambda: blank_plans(blank_kinds(), o.datasets, o.n_blanks, o.seed),
            "calibration": lambda: chance_plans(chance_settings(), o.datasets, o.n_chance, o.seed),
        }
        wanted = {"gate" if p in ("positions", "comparison") else p for p in o.parts}
        return {part: make() for part, make in planned.items() if part in wanted}

    def score(self) -> None:
        """Score what is not scored yet."""
        o = self._options
        tasks = []
        for part, plans in self._plans.items():
            scorers = [self._ours]
            if part == "gate" and "comparison" in o.parts:
                scorers += self._others
            for plan in plans:
                looking = [s for s in scorers if len(s.chosen(plan, o.subset))]
                paths = [(s, self._path(plan, s)) for s in looking]
                wanted = [(s, path) for s, path in paths if not path.exists()]
                # The main table must not wait for slow scorers: each is a task of its own.
                together = [tuple(w for w in wanted if not w[0].is_slow)]
                together += [(w,) for w in wanted if w[0].is_slow]
                tasks += [Task(plan, some, o.subset) for some in together if some]
        if tasks:
            shape = o.detector_shape
            score_all(tasks, self._folder, o.data, shape, o.processes, self._console)

    def section(self, part: str) -> Section:
        """Return a part's figures in words."""
        out = self._options.out
        if part == "trees":
            return self._trees()
        if part not in SCORED_PARTS:
            return kept(self._folder.section_path(part, self._key()), lambda: self._make(part))
        if part == "comparison":
            return sections.comparison(self._same_frames(), self._whole_series(), out)
        if part == "positions":
            return sections.positions(self._scored(self._plans["gate"], self._ours))
        scored = self._scored(self._plans[part], self._ours)
        if part == "blanks":
            return sections.blanks(scored, self._shipped)
        if part == "calibration":
            return sections.calibration(scored, out)
        return sections.gate(part, scored, self._shipped, out)

    def _trees(self) -> Section:
        """Judge trees anew each time: what lies in them may have changed."""
        o = self._options
        found = {
            str(top): judge_tree(top, o.weights, self._shipped, self._console)
            for top in trees(o.data)
        }
        return sections.trees(found)

    def _key(self) -> str:
        """Return all that a section without series depends on."""
        o = self._options
        counts = (self._n_patterns, o.subset, o.n_rounds, o.n_head_frames, o.n_head_series, o.seed)
        return f"{self._ours.digest()} {o.references} {counts}"

    def _make(self, part: str) -> Section:
        o, detector = self._options, Detector(shape=self._options.detector_shape)
        if part == "cost":
            return sections.cost(measure_cost(o.weights, detector, o.n_rounds))
        if part == "heads":
            n = o.n_head_frames
            plan = HeadsPlan(n, max(n // 3, 2), max(n // 16, 2), o.n_head_series, o.seed)
            linear = None
            if o.references is not None and is_stored(o.references, LINEAR_HEADS):
                linear = LinearHeadsReference(o.references)
            return sections.heads(study_heads(Pipeline(o.weights), plan, linear), o.out)
        n_patterns = {k: min(n, o.subset.n_patterns) for k, n in self._n_patterns.items()}
        plans = daemon_plans(n_patterns, o.seed)
        run = judge_live(plans, self._patterns, detector, o.weights, self._console)
        return sections.daemon(run, self._shipped)

    def made(self) -> dict[str, Any]:
        """Return what the figures were made with."""
        o = self._options
        return {
            "command": " ".join(["hitfinder-stream", *sys.argv[1:]]),
            "weights": f"{self._loaded.card.get('name')}, {self._loaded.model_id}",
            "thresholds": {m: f"{t:.6g}" for m, t in self._shipped.items()},
            "patterns": self._n_patterns,
            "seed": o.seed,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": describe_machine("cpu"),
        }

    def _same_frames(self) -> dict[str, list[Scored]]:
        """Return every scorer's scores of the frames that the slow ones look at."""
        subset = self._options.subset
        plans = [p for p in self._plans["gate"] if len(subset.frames(p))]
        return {
            s.label: [x.only(subset.frames(x.plan)) for x in self._scored(plans, s)]
            for s in (self._ours, *self._others)
        }

    def _whole_series(self) -> dict[str, list[Scored]]:
        """Return the scores of those that look at all frames, of the normal flux."""
        live = [s for s in (self._ours, *self._others) if not s.is_slow]
        plans = [p for p in self._plans["gate"] if p.n_photons == PULSE_PHOTONS]
        return {s.label: self._scored(plans, s) for s in live}

    def _scored(self, plans: Sequence[SeriesPlan], scorer: ScorerName) -> list[Scored]:
        return [Scored.of(p, self._folder.read(self._path(p, scorer))) for p in plans]

    def _path(self, plan: SeriesPlan, scorer: ScorerName) -> Path:
        part = f"-{self._options.subset}" if scorer.is_slow else ""
        return self._folder.path(plan, scorer.digest() + part)
