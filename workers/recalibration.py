"""`train --calibrate`: threshold tables anew, from an operator's own blanks.

One rule: only what a false-positive rate means changes; network and probabilities stay as they
were trained. Blanks are judged as live frames are, in order, one context a series, so the tables
hold for what the series model lets through at this beamline.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from hitfinder import __version__
from hitfinder.models import weights
from hitfinder.models.calibration import GateMode
from hitfinder.models.errors import ModelError
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.series_context import SeriesContext
from hitfinder.models.weights import Weights
from hitfinder.stream.bslz4 import decode
from hitfinder.stream.errors import WireError
from hitfinder.stream.messages import Frame, SeriesEnd, SeriesStart
from hitfinder.stream.recordings import Recording, open_recordings
from hitfinder.workers.config import GeometryConfig
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.reduction import pool

LIKELY_HITS = 0.01
"""A larger share of blanks above the old threshold is more than chance and drift: hits."""
MISSES = "misses_*.h5"
"""Files of a run's sampled misses."""


@dataclass(frozen=True, slots=True)
class RecalibrateOptions:
    """What to calibrate from what.

    Attributes:
        out: weights file to write.
        blanks: recordings without hits; of a run's folder its misses are taken.
        weights: to calibrate; None for the shipped ones.
        device: that judges.
        max_false_positive_rate: that the new tables must be able to tell.
    """

    out: Path
    blanks: tuple[Path, ...]
    weights: Path | None = None
    device: str = "cpu"
    max_false_positive_rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """What came of it.

    Attributes:
        path: weights written.
        n_blanks: frames in the tables.
        warnings: what the operator should know, one sentence each.
    """

    path: Path
    n_blanks: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """One file of blanks.

    Attributes:
        recording: its frames.
        cut: (any, spots3) probability above which a run kept its frames as hits instead; 1 where
            nothing was cut off.
    """

    recording: Recording
    cut: tuple[float, float] = (1.0, 1.0)


@dataclass(slots=True)
class _Scored:
    """What judging the blanks gathers."""

    p_B2: list[tuple[float, float]] = field(default_factory=list)
    n_unreadable: int = 0
    n_known_hits: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


def recalibrate(options: RecalibrateOptions) -> Recalibrated:
    """Judge the blanks, make new tables, write weights and card.

    Raises:
        ModelError: unusable weights, or too few blanks for the rate; the text says how many.
        StoreError: a recording is missing or cannot be read.
        WireError: a file holds no frames of a detector.
    """
    rate = options.max_false_positive_rate
    old = weights.load(options.weights)
    pipeline = Pipeline(old, options.device, threshold=_threshold(old, GateMode.ANY, rate))
    sources = [source for path in options.blanks for source in sources_of(path)]
    scored = _Scored()
    with Progress() as progress:
        known = [s.recording.n_frames for s in sources]
        total = None if None in known else sum(n or 0 for n in known)
        bar = progress.add_task("judging blanks", total=total)
        counts = [
            _judge_all(s.recording, pipeline, scored, lambda: progress.advance(bar))
            for s in sources
        ]
    n = len(scored.p_B2)
    n_needed = math.ceil(1 / rate) - 1
    if n < n_needed:
        raise ModelError(
            f"{n} blanks; a false-positive rate of {rate:g} needs at least {n_needed}, better ten "
            "times as many: record more, or ask for a higher rate"
        )
    p_B2 = np.array(scored.p_B2)
    warnings = [*_warnings(p_B2, old, rate, scored), *_cut_warnings(sources)]
    tables = tuple(
        _table(p_B2[:, k], [(s.cut[k], c) for s, c in zip(sources, counts, strict=True)], rate)
        for k in range(len(GateMode))
    )
    calibration = replace(old.calibration, blank_scores=(tables[0], tables[1]))
    used = [(s.recording.path.name, c) for s, c in zip(sources, counts, strict=True)]
    card = _card(options, old, used, scored, warnings)
    path = weights.save(options.out, old.net, calibration, old.water, card)
    return Recalibrated(path, n, tuple(warnings))


def sources_of(path: Path) -> list[Source]:
    """Return the recordings of a path; of a run's folder its files of misses.

    Raises:
        StoreError: it is missing or cannot be read.
        WireError: it holds no frames of a detector.
    """
    misses = sorted(path.rglob(MISSES)) if path.is_dir() else []
    if path.is_file() and path.match(MISSES):
        misses = [path]
    if misses:
        return [Source(open_recordings([file])[0], _cut(file)) for file in misses]
    return [Source(recording) for recording in open_recordings([path])]


def _cut(misses: Path) -> tuple[float, float]:
    """Return above which probabilities a file of misses holds no frames."""
    with h5py.File(misses, "r") as file:
        group = file["entry/hitfinder"]
        p_hit, threshold = group["p_hit"][()], group["threshold"][()]
        if not len(p_hit):
            return 1.0, 1.0
        decided = [bool(np.array_equal(p_hit, group[name][()])) for name in ("p_any", "p_spots3")]
    cut_any, cut_spots3 = (float(threshold.min()) if d else 1.0 for d in decided)
    return cut_any, cut_spots3


