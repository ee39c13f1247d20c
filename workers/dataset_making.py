"""Making a data set tree: peaks, labels, water and overlays of simulated frames, in pairs.

One rule: an overlay is its water file plus Poisson counts of its peaks file, pixel by pixel, and
water is drawn anew for each frame, never one image for all (physics.md: heads and gates learn a
fixed background by heart). A frame is a function of (options, data set, number) alone, so a tree
that was cut short goes on where it stopped, and a longer one begins with the shorter one's frames.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.frames import Exposure, FrameSettings, FrameSource, Nuisances
from hitfinder.sim.pattern_files import read_patterns
from hitfinder.sim.patterns import Pattern, shipped_patterns
from hitfinder.sim.physics import PULSE_PHOTONS, Detector, SimulationError, data_sets
from hitfinder.sim.reflections import read_crystal
from hitfinder.workers.dataset import DatasetError, ImageAttributes, read_attributes
from hitfinder.workers.dataset_images import label_of, write_image
from hitfinder.workers.dataset_names import Folder, FrameName

SHIPPED, GENERATOR = "shipped", "generator"
LABEL_PHOTONS = 1.0  # the report's program labels from one photon on
# What differs from shot to shot with `vary`: spreads as the gate is trained with.
VARIED_THICKNESS = 0.15
VARIED_CENTER_PX = 3.0
VARIED = Nuisances(streak_photons=(0.0, 3000.0), rings=0.3)
# Frames of a tree have disjoint numbers in the simulator: sets, then blanks, then their numbers.
_SET_STRIDE = 1_000_000
_BLANK_OFFSET = 500_000
_MOST_FRAMES = 99_999  # names have five digits
_PAIR_CHUNK = 4  # frames a task: 0.5 s of work


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """What a tree is made of.

    Attributes:
        datasets: "01" to "09", some of them.
        crystal_um: edge of the crystals; shipped patterns and those of files are 10 um.
        n_photons: photons a pulse.
        patterns: "shipped" (8 orientations a data set, in turn), "generator" (another one each
            frame) or the path of patterns, in turn (`sim/pattern_files.py`).
        divergence_mrad: FWHM of the beam's divergence, which widens spots.
        label_photons: a pixel of at least so many expected photons is labelled.
        vary: thickness, beam centre, jet streak and rings differ from frame to frame.
        seed: the same seed gives the same tree.
        shape: (ss, fs) of a smaller detector for quick trials; None for the EIGER2 4M.
    """

    datasets: tuple[str, ...] = tuple(data_sets())
    crystal_um: float = 10.0
    n_photons: float = PULSE_PHOTONS
    patterns: str = GENERATOR
    divergence_mrad: float = 0.0
    label_photons: float = LABEL_PHOTONS
    vary: bool = False
    seed: int = 0
    shape: tuple[int, int] | None = None

    def as_text(self) -> str:
        """Return what every file of the tree is stamped with; not which sets it has."""
        return json.dumps({k: v for k, v in asdict(self).items() if k != "datasets"})


def make_tree(
    out: Path,
    options: TreeOptions,
    per_set: int,
    blanks_per_set: int = 0,
    processes: int = 1,
    on_frame: Callable[[FrameName], None] = lambda _: None,
) -> int:
    """Write the frames that `out` does not have yet and return how many that were.

    Args:
        per_set: patterns in each data set.
        blanks_per_set: blanks beside them, for who reads the overlays alone.
        processes: that draw and write; the tree does not depend on it.
        on_frame: told of each frame, written now or there before.

    Raises:
        DatasetError: `out` holds a tree made with other options, or too many frames are wanted.
        SimulationError: options that contradict each other, or patterns that cannot be read.
    """
    if max(per_set, blanks_per_set) > _MOST_FRAMES:
        raise DatasetError(f"{per_set} frames a data set; names have room for {_MOST_FRAMES}")
    names = [
        FrameName(dataset, is_blank, number)
        for dataset in options.datasets
        for is_blank, n in ((False, per_set), (True, blanks_per_set))
        for number in range(1, n + 1)
    ]
    maker = _maker(options)  # refuses what cannot be made before anything is written
    images = out / "images"
    missing = [name for name in names if not _is_made(images, name, options)]
    there = set(names) - set(missing)
    for name in sorted(there):
        on_frame(name)
    if processes == 1:
        for name in missing:
            maker.write(images, name)
            on_frame(name)
        return len(missing)
    tasks = [missing[k : k + _PAIR_CHUNK] for k in range(0, len(missing), _PAIR_CHUNK)]
    for chunk in _written(images, options, tasks, processes):
        for name in chunk:
            on_frame(name)
    return len(missing)


def _written(
    images: Path, options: TreeOptions, tasks: Sequence[Sequence[FrameName]], processes: int
) -> Iterator[Sequence[FrameName]]:
    """Write the tasks in several processes and yield each as it is done."""
    spawn = multiprocessing.get_context("spawn")
    n = len(tasks)
    with ProcessPoolExecutor(processes, spawn) as pool:
        yield from pool.map(_write_chunk, [images] * n, [options] * n, tasks)


def _write_chunk(
    images: Path, options: TreeOptions, names: Sequence[FrameName]
) -> Sequence[FrameName]:
    for name in names:
        _maker(options).write(images, name)
    return names


def _is_made(images: Path, name: FrameName, options: TreeOptions) -> bool:
    """Tell whether a frame is there; its overlay is written last.

    Raises:
        DatasetError: it was made with other options.
    """
    overlay = images / name.place(Folder.OVERLAYS)
    if not overlay.exists():
        return False
    before = read_attributes(overlay).made_with
    if before != options.as_text():
        raise DatasetError(
            f"{overlay} was made with {before or 'another program'}; expected "
            f"{options.as_text()}: name another folder"
        )
    return True


class FrameMaker:
    """Draws frames of a tree by name.

    Args:
        options: see there.

    Raises:
        SimulationError: options that contradict each other, or patterns that cannot be read.
    """

    def __init__(self, options: TreeOptions) -> None:
        self.options = options
        self.detector = Detector() if options.shape is None else Detector(shape=options.shape)
        self._pattern_sets = _pattern_sets(options)
        self._crystals = (read_crystal(),)
        self._sources: dict[tuple[str, int | None, bool], FrameSource] = {}
        for dataset in options.datasets:
            if self._pattern_sets is not None and not self._pattern_sets.get(dataset):
                raise SimulationError(
                    f"patterns {options.patterns}: none for data set {dataset}; it has "
                    f"{', '.join(self._pattern_sets)}"
                )
            self._source(dataset, 0 if self._pattern_sets else None, False)

    def write(self, images: Path, name: FrameName) -> None:
        """Draw a frame and write its files, the overlay last."""
        blank, hit, pattern = self.draw(name)
        overlay = blank if hit is None else hit
        peaks = np.zeros(self.detector.shape, np.float32)
        if hit is not None and hit.bragg is not None:
            peaks = hit.bragg.dense()
        drawn: dict[Folder, NDArray[Any]] = {
            Folder.PEAKS: peaks,
            Folder.LABELS: label_of(peaks, self.options.label_photons),
        }
        if not name.is_blank:
            drawn[Folder.WATER] = blank.image
        drawn[Folder.OVERLAYS] = overlay.image
        said = ImageAttributes(
            clen_m=blank.clen_m,
            photon_energy_eV=blank.photon_energy_eV,
            n_photons=blank.n_photons,
            pattern=pattern,
            label_photons=self.options.label_photons,
            made_with=self.options.as_text(),
        )
        detector = replace(self.detector, beam_center_px=blank.beam_center_px)
        for folder, image in drawn.items():
            stated = replace(said, has_peak=name.has_peak(folder))
            write_image(images / name.place(folder), image, stated, detector)

    def draw(self, name: FrameName) -> tuple[Exposure, Exposure | None, str]:
        """Return a frame without and with its crystal (None for a blank), and its pattern's id."""
        number = int(name.dataset) * _SET_STRIDE + name.number
        if name.is_blank:
            return self._source(name.dataset, None, True).draw(number + _BLANK_OFFSET), None, ""
        if self._pattern_sets is None:
            chosen, pattern = None, f"generator {self.options.seed} {name.dataset} {name.number}"
        else:
            patterns = self._pattern_sets[name.dataset]
            chosen = (name.number - 1) % len(patterns)
            pattern = pattern_id(patterns[chosen])
        water = self._source(name.dataset, None, True).draw(number)
        return water, self._source(name.dataset, chosen, False).draw(number), pattern

    def _source(self, dataset: str, chosen: int | None, is_blank: bool) -> FrameSource:
        """Return the source that shows one pattern, or the generator's, or no crystal at all."""
        key = (dataset, chosen, is_blank)
        if key not in self._sources:
            pattern_sets = None
            if self._pattern_sets is not None and chosen is not None:
                pattern_sets = {dataset: (self._pattern_sets[dataset][chosen],)}
            self._sources[key] = FrameSource(
                self._blank_settings(dataset) if is_blank else self._hit_settings(dataset),
                self.options.seed,
                self.detector,
                crystals=self._crystals,
                pattern_sets=pattern_sets,
            )
        return self._sources[key]

    def _hit_settings(self, dataset: str) -> FrameSettings:
        return replace(
            self._blank_settings(dataset),
            hit_fraction=1.0,
            crystal_um=self.options.crystal_um,
            divergence_mrad=self.options.divergence_mrad,
            patterns="generator" if self.options.patterns == GENERATOR else "shipped",
        )

    def _blank_settings(self, dataset: str) -> FrameSettings:
        settings = FrameSettings((dataset,), hit_fraction=0.0, n_photons=self.options.n_photons)
        if not self.options.vary:
            return settings
        return replace(
            settings,
            thickness_jitter=VARIED_THICKNESS,
            center_jitter_px=VARIED_CENTER_PX,
            nuisances=VARIED,
        )


