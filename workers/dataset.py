"""A data set tree as training and evaluation read it: frames with their images, and their split.

One rule: a tree is split by pattern, never by frame, so that no test frame shows a pattern that
training has seen; peaks, label, water and overlay of a frame stay together. Layout and names:
`dataset_names.py`; a tree is made by `hitfinder-stream dataset`, or is the seed report's own.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that images are packed with)
import numpy as np
from numpy.typing import NDArray

from hitfinder import HitfinderError
from hitfinder.sim.pattern_files import IMAGE, tree_peaks
from hitfinder.sim.physics import PULSE_PHOTONS, Detector
from hitfinder.workers.dataset_names import Folder, FrameName, mean_water_place, parse_name


class DatasetError(HitfinderError):
    """A data set tree that cannot be read, made or mended as asked (operator)."""


@dataclass(frozen=True, slots=True)
class ImageAttributes:
    """What the attributes of one file say; None where it does not.

    Attributes:
        clen_m, photon_energy_eV, has_peak: the report's `clen`, `photon_energy` and `peak`.
        n_photons: photons a pulse that the image was made for.
        pattern: which pattern it shows: equal in frames of one pattern; empty for blanks.
        label_photons: expected photons from which on a pixel is labelled.
        made_with: the options of the command that made the tree, as JSON.
    """

    clen_m: float | None = None
    photon_energy_eV: float | None = None
    has_peak: bool | None = None
    n_photons: float | None = None
    pattern: str | None = None
    label_photons: float | None = None
    made_with: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TreeFrame:
    """One frame of a tree, read.

    Attributes:
        name: data set, number, blank or not.
        clen_m, photon_energy_eV, n_photons: what it was made with.
        detector: shape, pixel size and beam centre; gaps as an EIGER2 has them.
        overlay: (ss, fs) counts, as a detector would send them.
        water: (ss, fs) counts, the same frame without its crystal; for a blank the overlay; in a
            tree of the seed the data set's one mean image.
        peaks: float32 (ss, fs), expected Bragg photons.
        labels: bool (ss, fs), pixels of peaks.

    No count: the highest value of an integer type, as an Eiger's gaps have it.
    """

    name: FrameName
    clen_m: float
    photon_energy_eV: float
    n_photons: float
    detector: Detector
    overlay: NDArray[Any]
    water: NDArray[Any]
    peaks: NDArray[np.float32]
    labels: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """Frames to train on and to test on; no pattern is in both."""

    train: tuple[FrameName, ...]
    test: tuple[FrameName, ...]


class DatasetTree:
    """Typed access to a tree.

    Args:
        top: the folder given to `hitfinder-stream dataset`, or its `images`.

    Attributes:
        images: the folder that holds the four.
        frames: every frame that has an overlay, by data set, hits before blanks, by number.

    Raises:
        DatasetError: there is no tree, or it has no overlay.
    """

    def __init__(self, top: Path) -> None:
        self.images = images_folder(top)
        overlays = (self.images / Folder.OVERLAYS).glob("[0-9][0-9]/*.h5")
        said = [s for path in overlays if (s := parse_name(path.name)) and s.frame]
        self.frames = tuple(sorted(s.frame for s in said if s.frame))
        if not self.frames:
            raise DatasetError(
                f"data set tree {top}: no overlay in {self.images / Folder.OVERLAYS}; look at it "
                "with `hitfinder-stream dataset TREE --check`"
            )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets that have frames."""
        return tuple(sorted({frame.dataset for frame in self.frames}))

    def path(self, frame: FrameName, folder: Folder) -> Path:
        """Return a frame's file; its data set's mean water image where it has none of its own."""
        own = self.images / frame.place(folder)
        shared = self.images / mean_water_place(frame.dataset)
        if folder is Folder.WATER and not own.exists() and shared.exists():
            return shared
        return own

    def read(self, frame: FrameName) -> TreeFrame:
        """Return a frame with its four images.

        Raises:
            DatasetError: a file of it is missing, or is no image with the report's attributes.
        """
        overlay, said = read_image(self.path(frame, Folder.OVERLAYS))
        images = [
            read_image(self.path(frame, folder))[0]
            for folder in (Folder.WATER, Folder.PEAKS, Folder.LABELS)
        ]
        if any(image.shape != overlay.shape for image in images):
            raise DatasetError(
                f"{self.path(frame, Folder.OVERLAYS)}: images of {overlay.shape} and "
                f"{', '.join(str(image.shape) for image in images)} make no frame"
            )
        if said.clen_m is None or said.photon_energy_eV is None:
            raise DatasetError(
                f"{self.path(frame, Folder.OVERLAYS)}: no clen or photon_energy; mend the tree "
                "with `hitfinder-stream dataset TREE --repair`"
            )
        return TreeFrame(
            name=frame,
            clen_m=said.clen_m,
            photon_energy_eV=said.photon_energy_eV,
            n_photons=said.n_photons or PULSE_PHOTONS,
            detector=read_detector(self.path(frame, Folder.OVERLAYS)),
            overlay=overlay,
            water=images[0],
            peaks=images[1].astype(np.float32),
            labels=images[2] > 0,
        )

    @cached_property
    def patterns(self) -> dict[FrameName, str]:
        """Which pattern each frame shows; a frame that does not say is a pattern of its own."""
        said = {}
        for frame in self.frames:
            pattern = read_attributes(self.path(frame, Folder.OVERLAYS)).pattern
            said[frame] = pattern or str(frame.place(Folder.OVERLAYS))
        return said

    def split(self, seed: int = 0, test_fraction: float = 0.2) -> Split:
        """Split the frames by pattern, the same way for the same seed.

        Args:
            test_fraction: share of each data set's patterns to test on, rounded; at least one
                of two or more. Blanks are split alike, on their own.

        Raises:
            DatasetError: a test fraction outside 0 to 1.
        """
        if not 0 < test_fraction < 1:
            raise DatasetError(f"test fraction {test_fraction}; expected between 0 and 1")
        groups: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
        home: dict[str, tuple[str, bool]] = {}
        for frame in self.frames:
            pattern = self.patterns[frame]
            # A pattern that several data sets show counts in the first, and goes one way.
            if pattern not in home:
                home[pattern] = (frame.dataset, frame.is_blank)
                groups[home[pattern]].append(pattern)
        held_out = {p for group in groups.values() for p in _chosen(group, seed, test_fraction)}
        is_test = [self.patterns[frame] in held_out for frame in self.frames]
        pairs = list(zip(self.frames, is_test, strict=True))
        return Split(
            train=tuple(frame for frame, test in pairs if not test),
            test=tuple(frame for frame, test in pairs if test),
        )


