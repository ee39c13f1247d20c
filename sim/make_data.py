"""Make the files of `sim/data` from the project's pattern_sim data set.

Run as `python -m hitfinder.sim.make_data SOURCE [TARGET]`; the result is committed, so that the
program stands alone. Patterns: the 8 noise-free frames of each data set at 10 um, every pixel
of at least `CUT_PHOTONS` expected photons; the share of photons that the cut drops is stored.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

CUT_PHOTONS = 1e-3  # at 3e8 photons a pulse; drops less than 4e-4 of the photons of any data set
DATA_SETS = tuple(f"{n:02d}" for n in range(1, 10))


def make_water(source: Path, target: Path) -> None:
    """Copy the radial table F2(q), in electrons^2 a molecule, without the images made from it."""
    with h5py.File(source / "water.h5") as water:
        np.savez_compressed(
            target / "water_f2.npz",
            q_inv_A=water["F2_q_inv_angstrom"][:],
            f2_e2_per_molecule=water["F2_e2_per_molecule"][:],
        )


def trim_set(source: Path, name: str) -> tuple[dict[str, NDArray[np.generic]], float, float]:
    """Return one data set's arrays above the cut, the photons kept and the photons found."""
    with h5py.File(source / f"peaks_{name}.h5") as peaks:
        frames = peaks["size_10000nm"]
        index, photons = frames["index"][:], frames["photons"][:]
        starts = frames["indptr"][:]
        keep = photons >= CUT_PHOTONS
        kept_before = np.concatenate([[0], np.cumsum(keep)])
        arrays = {
            f"index_{name}": index[keep].astype(np.int32),
            f"photons_{name}": photons[keep],
            f"indptr_{name}": kept_before[starts],
            f"quaternion_wxyz_{name}": frames["quaternion_wxyz"][:],
            f"reciprocal_axes_inv_m_{name}": frames["reciprocal_axes_inv_m"][:],
        }
    return arrays, float(photons[keep].sum(dtype=float)), float(photons.sum(dtype=float))


def make_patterns(source: Path, target: Path) -> None:
    """Write the trimmed patterns of all nine data sets and say what the cut dropped."""
    arrays: dict[str, NDArray[np.generic]] = {"cut_photons": np.array(CUT_PHOTONS)}
    kept = found = 0.0
    for name in DATA_SETS:
        part, part_kept, part_found = trim_set(source, name)
        arrays |= part
        kept, found = kept + part_kept, found + part_found
        print(f"{name}: {1 - part_kept / part_found:.2e} of the photons dropped")
    arrays["dropped_fraction"] = np.array(1 - kept / found)
    np.savez_compressed(target / "patterns_10um.npz", **arrays)  # type: ignore[arg-type]
    print(f"all: {1 - kept / found:.2e} of {found:.0f} photons dropped")


def main(arguments: list[str]) -> None:
    """Make everything; `arguments` are the source folder and, optionally, the target folder."""
    source = Path(arguments[0])
    target = Path(arguments[1]) if len(arguments) > 1 else Path(__file__).parent / "data"
    for name in ("1IC6.cell", "1IC6.hkl.gz"):
        shutil.copyfile(source / name, target / name)
    make_water(source, target)
    make_patterns(source, target)


if __name__ == "__main__":
    main(sys.argv[1:])
