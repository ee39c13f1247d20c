"""What an evaluation is asked for: options, and how a command line's words become them.

One rule: a quick look takes fewer of everything, never something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hitfinder.sim.physics import Detector, data_sets
from hitfinder.workers.config import ConfigError
from hitfinder.workers.evaluate_plans import STRENGTHS, Subset

SCORED_PARTS = ("gate", "positions", "comparison", "held-out", "blanks", "calibration")
PARTS = (*SCORED_PARTS, "trees", "heads", "cost", "daemon")
OURS, FORGETFUL = "this gate", "series model off"
RATE = 1e-3
SUBSET_SETS = ("02", "05", "09")
"""One of each camera length."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to evaluate and how thoroughly.

    Attributes:
        out: folder for the report, its pictures and the scores kept.
        weights: file; None for the shipped ones.
        data: pattern files, folders of them or data set trees, shown beside the shipped patterns.
        parts: some of `PARTS`.
        n_blanks: of each kind.
        n_patterns: most that are shown of a data set.
        strengths: of the crystals, rising; the last is the full one.
        repeats: times a pattern is shown at each strength.
        subset: what slow scorers look at.
        n_chance: frames of a data set for the probabilities.
        n_rounds: times each step is timed.
        n_head_frames: that the heads are judged by, over the continuous range.
        n_head_series: of each length and data set, for the heads.
        ablation: label -> weights file.
        references: folder with weights of trained references; None for the untrained alone.
        processes: that draw and score.
        seed: of everything.
        datasets: to show.
        detector_shape: (ss, fs).
    """

    out: Path
    weights: Path | None = None
    data: tuple[Path, ...] = ()
    parts: tuple[str, ...] = PARTS
    n_blanks: int = 10_000
    n_patterns: int = 32
    strengths: tuple[float, ...] = STRENGTHS
    repeats: int = 2
    subset: Subset = Subset(8, SUBSET_SETS)
    n_chance: int = 600
    n_rounds: int = 60
    n_head_frames: int = 400
    n_head_series: int = 10
    ablation: Mapping[str, Path] = field(default_factory=dict)
    references: Path | None = None
    processes: int = 2
    seed: int = 0
    datasets: tuple[str, ...] = tuple(data_sets())
    detector_shape: tuple[int, int] = Detector().shape


QUICK = {
    "n_blanks": 400,
    "n_patterns": 4,
    "repeats": 1,
    "n_chance": 60,
    "n_rounds": 15,
    "n_head_frames": 60,
    "n_head_series": 3,
}
"""Most of each that a quick look takes."""
QUICK_SUBSET = 2


def options_of(
    *,
    parts: str,
    ablation: Sequence[str],
    subset: str,
    is_quick: bool,
    data: Sequence[Path],
    **given: Any,
) -> EvaluateOptions:
    """Return options from a command line's words.

    Raises:
        ConfigError: a part or data set that is none, or an ablation that is not NAME=WEIGHTS.
    """
    rows: dict[str, Path] = {}
    for word in ablation:
        name, found, path = word.partition("=")
        if not (name and found and path) or name in (*rows, OURS, FORGETFUL):
            raise ConfigError(f"--ablation: got {word!r}; expected NAME=WEIGHTS, each name once")
        rows[name] = Path(path)
    chosen = tuple(p.strip() for p in parts.split(",")) if parts else PARTS
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        raise ConfigError(f"--parts: got {unknown[0]!r}; expected some of {', '.join(PARTS)}")
    sets = tuple(d.strip() for d in subset.split(",")) if subset else SUBSET_SETS
    unknown = [name for name in sets if name not in data_sets()]
    if unknown:
        raise ConfigError(f"--subset: got {unknown[0]!r}; expected some of 01 to 09")
    options = EvaluateOptions(parts=chosen, ablation=rows, data=tuple(data), **given)
    options = replace(options, subset=Subset(options.subset.n_patterns, sets))
    if not is_quick:
        return options
    least: dict[str, Any] = {name: min(getattr(options, name), n) for name, n in QUICK.items()}
    few = min(options.subset.n_patterns, QUICK_SUBSET)
    return replace(options, subset=replace(options.subset, n_patterns=few), **least)