def _chosen(patterns: Sequence[str], seed: int, fraction: float) -> list[str]:
    """Return a share of the patterns, by the hash of (seed, pattern): no order matters."""
    if len(patterns) < 2:
        return []
    n_test = min(max(round(fraction * len(patterns)), 1), len(patterns) - 1)
    return sorted(patterns, key=lambda p: hashlib.sha256(f"{seed} {p}".encode()).digest())[:n_test]


def images_folder(top: Path) -> Path:
    """Return the folder that holds peaks, labels, water and overlays.

    Raises:
        DatasetError: it is not there.
    """
    peaks = tree_peaks(top)
    if peaks is None:
        raise DatasetError(
            f"data set tree {top}: no images/peaks nor peaks in it; expected the folder that "
            "`hitfinder-stream dataset` wrote"
        )
    return peaks.parent


def read_image(path: Path) -> tuple[NDArray[Any], ImageAttributes]:
    """Return a file's one image (ss, fs) and its attributes.

    Raises:
        DatasetError: the file is missing, unreadable, or holds something else.
    """
    try:
        with h5py.File(path) as file:
            image = np.asarray(file[IMAGE][()])
            said = _attributes(file)
    except (OSError, KeyError, ValueError, TypeError) as reason:
        raise DatasetError(f"{path}: {reason}; expected one image at /{IMAGE}") from reason
    if image.ndim != 2 or image.dtype.kind not in "uif":
        raise DatasetError(
            f"{path}: {image.dtype} {image.shape}; expected one image (ss, fs) of numbers"
        )
    return image, said


def read_attributes(path: Path) -> ImageAttributes:
    """Return a file's attributes without reading its image.

    Raises:
        DatasetError: the file is missing or unreadable.
    """
    try:
        with h5py.File(path) as file:
            return _attributes(file)
    except (OSError, ValueError, TypeError) as reason:
        raise DatasetError(f"{path}: {reason}") from reason


def read_detector(path: Path) -> Detector:
    """Return the array that a file's image was made for; EIGER2's where the file does not say.

    Raises:
        DatasetError: the file is missing, unreadable, or has no image.
    """
    try:
        with h5py.File(path) as file:
            n_ss, n_fs = file[IMAGE].shape
            stated = file.get("entry/instrument/detector", {})
            numbers = {name: float(value[()]) for name, value in stated.items()}
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as reason:
        raise DatasetError(f"{path}: {reason}; expected one image at /{IMAGE}") from reason
    detector = Detector(shape=(n_ss, n_fs))
    fs, ss = detector.center_px
    return Detector(
        shape=detector.shape,
        pixel_size_m=numbers.get("x_pixel_size", detector.pixel_size_m),
        beam_center_px=(numbers.get("beam_center_x", fs), numbers.get("beam_center_y", ss)),
    )


def _attributes(file: h5py.File) -> ImageAttributes:
    """Return what is said; a value that is no number, or no text, is not said."""

    def number(name: str) -> float | None:
        value = np.asarray(file.attrs.get(name, ""))
        is_number = value.size == 1 and value.dtype.kind in "uifb"
        return float(value.reshape(-1)[0]) if is_number else None

    def text(name: str) -> str | None:
        value = file.attrs.get(name)
        return value if isinstance(value, str) else None

    peak = number("peak")
    return ImageAttributes(
        clen_m=number("clen"),
        photon_energy_eV=number("photon_energy"),
        has_peak=None if peak is None else bool(peak),
        n_photons=number("n_photons"),
        pattern=text("pattern"),
        label_photons=number("label_photons"),
        made_with=text("made_with"),
    )
