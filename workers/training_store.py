"""Drawn frames on disk: places and truth in chunks, so that a training can go on.

One rule: a chunk is whole or absent and belongs to one recipe; drawing again skips what is there,
and neither order nor number of processes changes a frame. 2 kB a frame.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields
from pathlib import Path

import safetensors
import safetensors.numpy
import torch

from hitfinder import __version__
from hitfinder.models.errors import ModelError
from hitfinder.models.labelled_frames import LabelledFrames, joined
from hitfinder.models.places import FEATURES
from hitfinder.sim.pattern_files import read_patterns
from hitfinder.sim.physics import Detector
from hitfinder.workers.training_frames import Part, TrainingFrames
from hitfinder.workers.training_settings import HOT_SERIES, Kind

CHUNK = 50
"""Pairs or blanks a task: a few seconds."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides a frame besides its part, kind and number.

    Attributes:
        seed: of everything drawn.
        patterns: file or tree whose patterns are shown; None for the generator's.
        detector: the array.
        n_made_up: crystals besides proteinase K.
    """

    seed: int
    patterns: Path | None
    detector: Detector
    n_made_up: int

    def digest(self) -> str:
        """Return what the chunks of this recipe are marked with."""
        told = [self.seed, self.patterns, self.detector, self.n_made_up, FEATURES, __version__]
        return hashlib.sha256(repr(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive frames of one part, or of one kind of blanks."""

    part: Part
    kind: Kind | None
    first: int
    n: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.kind or self.part.name.lower()}_{self.first:07d}_{self.n}.safetensors"


def chunks_of(part: Part, kind: Kind | None, n: int) -> list[Chunk]:
    """Return the chunks of `n` pairs or blanks; one of hot pixels is a series."""
    length = HOT_SERIES if kind is Kind.HOT else CHUNK
    return [Chunk(part, kind, k, min(length, n - k)) for k in range(0, n, length)]


def draw_missing(
    folder: Path,
    recipe: Recipe,
    chunks: list[Chunk],
    processes: int,
    on_chunk: Callable[[], None],
) -> None:
    """Draw the chunks that the folder lacks.

    Args:
        folder: where they are kept; made if it is not there.
        recipe: of all frames.
        chunks: what is wanted.
        processes: that draw.
        on_chunk: called for each chunk once it is there.

    Raises:
        ModelError: the folder holds frames of another recipe.
        SimulationError: the recipe's patterns cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, recipe)
    missing = [chunk for chunk in chunks if not (folder / chunk.name).is_file()]
    for _ in range(len(chunks) - len(missing)):
        on_chunk()
    if not missing:
        return
    spawn = multiprocessing.get_context("spawn")
    if processes == 1:  # no process to wait for
        _start(recipe)
        for chunk in missing:
            _draw(folder, chunk)
            on_chunk()
        return
    with ProcessPoolExecutor(min(processes, len(missing)), spawn, _start, (recipe,)) as pool:
        tasks = [pool.submit(_draw, folder, chunk) for chunk in missing]
        for task in as_completed(tasks):
            task.result()
            on_chunk()


def read_chunks(folder: Path, chunks: list[Chunk]) -> LabelledFrames:
    """Return the frames of chunks that are there, in order.

    Raises:
        ModelError: one is missing or damaged.
    """
    parts = []
    for chunk in chunks:
        try:
            arrays = safetensors.numpy.load_file(folder / chunk.name)
            parts.append(LabelledFrames(**arrays))
        except (OSError, TypeError, safetensors.SafetensorError) as error:
            raise ModelError(
                f"drawn frames {folder / chunk.name}: {error}; remove it to draw it again"
            ) from error
    return joined(parts)


def forget(folder: Path) -> None:
    """Remove a folder's chunks and the mark of their recipe."""
    for kept in folder.glob("*.safetensors"):
        kept.unlink()
    (folder / "recipe.json").unlink(missing_ok=True)


def _claim(folder: Path, recipe: Recipe) -> None:
    mark = folder / "recipe.json"
    if not mark.is_file():
        mark.write_text(json.dumps({"recipe": recipe.digest()}) + "\n")
    elif json.loads(mark.read_text()).get("recipe") != recipe.digest():
        raise ModelError(
            f"{folder} holds frames of another seed, source or version; train without --resume "
            "to draw anew"
        )


class _Drawing:
    """What a drawing process keeps from task to task."""

    frames: TrainingFrames


def _start(recipe: Recipe) -> None:
    torch.set_num_threads(1)
    sets = None if recipe.patterns is None else read_patterns(recipe.patterns)
    _Drawing.frames = TrainingFrames(recipe.seed, sets, recipe.detector, recipe.n_made_up)


def _draw(folder: Path, chunk: Chunk) -> None:
    frames = _Drawing.frames
    if chunk.kind is Kind.HOT:
        drawn = frames.hot_series(chunk.first, chunk.n)
    else:
        numbers = range(chunk.first, chunk.first + chunk.n)
        drawn = joined(
            [
                frames.pair(chunk.part, n) if chunk.kind is None else frames.blank(chunk.kind, n)
                for n in numbers
            ]
        )
    arrays = {f.name: getattr(drawn, f.name) for f in fields(drawn)}
    fresh = folder / f"{chunk.name}.new"
    fresh.write_bytes(safetensors.numpy.save(arrays))
    os.replace(fresh, folder / chunk.name)