def _judge_all(
    recording: Recording, pipeline: Pipeline, scored: _Scored, on_frame: Callable[[], None]
) -> int:
    """Judge one recording's frames in order; returns how many counted."""
    n_before = len(scored.p_B2)
    contexts: dict[tuple[int, ...], SeriesContext] = {}
    for start, frame in _frames(recording, scored):
        on_frame()
        if recording.truth.get((frame.header.series, frame.header.frame), False):
            scored.n_known_hits += 1
            continue
        try:
            image = decode(frame.blobs[0])
        except WireError:
            scored.n_unreadable += 1
            continue
        key = (frame.header.series, *image.shape)
        if key not in contexts:
            geometry = OperatorGeometry(GeometryConfig()).of_series(start, image)
            contexts = {key: pipeline.begin(geometry.geometry, geometry.valid)}
        maps = pool(image, contexts[key].valid)
        judged = pipeline.judge([image], contexts[key], [maps])[0]
        scored.p_B2.append((judged.p_any, judged.p_spots3))
        scored.digest.update(frame.blobs[0].payload)
    return len(scored.p_B2) - n_before


def _frames(recording: Recording, scored: _Scored) -> Iterator[tuple[SeriesStart, Frame]]:
    """Yield each frame with its series' header, an empty one where none came."""
    start: SeriesStart | None = None
    for message in recording.messages():
        match message:
            case SeriesStart():
                start = message
            case Frame(header=header, blobs=(_, *_)):
                if start is None or start.series != header.series:
                    start = SeriesStart(header.series)
                yield start, message
            case SeriesEnd():
                start = None
            case _:
                scored.n_unreadable += 1


def _logit(p: NDArray[np.float64]) -> NDArray[np.float64]:
    edge = np.finfo(np.float64).eps
    inside = np.clip(p, edge, 1 - edge)
    return np.log(inside) - np.log1p(-inside)


def _table(
    p: NDArray[np.float64], cuts: Sequence[tuple[float, int]], rate: float
) -> NDArray[np.float32]:
    """Return rising scores. Where a run kept what was above its threshold as hits, misses say
    nothing of that tail: frames at the threshold itself stand in, so that rates up to the asked
    one get no lower a threshold than the run had.
    """
    absent = [np.full(math.ceil(rate * n) + 1, cut) for cut, n in cuts if cut < 1 and n]
    return np.asarray(np.sort(_logit(np.concatenate((p, *absent)))), np.float32)


def _threshold(old: Weights, mode: GateMode, rate: float) -> float:
    """Return the old threshold of a rate, or of the smallest that its table can tell."""
    table = old.calibration.blank_scores[list(GateMode).index(mode)]
    return old.calibration.threshold(mode, min(1.0, max(rate, 1.5 / (len(table) + 1))))


def _warnings(p_B2: NDArray[np.float64], old: Weights, rate: float, scored: _Scored) -> list[str]:
    told = []
    if scored.n_unreadable:
        told.append(f"{scored.n_unreadable} frames could not be read and are left out")
    if scored.n_known_hits:
        told.append(f"{scored.n_known_hits} frames are hits by their own files and are left out")
    for k, mode in enumerate(GateMode):
        share = float(np.mean(p_B2[:, k] > _threshold(old, mode, rate)))
        if share > LIKELY_HITS:
            told.append(
                f"{100 * share:.1f} % of the blanks are above the old {mode} threshold: if these "
                "are hits, the new one will miss such hits"
            )
    return told


def _cut_warnings(sources: Sequence[Source]) -> list[str]:
    n_cut = sum(min(s.cut) < 1 for s in sources)
    if not n_cut:
        return []
    return [
        f"{n_cut} files hold a run's misses only: thresholds of rates up to the asked one stay "
        "at the run's or above; to lower them, run blanks with gate.threshold = 1 and "
        "sink.miss_sample_fraction = 1"
    ]


def _card(
    options: RecalibrateOptions,
    old: Weights,
    used: Sequence[tuple[str, int]],
    scored: _Scored,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return the old card with what was done to its thresholds."""
    kept = {k: v for k, v in old.card.items() if k not in ("format", "sha256")}
    return kept | {
        "name": options.out.stem,
        "recalibrated": {
            "made_by": "hitfinder-stream train --calibrate",
            "version": __version__,
            "from_model": old.model_id,
            "blanks": len(scored.p_B2),
            "sources": [{"name": name, "frames": n} for name, n in used],
            "payload_sha256": scored.digest.hexdigest(),
            "max_false_positive_rate": options.max_false_positive_rate,
            "replaces": "the threshold tables of `calibration`; its probabilities are kept",
            "warnings": list(warnings),
        },
    }
