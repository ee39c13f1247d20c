"""What can be done to mend a data set tree: moves, attributes, images made again from the peaks.

One rule: nothing is deleted and no image is overwritten but a label that its peaks contradict; an
action that would need more than that is not offered. Actions come in stages: files are put in
their place first, then attributes, then images that rest on both.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import PULSE_PHOTONS
from hitfinder.sim.shots import draw_counts
from hitfinder.workers.dataset import (
    DatasetError,
    ImageAttributes,
    read_detector,
    read_image,
)
from hitfinder.workers.dataset_images import REPORT_NAMES, label_of, set_attributes, write_image
from hitfinder.workers.dataset_names import Folder, FrameName


class Action(Protocol):
    """Something that mends one fault."""

    @property
    def stage(self) -> int:
        """0 moves, 1 attributes, 2 images: a stage begins when the one before it is done."""
        ...

    def __str__(self) -> str:
        """Say what it does, in a few words."""
        ...

    def do(self, images: Path) -> None:
        """Do it to the tree whose four folders are in `images`."""
        ...


@dataclass(frozen=True, slots=True)
class Move:
    """Put a file where its name and attributes say; the place is free."""

    source: Path
    target: Path
    stage: int = 0

    def __str__(self) -> str:
        return f"move to {self.target}"

    def do(self, images: Path) -> None:
        """Rename the file.

        Raises:
            DatasetError: the place was taken meanwhile.
        """
        target = images / self.target
        if target.exists():
            raise DatasetError(f"{images / self.source}: {target} is taken; nothing was moved")
        target.parent.mkdir(parents=True, exist_ok=True)
        (images / self.source).rename(target)


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Give a file attributes; those that are None stay as they are."""

    path: Path
    said: ImageAttributes
    stage: int = 1

    def __str__(self) -> str:
        stated = ((f.name, getattr(self.said, f.name)) for f in fields(self.said))
        values = ", ".join(f"{REPORT_NAMES[n]} = {v}" for n, v in stated if v is not None)
        return f"set {values}"

    def do(self, images: Path) -> None:
        """Write the attributes into the file as it is."""
        with h5py.File(images / self.path, "r+") as file:
            set_attributes(file, self.said)


@dataclass(frozen=True, slots=True)
class MakeLabel:
    """Threshold the noise-free peaks of a frame anew."""

    name: FrameName
    label_photons: float
    stage: int = 2

    def __str__(self) -> str:
        return f"make it from the peaks, {self.label_photons:g} photons or more"

    def do(self, images: Path) -> None:
        """Write the label."""
        peaks, said = read_image(images / self.name.place(Folder.PEAKS))
        stated = replace(
            said,
            has_peak=self.name.has_peak(Folder.LABELS),
            label_photons=self.label_photons,
        )
        label = label_of(peaks, self.label_photons)
        detector = read_detector(images / self.name.place(Folder.PEAKS))
        write_image(images / self.name.place(Folder.LABELS), label, stated, detector)


@dataclass(frozen=True, slots=True)
class MakeOverlay:
    """Draw an overlay anew: the frame's water plus Poisson counts of its peaks.

    Attributes:
        with_water: there is no water either: it is drawn first.
    """

    name: FrameName
    with_water: bool = False
    stage: int = 2

    def __str__(self) -> str:
        if self.with_water:
            return "draw water, and the overlay from it and the peaks"
        return "draw it from the water and the peaks"

    def do(self, images: Path) -> None:
        """Write the overlay, and the water where it is drawn too.

        Raises:
            DatasetError: the water is no image of counts of the peaks' shape.
        """
        peaks, said = read_image(images / self.name.place(Folder.PEAKS))
        detector = read_detector(images / self.name.place(Folder.PEAKS))
        n_photons = said.n_photons or PULSE_PHOTONS
        rng = np.random.default_rng(_seed(self.name))
        water_place = images / self.name.place(Folder.WATER)
        if self.with_water:
            settings = FrameSettings((self.name.dataset,), hit_fraction=0.0, n_photons=n_photons)
            water = FrameSource(settings, _seed(self.name), detector).draw(0).image
            if not self.name.is_blank:
                stated = replace(said, has_peak=False)
                write_image(water_place, water, stated, detector)
        else:
            water = read_image(water_place)[0]
        if water.shape != peaks.shape or water.dtype.kind != "u":
            raise DatasetError(
                f"{water_place}: {water.dtype} {water.shape}; expected counts of {peaks.shape}"
            )
        lit = np.flatnonzero(peaks)
        counts = draw_counts(peaks.reshape(-1)[lit].astype(np.float32), rng)
        highest = np.iinfo(water.dtype).max
        before = water.reshape(-1)[lit].astype(np.int64)
        with_peaks = np.minimum(before + counts, highest - 1)
        water.reshape(-1)[lit] = np.where(before == highest, highest, with_peaks)
        stated = replace(said, has_peak=self.name.has_peak(Folder.OVERLAYS))
        write_image(images / self.name.place(Folder.OVERLAYS), water, stated, detector)


def _seed(name: FrameName) -> int:
    """Return a seed of its own for each frame, so that no two are drawn alike."""
    return zlib.crc32(name.file_name(Folder.OVERLAYS).encode())
