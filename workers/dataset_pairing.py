"""What is wrong with one frame of a data set tree: files it lacks, images that do not fit.

One rule: an overlay is its water with more photons where its peaks are, a label its peaks'
threshold, and a pattern has one name, by which training and test are split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.workers.dataset import (
    DatasetError,
    ImageAttributes,
    read_attributes,
    read_image,
)
from hitfinder.workers.dataset_faults import Fault
from hitfinder.workers.dataset_images import label_of
from hitfinder.workers.dataset_making import LABEL_PHOTONS
from hitfinder.workers.dataset_mending import MakeLabel, MakeOverlay, SetAttributes
from hitfinder.workers.dataset_names import Folder, FrameName, mean_water_place, parse_name


@dataclass(slots=True)
class Seen:
    """What has been met so far in a tree.

    Attributes:
        patterns: hash of a peaks image -> its pattern's name and where it was met first.
        waters: hash of a water image -> where it was met first.
    """

    patterns: dict[str, tuple[str, Path]] = field(default_factory=dict)
    waters: dict[str, Path] = field(default_factory=dict)


def frame_faults(images: Path, name: FrameName, contents: bool, seen: Seen) -> Iterator[Fault]:
    """Yield which files a frame lacks, and what is wrong with the images that it has."""
    has = {folder: (images / name.place(folder)).exists() for folder in Folder}
    has_mean = not name.is_blank and (images / mean_water_place(name.dataset)).exists()
    yield from _missing(images, name, has, has_mean)
    if not contents:
        return
    found: dict[Folder, NDArray[Any]] = {}
    for folder in (f for f in Folder if has[f]):
        try:
            found[folder], said = read_image(images / name.place(folder))
        except DatasetError as reason:
            if not _is_unreadable(images / name.place(folder)):
                yield Fault(name.place(folder), str(reason))
            continue
        if folder is Folder.PEAKS and not name.is_blank:
            yield from _pattern_faults(name, found[folder], said, images, seen)
    if Folder.WATER in found:
        water, place = found[Folder.WATER], name.place(Folder.WATER)
        first = seen.waters.setdefault(_digest(water), place)
        # Means are no counts: that they are all alike is said once for the whole data set.
        if first != place and water.dtype.kind == "u":
            yield Fault(place, f"the same image as {first}; water must be drawn for each frame")
    elif has_mean and Folder.OVERLAYS in found:
        found[Folder.WATER], _ = read_image(images / mean_water_place(name.dataset))
    yield from _image_faults(images, name, found)


def _is_unreadable(path: Path) -> bool:
    """Tell whether a file is named by `file_faults` already."""
    try:
        read_attributes(path)
    except DatasetError:
        return True
    return False


def _missing(
    images: Path, name: FrameName, has: dict[Folder, bool], has_mean: bool
) -> Iterator[Fault]:
    """Yield the files that a frame lacks; without its peaks nothing can be made."""
    if not has[Folder.PEAKS]:
        yield Fault(name.place(Folder.PEAKS), "missing; nothing else tells where peaks were")
        return
    if not has[Folder.LABELS]:
        action = MakeLabel(name, _label_photons(images, name))
        yield Fault(name.place(Folder.LABELS), "missing", action)
    place, water_place = name.place(Folder.OVERLAYS), name.place(Folder.WATER)
    has_water = has[Folder.WATER]
    if not has[Folder.OVERLAYS] and has_mean and not has_water:
        text = "missing, and its data set has one mean water image; make the tree anew"
        yield Fault(place, text)
    elif not has[Folder.OVERLAYS]:
        yield Fault(place, "missing", MakeOverlay(name, with_water=not has_water))
        if not has_water and not name.is_blank:
            yield Fault(water_place, "missing; drawn with its overlay")
    elif not has_water and not has_mean:
        text = "missing; the overlay does not tell which photons were water: delete it too"
        yield Fault(water_place, text)


def _label_photons(images: Path, name: FrameName) -> float:
    """Return the label threshold that a frame's peaks state, or the default."""
    try:
        said = read_attributes(images / name.place(Folder.PEAKS)).label_photons
    except DatasetError:
        said = None
    return said if said is not None else LABEL_PHOTONS


