"""What is wrong with one file of a data set tree by its place, its name and its attributes.

One rule: a file is taken for what two of three witnesses say: its folder, its name, its
attributes. With one against one it stays where it is and is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hitfinder.sim.physics import data_sets
from hitfinder.workers.dataset import DatasetError, ImageAttributes, read_attributes
from hitfinder.workers.dataset_mending import Action, Move, SetAttributes
from hitfinder.workers.dataset_names import (
    Folder,
    FrameName,
    last_number,
    mean_water_place,
    parse_name,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a tree.

    Attributes:
        path: the file, or where it should be, under `images`.
        text: what is wrong: got, expected.
        mend: what mends it, None where a person has to decide.
        is_note: worth knowing, but the tree is what the report describes.
    """

    path: Path
    text: str
    mend: Action | None = None
    is_note: bool = False


def file_faults(images: Path, path: Path) -> Iterator[Fault]:
    """Yield what is wrong with a file's place, name and attributes."""
    try:
        said = read_attributes(images / path)
    except DatasetError:
        yield Fault(path, "cannot be read; delete it, then --repair makes what peaks allow")
        return
    target, why = _true_place(images, path, said)
    if target is None:
        yield Fault(path, why)
    elif target != path and (images / target).exists():
        yield Fault(path, f"{why}, but that is there already; keep one of the two")
    elif target != path:
        yield Fault(path, why, Move(path, target))
    else:
        yield from _attribute_faults(path, said)


def _true_place(images: Path, path: Path, said: ImageAttributes) -> tuple[Path | None, str]:
    """Return where a file belongs, None if that is open, and why it is not where it is."""
    folder, dataset = _place_of(path)
    name = parse_name(path.name)
    witnesses = {
        "its folder": dataset,
        "its name": name.dataset if name else None,
        "its attributes": _dataset_of(said),
    }
    votes = Counter(vote for vote in witnesses.values() if vote)
    stated = ", ".join(f"{who} says {vote}" for who, vote in witnesses.items() if vote)
    if not votes:
        return None, "not a file of the report, and nothing says which data set it is of"
    chosen, n_votes = votes.most_common(1)[0]
    if n_votes == 1 and len(votes) > 1:
        return None, f"{stated}: cannot tell which is right"
    if name and name.frame is None:
        return mean_water_place(chosen), f"{stated}: belongs to data set {chosen}"
    number = name.frame.number if name and name.frame else last_number(path.name)
    if number is None or number < 1:
        return None, "its name has no number; expected one of the report's names"
    is_blank = name.frame.is_blank if name and name.frame else "empty" in path.name
    frame = FrameName(chosen, is_blank, number)
    true_folder = _true_folder(images, path, folder, name.folder if name else None, frame)
    if true_folder is None:
        return None, "neither its folder nor its name says whether it is peaks, label or water"
    target = frame.place(true_folder)
    if target.parent != path.parent:
        return target, f"{stated}: belongs in {target.parent}"
    return target, f"misnamed; expected {target.name}"


def _true_folder(
    images: Path, path: Path, folder: Folder | None, named: Folder | None, frame: FrameName
) -> Folder | None:
    """Return the folder a file is of: by its name's prefix, else by where it lies.

    A name without a prefix is a pattern's, unless that pattern is there already: then the file
    has lost its prefix.
    """
    if named is None:
        return folder
    if named is Folder.PEAKS and folder not in (None, Folder.PEAKS):
        return folder if (images / frame.place(Folder.PEAKS)).exists() else named
    return named


def _place_of(path: Path) -> tuple[Folder | None, str | None]:
    """Return which folder and data set a file lies in, None where that is neither."""
    parents = path.parts[:-1]
    folder = next((f for f in Folder if f in parents), None)
    dataset = next((d for d in data_sets() if d in parents), None)
    return folder, dataset


def _dataset_of(said: ImageAttributes) -> str | None:
    """Return the data set whose camera length and energy the attributes name."""
    if said.clen_m is None or said.photon_energy_eV is None:
        return None
    for name, setting in data_sets().items():
        if np.isclose(said.clen_m, setting.clen_m, rtol=1e-4) and np.isclose(
            said.photon_energy_eV, setting.photon_energy_eV, rtol=1e-4
        ):
            return name
    return None


def _attribute_faults(path: Path, said: ImageAttributes) -> Iterator[Fault]:
    """Yield what a file in its place says wrongly of itself."""
    folder, dataset = Folder(path.parts[0]), path.parts[1]
    setting, name = data_sets()[dataset], parse_name(path.name)
    has_peak = name.frame.has_peak(folder) if name and name.frame else False
    wrong = []
    clen_m = photon_energy_eV = peak = None
    if said.clen_m is None or not np.isclose(said.clen_m, setting.clen_m, rtol=1e-4):
        clen_m = setting.clen_m
        wrong.append(f"clen is {said.clen_m}, expected {clen_m} m")
    if said.photon_energy_eV is None or not np.isclose(
        said.photon_energy_eV, setting.photon_energy_eV, rtol=1e-4
    ):
        photon_energy_eV = setting.photon_energy_eV
        wrong.append(f"photon_energy is {said.photon_energy_eV}, expected {photon_energy_eV} eV")
    if said.has_peak is not has_peak:
        peak = has_peak
        wrong.append(f"peak is {said.has_peak}, expected {has_peak}")
    if wrong:
        right = ImageAttributes(clen_m=clen_m, photon_energy_eV=photon_energy_eV, has_peak=peak)
        yield Fault(path, "; ".join(wrong), SetAttributes(path, right))
