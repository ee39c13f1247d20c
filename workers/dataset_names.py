"""What the files of a data set tree are called and what their attributes say.

One rule: a name says its folder, its data set and its number, so a file that strayed can be told.
After the seed report's program: folders `images/{peaks,labels,water,peaks_water_overlay}/01..09`;
a pattern is `img_6keV_clen01_00062.h5` (clen01, 02, 03 = 0.15, 0.25, 0.35 m), its label and
overlay have `label_` and `overlay_` before that; a blank is `empty_peak_01_00001.h5` with
`empty_label_` and `empty_overlay_`; water is `water01.h5`, one mean image for a whole data set.
Our own: water is drawn anew for each pattern and called `water_` before the pattern's name, so
that it is the overlay's blank twin. Attributes of each file: `clen` in m, `photon_energy` in eV,
`peak`, true where Bragg peaks are in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hitfinder.sim.physics import data_sets


class Folder(StrEnum):
    """The four folders under `images`."""

    PEAKS = "peaks"
    LABELS = "labels"
    WATER = "water"
    OVERLAYS = "peaks_water_overlay"


_PREFIXES = {
    Folder.PEAKS: "",
    Folder.LABELS: "label_",
    Folder.WATER: "water_",
    Folder.OVERLAYS: "overlay_",
}
_BLANK_WORDS = {Folder.PEAKS: "peak", Folder.LABELS: "label", Folder.OVERLAYS: "overlay"}
_HIT = re.compile(r"(label_|water_|overlay_|)img_(\d+)keV_clen(\d+)_(\d+)\.h5")
_BLANK = re.compile(r"empty_(peak|label|overlay)_(\d\d)_(\d+)\.h5")
_MEAN_WATER = re.compile(r"water(\d\d)\.h5")
_LAST_NUMBER = re.compile(r"(\d+)\.h5$")


@dataclass(frozen=True, slots=True, order=True)
class FrameName:
    """One frame of a tree: a pattern with its label, water and overlay, or a blank.

    Attributes:
        dataset: "01" to "09".
        number: counts from 1; five digits in a name.
        is_blank: made without a crystal; its overlay is its water.
    """

    dataset: str
    is_blank: bool
    number: int

    def file_name(self, folder: Folder) -> str:
        """Return the name of the frame's file in a folder."""
        if self.is_blank and folder in _BLANK_WORDS:
            return f"empty_{_BLANK_WORDS[folder]}_{self.dataset}_{self.number:05d}.h5"
        setting = data_sets()[self.dataset]
        keV, clen = round(setting.photon_energy_eV / 1000), clen_number(self.dataset)
        return f"{_PREFIXES[folder]}img_{keV}keV_clen{clen:02d}_{self.number:05d}.h5"

    def place(self, folder: Folder) -> Path:
        """Return the path of the frame's file under `images`; a blank's water is its overlay."""
        if self.is_blank and folder is Folder.WATER:
            folder = Folder.OVERLAYS
        return Path(folder, self.dataset, self.file_name(folder))

    def has_peak(self, folder: Folder) -> bool:
        """Tell what the attribute `peak` of the frame's file in a folder says."""
        return not self.is_blank and folder is not Folder.WATER


@dataclass(frozen=True, slots=True)
class SaidByName:
    """What a file's name alone says; `frame` is None for a data set's one mean water image."""

    folder: Folder
    dataset: str
    frame: FrameName | None


def clen_number(dataset: str) -> int:
    """Return 1, 2 or 3 for 0.15, 0.25 or 0.35 m: the `clenNN` of names."""
    return (int(dataset) + 2) // 3


def mean_water_place(dataset: str) -> Path:
    """Return where the seed's trees have a data set's one water image, under `images`."""
    return Path(Folder.WATER, dataset, f"water{dataset}.h5")


def parse_name(name: str) -> SaidByName | None:
    """Return what a file name of the report's form says, None for any other."""
    if found := _HIT.fullmatch(name):
        prefix, keV, clen, number = found.groups()
        folder = next(folder for folder, said in _PREFIXES.items() if said == prefix)
        dataset = f"{3 * (int(clen) - 1) + int(keV) - 5:02d}"
        if not 6 <= int(keV) <= 8 or dataset not in data_sets():
            return None
        return SaidByName(folder, dataset, FrameName(dataset, False, int(number)))
    if found := _BLANK.fullmatch(name):
        word, dataset, number = found.groups()
        if dataset not in data_sets():
            return None
        folder = next(folder for folder, said in _BLANK_WORDS.items() if said == word)
        return SaidByName(folder, dataset, FrameName(dataset, True, int(number)))
    if (found := _MEAN_WATER.fullmatch(name)) and found[1] in data_sets():
        return SaidByName(Folder.WATER, found[1], None)
    return None


def last_number(name: str) -> int | None:
    """Return the number that a name of any form ends in, as pattern_sim's output has it."""
    found = _LAST_NUMBER.search(name)
    return int(found[1]) if found else None
