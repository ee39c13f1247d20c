"""Kept frames judged again: does the stamped model still say what the ledger says?

One rule: nothing but what stands in the series' folder is used: stored images, geometry, mask,
configuration and the list of what was learned, of which each verdict names the part it rests on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (its import registers the filters of stored images)
import msgspec
import numpy as np
from numpy.typing import NDArray

from hitfinder.models.judgement import Judgement
from hitfinder.models.learned import no_entries
from hitfinder.models.pipeline import Pipeline
from hitfinder.models.series_context import SeriesContext
from hitfinder.stream.check import image_files, series_folders
from hitfinder.stream.learned import NO_MASK
from hitfinder.stream.nexus import RunGeometry
from hitfinder.workers.config import Config
from hitfinder.workers.geometry import full_geometry, valid_pixels

# A GPU adds up in another order than a CPU.
MOST_DIFFERENCE = 1e-6
COMPARED = ("p_hit", "p_any", "p_spots3")


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What judging again found.

    Attributes:
        n_frames: kept frames that were judged again.
        problems: a sentence for each that is now judged otherwise, or cannot be.
    """

    n_frames: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Return whether every verdict is as stamped."""
        return not self.problems

    def __str__(self) -> str:
        """Return one line a problem, and a verdict."""
        verdict = "all as stamped" if self.ok else f"{len(self.problems)} otherwise"
        lines = [f"wrong: {p}" for p in self.problems]
        return "\n".join([*lines, f"{self.n_frames} kept frames judged again: {verdict}"])


def rejudge_run(path: Path) -> Rejudged:
    """Judge the kept frames of a series, or of every series of a run, again on a CPU."""
    n_frames, problems = 0, []
    for folder in series_folders(path):
        again = _Series(folder)
        for file in image_files(folder):
            for sentence in again.judge_file(file):
                n_frames += 1
                if sentence:
                    problems.append(f"{folder.name}/{file.name}: {sentence}")
    return Rejudged(n_frames, tuple(problems))


class _Series:
    """One series' folder, and what its frames were judged with."""

    def __init__(self, folder: Path) -> None:
        with h5py.File(folder / "ledger.h5", "r") as file:
            said = dict(file["ledger"].attrs)
            learned = {name: data[:] for name, data in file.get("learned", {}).items()}
            self._later_masks = {name: data[:] for name, data in file.get("masks", {}).items()}
        config = msgspec.json.decode(json.loads(said["provenance"])["config"], type=Config)
        gate = config.gate
        self._pipeline = Pipeline(
            Path(gate.model) if gate.model else None,
            mode=gate.mode,
            max_false_positive_rate=gate.max_false_positive_rate,
            threshold=gate.threshold,
        )
        self._stated = RunGeometry.from_json(said["geometry"])
        self._learned: dict[str, NDArray[np.void]] = learned
        with h5py.File(folder / "master.h5", "r") as file:
            mask = file.get("entry/instrument/detector/pixel_mask")
            self._mask = None if mask is None else mask[:]
        self._context: tuple[tuple[int, int, tuple[int, ...]], SeriesContext] | None = None

    def judge_file(self, path: Path) -> Iterator[str]:
        """Yield for each row what is judged otherwise now; empty if nothing is."""
        with h5py.File(path, "r") as file:
            columns = file["entry/hitfinder"]
            for row in range(len(file["entry/data/data"])):
                stamped = {name: columns[name][row] for name in columns}
                image = file["entry/data/data"][row]
                yield (
                    f"frame {stamped['frame']}: {said}"
                    if (said := self._differs(image, stamped))
                    else ""
                )

    def _differs(self, image: NDArray[np.unsignedinteger], stamped: dict[str, Any]) -> str:
        model = stamped["model"].decode()
        if model != self._pipeline.gate.model_id:
            return f"judged by model {model[:12]}, here is {self._pipeline.gate.model_id[:12]}"
        worker, n_learned = int(stamped["learned_by"]), int(stamped["n_learned"])
        mask = self._later_masks.get(stamped["mask"].decode() or NO_MASK, self._mask)
        self._pipeline.threshold = float(stamped["threshold"])
        (now,) = self._pipeline.judge([image], self._context_of(image, mask, worker, n_learned))
        return _difference(now, stamped)

    def _context_of(
        self,
        image: NDArray[np.unsignedinteger],
        mask: NDArray[np.uint32] | None,
        worker: int,
        n_learned: int,
    ) -> SeriesContext:
        """Return the context of the version that a verdict names; the last is kept."""
        name = (worker, n_learned, image.shape)
        # Judging teaches: what has learned more since is of no use any more.
        if self._context is not None and self._context[0] == name:
            if self._context[1].series.version == n_learned:
                return self._context[1]
        known = self._learned.get(f"worker{worker}", no_entries())[:n_learned]
        geometry = full_geometry(self._stated, (image.shape[0], image.shape[1]))
        context = self._pipeline.begin(geometry, valid_pixels(mask, image), known)
        self._context = name, context
        return context


def _difference(now: Judgement, stamped: dict[str, Any]) -> str:
    outcome = "hit" if now.is_hit else "miss"
    if stamped["outcome"].decode() != outcome:
        return f"was a {stamped['outcome'].decode()}, now a {outcome}"
    for name in COMPARED:
        was, is_now = float(stamped[name]), float(getattr(now, name))
        if abs(was - is_now) > MOST_DIFFERENCE:
            return f"{name} was {was:.6f}, now {is_now:.6f}"
    return ""