def _image_faults(
    images: Path, name: FrameName, found: dict[Folder, NDArray[Any]]
) -> Iterator[Fault]:
    """Yield where a frame's images contradict each other."""
    shapes = {folder: image.shape for folder, image in found.items()}
    if len(set(shapes.values())) > 1:
        stated = ", ".join(f"{folder} {shape}" for folder, shape in shapes.items())
        yield Fault(name.place(next(iter(shapes))), f"shapes differ: {stated}")
        return
    peaks, label = found.get(Folder.PEAKS), found.get(Folder.LABELS)
    if peaks is not None and not (np.isfinite(peaks).all() and peaks.min(initial=0) >= 0):
        yield Fault(name.place(Folder.PEAKS), "negative or no numbers; expected photons")
        return
    if peaks is not None and name.is_blank and peaks.any():
        yield Fault(name.place(Folder.PEAKS), "a blank's, but it has photons")
    if peaks is not None and label is not None:
        yield from _label_faults(images, name, peaks, label)
    yield from _overlay_faults(name, found)


def _label_faults(
    images: Path, name: FrameName, peaks: NDArray[Any], label: NDArray[Any]
) -> Iterator[Fault]:
    """Yield whether a label is not its peaks' threshold; only our own labels state which."""
    place = name.place(Folder.LABELS)
    threshold = read_attributes(images / place).label_photons
    if threshold is None:
        if (label[peaks <= 0] > 0).any():
            yield Fault(place, "pixels without a photon are labelled", is_note=True)
    elif not np.array_equal(label_of(peaks, threshold), label):
        yield Fault(
            place, f"not its peaks' threshold at {threshold:g} photons", MakeLabel(name, threshold)
        )


def _overlay_faults(name: FrameName, found: dict[Folder, NDArray[Any]]) -> Iterator[Fault]:
    """Yield whether an overlay is not its water with more photons where peaks are."""
    if not {Folder.PEAKS, Folder.WATER, Folder.OVERLAYS} <= found.keys():
        return
    peaks = found[Folder.PEAKS]
    water, overlay = found[Folder.WATER], found[Folder.OVERLAYS]
    differs = water != overlay
    n_less = int((overlay[differs] < water[differs]).sum())
    n_beside = int((peaks[differs] <= 0).sum())
    if n_less or n_beside:
        yield Fault(
            name.place(Folder.OVERLAYS),
            f"not its water plus counts of its peaks: {n_less} pixels hold less than the water, "
            f"{n_beside} more where no peak is; delete it, then --repair draws it",
        )


def _pattern_faults(
    name: FrameName, peaks: NDArray[Any], said: ImageAttributes, images: Path, seen: Seen
) -> Iterator[Fault]:
    """Yield whether a pattern that was met before goes by another name here.

    Training and test are split by that name: under two names a pattern would be in both.
    """
    if not peaks.any():
        return
    place = name.place(Folder.PEAKS)
    mine = said.pattern or ""
    digest = _digest(peaks)
    theirs, first = seen.patterns.setdefault(digest, (mine or digest[:16], place))
    if first == place or mine == theirs:
        return
    text = f"the same pattern as {first} under another name: a split would put it on both sides"
    # Both ends get the name: the first may have none.
    places = [name.place(f) for f in Folder if f is not Folder.WATER]
    first_name = parse_name(first.name)
    if first_name and first_name.frame:
        places += [first_name.frame.place(f) for f in Folder if f is not Folder.WATER]
    for path in places:
        if _pattern_of(images / path) not in (None, theirs):
            yield Fault(path, text, SetAttributes(path, ImageAttributes(pattern=theirs)))


def _digest(image: NDArray[Any]) -> str:
    """Return a hash of an image; most of its pixels are zero and cost nothing."""
    lit = np.flatnonzero(image)
    digest = hashlib.sha256(lit.tobytes())
    digest.update(image.reshape(-1)[lit].tobytes())
    return digest.hexdigest()


def _pattern_of(path: Path) -> str | None:
    """Return a file's pattern, "" if it states none; None where the file is not to be had."""
    try:
        return read_attributes(path).pattern or ""
    except DatasetError:
        return None


def mean_water_notes(images: Path, frames: Sequence[FrameName]) -> Iterator[Fault]:
    """Yield which data sets have one water image for all, as the seed's trees do."""
    n_of = Counter(n.dataset for n in frames if not (images / n.place(Folder.WATER)).exists())
    for dataset, n in n_of.items():
        place = mean_water_place(dataset)
        if (images / place).exists():
            yield Fault(
                place,
                f"one water image under {n} overlays: whoever trains on them learns that image, "
                "not water; make the tree anew",
                is_note=True,
            )
