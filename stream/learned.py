"""What workers learned of a series' detector: lists of bad pixels on their way into its ledger.

One rule: a list only grows, and a verdict that names its worker and a number n was made with the
first n entries. While a series runs each worker's list stands in the runtime folder, written
before the verdicts that rest on it, and the sink keeps a copy in the series' folder before it
stores them, which outlives the daemon; at the end all go to `/learned` of `ledger.h5`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hitfinder.stream.swmr import LIBVER, replace_file

PIXEL_KINDS = ("hot", "dead", "shadow")
SETTLED = b"settled"
"""The kind of the entry from which on a worker knew the hot pixels."""
COMPARED = ("outcome", "learned_by", "n_learned", "flux_scale")
IN_FOLDER = 0
"""The key under which a series' own folder holds its lists."""
NO_MASK = "none"
"""The name in a ledger of what is left where the operator took the mask back."""
UNITS = "pixel: flat index of a square's first; edge_px: its edge; frame: -1 for an earlier series"


@dataclass(frozen=True, slots=True, eq=False)
class LearnedList:
    """What one worker learned.

    Attributes:
        worker: its number, 0 for the first.
        shape: (ss, fs) of the images.
        entries: fields `pixel`, `edge_px`, `kind` and `frame`, in the order of learning.
    """

    worker: int
    shape: tuple[int, int]
    entries: NDArray[np.void]


def save_learned(runtime: Path, key: int, learned: LearnedList) -> None:
    """Leave a worker's list of series `key` for its successor and for the sink."""
    save_entries(_path(runtime, key, learned.worker, learned.shape), learned.entries)


def saved_learned(
    runtime: Path, key: int, worker: int, shape: tuple[int, int]
) -> NDArray[np.void] | None:
    """Return what a worker, or its killed predecessor, left of series `key`; None if nothing."""
    return saved_entries(_path(runtime, key, worker, shape))


def all_learned(runtime: Path, key: int) -> list[LearnedList]:
    """Return what all workers left of series `key`."""
    found = []
    for path in sorted(runtime.glob(f"learned_{key}_*.npy")):
        worker, ss, fs = (int(part) for part in path.stem.split("_")[2:])
        found.append(LearnedList(worker, (ss, fs), np.load(path)))
    return found


def drop_learned(runtime: Path, key: int) -> None:
    """Forget the lists of a series that is over."""
    for path in runtime.glob(f"learned_{key}_*.npy"):
        path.unlink(missing_ok=True)


def save_entries(path: Path, entries: NDArray[np.void]) -> None:
    """Write a list as a whole."""

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.save(file, entries)

    replace_file(path, write)


def saved_entries(path: Path) -> NDArray[np.void] | None:
    """Return a list, None if there is none."""
    return np.load(path) if path.exists() else None


def store_learned(ledger: Path, lists: Sequence[LearnedList]) -> None:
    """Write lists to `/learned/worker<n>` of a ledger that nobody has open."""
    with h5py.File(ledger, "r+", libver=LIBVER) as file:
        group = file.require_group("learned")
        group.attrs["meaning"] = UNITS
        for learned in lists:
            name = f"worker{learned.worker}"
            if name in group:
                del group[name]
            group.create_dataset(name, data=learned.entries)


def store_masks(ledger: Path, masks: Mapping[str, NDArray[np.uint32]]) -> None:
    """Write the masks that came into force after the master's to `/masks/<name>` likewise."""
    with h5py.File(ledger, "r+", libver=LIBVER) as file:
        for name, pixel_mask in masks.items():
            file.require_group("masks").create_dataset(name, data=pixel_mask, compression="gzip")


def summarise_learned(ledger: Path, lists: Sequence[LearnedList]) -> dict[str, Any]:
    """Return what was learned in numbers, JSON-like: pixels of each kind, flux, late knowledge.

    `n_judged_before_known` counts the frames that were judged before their worker knew the hot
    pixels; the flux scale's mean and scatter are those of the misses, None if there are none.
    """
    with h5py.File(ledger, "r") as file:
        rows = file["ledger"].fields(COMPARED)[:]
    judged = rows[rows["learned_by"] >= 0]
    n_known = 0
    for learned in lists:
        settled = np.flatnonzero(learned.entries["kind"] == SETTLED)
        if len(settled):
            mine = judged["learned_by"] == learned.worker
            n_known += int((mine & (judged["n_learned"] > settled[0])).sum())
    flux = judged["flux_scale"][judged["outcome"] == b"miss"]
    found: dict[str, Any] = {
        "n_hot" if kind == "hot" else f"n_{kind}_px": _n_pixels(lists, kind)
        for kind in PIXEL_KINDS
    }
    return {
        **found,
        "n_judged_before_known": len(judged) - n_known,
        "flux_scale_mean": float(flux.mean()) if len(flux) else None,
        "flux_scale_scatter": float(flux.std()) if len(flux) else None,
    }


def _path(runtime: Path, key: int, worker: int, shape: tuple[int, int]) -> Path:
    return runtime / f"learned_{key}_{worker}_{shape[0]}_{shape[1]}.npy"


def _n_pixels(lists: Sequence[LearnedList], kind: str) -> int:
    """Return how many pixels any worker found to be of this kind."""
    if not lists:
        return 0
    mask = np.zeros(lists[0].shape, np.bool_)
    for learned in lists:
        for entry in learned.entries[learned.entries["kind"] == kind.encode()]:
            row, column = divmod(int(entry["pixel"]), learned.shape[1])
            edge = int(entry["edge_px"])
            mask[row : row + edge, column : column + edge] = True
    return int(mask.sum())
