"""Frames of a data set tree as they lie there, judged as they would be live.

One rule: nothing is drawn anew: overlays of crystals are hits, those without and the water behind
every crystal are blanks. One series a data set, in the tree's order, each crystal after its water.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hitfinder.models.metrics import Rate, wilson
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.series_context import SeriesContext
from hitfinder.sim.pattern_files import tree_peaks
from hitfinder.workers.dataset import DatasetTree, TreeFrame
from hitfinder.workers.evaluate_frames import stated_geometry
from hitfinder.workers.evaluate_gate import ALL, OUTPUTS
from hitfinder.workers.reduction import pool


@dataclass(frozen=True, slots=True)
class TreeRate:
    """Frames of one data set of a tree that passed the shipped threshold."""

    output: str
    dataset: str
    hits: Rate
    blanks: Rate


def trees(data: Sequence[Path]) -> list[Path]:
    """Return those of the paths that are data set trees."""
    return [path for path in data if tree_peaks(path) is not None]


def judge_tree(
    top: Path, weights: Path | None, shipped: Mapping[str, float], console: Console
) -> list[TreeRate]:
    """Judge every frame of a tree; returns rates by data set and of all.

    Raises:
        DatasetError: a frame of it cannot be read.
    """
    tree, pipeline = DatasetTree(top), Pipeline(weights)
    contexts: dict[str, SeriesContext] = {}
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    for name in track(tree.frames, f"tree {top.name}", console=console):
        frame = tree.read(name)
        if name.dataset not in contexts:
            valid = ~frame.detector.gap_mask
            contexts[name.dataset] = pipeline.begin(stated_geometry(frame.detector), valid)
        context = contexts[name.dataset]
        for image, is_hit in _shown(frame):
            judged = pipeline.judge([image], context, [pool(image, context.valid)])[0]
            for dataset in (name.dataset, ALL):
                scores = found.setdefault((dataset, is_hit), [])
                scores.append((judged.p_any, judged.p_spots3))
    return [
        TreeRate(
            output,
            dataset,
            _rate(found.get((dataset, True), []), k, shipped[output]),
            _rate(found.get((dataset, False), []), k, shipped[output]),
        )
        for dataset in (*tree.datasets, ALL)
        for k, output in enumerate(OUTPUTS)
    ]


def _shown(frame: TreeFrame) -> Iterator[tuple[NDArray[np.unsignedinteger], bool]]:
    """Yield the frame's images and whether they show a crystal; means are no frames."""
    if not frame.name.is_blank and frame.water.dtype.kind == "u":
        yield frame.water, False
    yield frame.overlay, not frame.name.is_blank


def _rate(scores: Sequence[tuple[float, float]], output: int, threshold: float) -> Rate:
    return wilson(sum(s[output] > threshold for s in scores), len(scores))