@lru_cache(maxsize=1)
def _maker(options: TreeOptions) -> FrameMaker:
    """Return this process's maker; one a process, not one a task."""
    return FrameMaker(options)


def _pattern_sets(options: TreeOptions) -> Mapping[str, Sequence[Pattern]] | None:
    """Return the patterns to show in turn; None where each frame has another one."""
    if options.patterns == GENERATOR:
        return None
    if options.patterns == SHIPPED:
        return {dataset: shipped_patterns(dataset) for dataset in options.datasets}
    if not Path(options.patterns).exists():
        raise SimulationError(
            f"patterns {options.patterns!r}: expected {GENERATOR}, {SHIPPED} or a path that exists"
        )
    pattern_sets = read_patterns(Path(options.patterns))
    for pattern in chain.from_iterable(pattern_sets.values()):
        if pattern.shape != Detector().shape:
            # A source puts the middle of the whole array on the beam; another array has another.
            raise SimulationError(
                f"patterns {options.patterns}: of an array of {pattern.shape}; expected "
                f"{Detector().shape}"
            )
    return pattern_sets


def pattern_id(pattern: Pattern) -> str:
    """Return a short name that a pattern has in every tree: a hash of its pixels and photons."""
    digest = hashlib.sha256(pattern.index.tobytes())
    digest.update(pattern.photons.tobytes())
    return digest.hexdigest()[:16]
