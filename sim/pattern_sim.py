"""CrystFEL's own `pattern_sim`, called with the seed report's arguments where it is installed.

One rule: nothing is guessed: the program, its inputs and what it says when it fails are named.
`pattern_sim` left CrystFEL after 0.10.2; `sampled.py` has its arithmetic without the program.
Arguments: the report's submit scripts; the energy and the 1 % band stand in the geometry file.
`python -m hitfinder.sim.pattern_sim OUT --per-set 30 --seed 1` writes files in the layout of the
recorded ones; `hitfinder-stream dataset TREE --patterns OUT` makes frames of them.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hitfinder.sim.make_data import CUT_PHOTONS
from hitfinder.sim.pattern_files import IMAGE
from hitfinder.sim.patterns import Pattern, named_pattern
from hitfinder.sim.physics import (
    PULSE_PHOTONS,
    DataSet,
    Detector,
    SimulationError,
    data_sets,
)
from hitfinder.sim.reflections import random_quaternion
from hitfinder.sim.sampled import sets_parser, write_set

# A frame takes minutes; a program that is silent for a day is hung.
TIMEOUT_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternSimInputs:
    """What one data set is made from; the frames are free of noise.

    Attributes:
        geometry: CrystFEL geometry with photon energy, bandwidth and clen (`Eiger4M_NN.geom`).
        cell: unit cell file; intensities: reflection list; point_group: of that list.
        crystal_nm: edge of the crystals, with n_photons on beam_radius_m.
    """

    geometry: Path
    cell: Path
    intensities: Path
    point_group: str = "4/mmm"
    crystal_nm: int = 10_000
    n_photons: float = PULSE_PHOTONS
    beam_radius_m: float = 5e-6


def command(inputs: PatternSimInputs, n_frames: int, stem: str, program: str) -> list[str]:
    """Return the command line that writes `n_frames` frames named after `stem`."""
    return [
        program,
        "-g",
        str(inputs.geometry.resolve()),
        "-p",
        str(inputs.cell.resolve()),
        "-i",
        str(inputs.intensities.resolve()),
        "-y",
        inputs.point_group,
        f"--number={n_frames}",
        f"--min-size={inputs.crystal_nm}",
        f"--max-size={inputs.crystal_nm}",
        "--spectrum=tophat",
        "-s",
        "7",
        "--background=0",
        f"--nphotons={inputs.n_photons:g}",
        f"--beam-radius={inputs.beam_radius_m:g}",
        "--no-noise",
        "-o",
        stem,
    ]


def run_pattern_sim(
    inputs: PatternSimInputs,
    out: Path,
    quaternions_wxyz: Sequence[NDArray[np.floating]],
    stem: str = "frame",
    program: str = "pattern_sim",
) -> list[Path]:
    """Let pattern_sim make one frame an orientation.

    Args:
        inputs: what is simulated.
        out: folder for the frames; made if missing.
        quaternions_wxyz: orientations, unit quaternions; given to it on standard input.
        stem: the frames are `stem.h5`, or `stem-1.h5`, `stem-2.h5` and so on.
        program: name on the PATH, or a path.

    Returns:
        The files that it wrote, in the order of the orientations.

    Raises:
        SimulationError: the program or an input is missing, it failed, or wrote too few files.
    """
    found = shutil.which(program)
    if found is None:
        raise SimulationError(
            f"{program} is not installed (it is part of CrystFEL up to 0.10.2); install that, or "
            "use python -m hitfinder.sim.sampled, which computes the same patterns"
        )
    for path in (inputs.geometry, inputs.cell, inputs.intensities):
        if not path.is_file():
            raise SimulationError(f"pattern_sim needs {path}: no such file")
    out.mkdir(parents=True, exist_ok=True)
    turns = "".join(" ".join(f"{x:.8f}" for x in turn) + "\n" for turn in quaternions_wxyz)
    ended = subprocess.run(
        command(inputs, len(quaternions_wxyz), stem, found),
        input=turns,
        cwd=out,
        text=True,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if ended.returncode != 0:
        said = (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-5:]
        raise SimulationError(f"pattern_sim ended with {ended.returncode}: {' | '.join(said)}")
    n = len(quaternions_wxyz)
    names = [f"{stem}.h5"] if n == 1 else [f"{stem}-{k}.h5" for k in range(1, n + 1)]
    missing = [name for name in names if not (out / name).is_file()]
    if missing:
        raise SimulationError(f"pattern_sim said it was done, but {out / missing[0]} is not there")
    return [out / name for name in names]


def geometry_text(setting: DataSet, detector: Detector) -> str:
    """Return a CrystFEL geometry of one panel with what pattern_sim reads of the beam."""
    n_ss, n_fs = detector.shape
    center_fs, center_ss = detector.center_px
    lines = [
        f"photon_energy = {setting.photon_energy_eV:g} eV",
        "bandwidth = 0.01",
        f"clen = {setting.clen_m:g} m",
        f"res = {1 / detector.pixel_size_m:.10g}",
        "adu_per_photon = 1",
        f"data = /{IMAGE}",
        f"p0/min_fs = 0\np0/max_fs = {n_fs - 1}\np0/min_ss = 0\np0/max_ss = {n_ss - 1}",
        f"p0/corner_x = {-center_fs:g}\np0/corner_y = {-center_ss:g}",
        "p0/fs = +1.0x +0.0y\np0/ss = +0.0x +1.0y",
    ]
    return "\n".join(lines) + "\n"


def read_frame(path: Path, dataset: str, detector: Detector) -> Pattern:
    """Return a frame that pattern_sim wrote: its pixels of at least 1e-3 photons.

    Raises:
        SimulationError: no image of the detector's shape in it.
    """
    try:
        with h5py.File(path) as file:
            image = np.asarray(file[IMAGE][()], np.float32).squeeze()
    except (OSError, KeyError) as reason:
        raise SimulationError(f"{path}: {reason}; expected an image at /{IMAGE}") from reason
    if image.shape != detector.shape:
        raise SimulationError(f"{path}: image {image.shape}; expected {detector.shape}")
    index = np.flatnonzero(image >= CUT_PHOTONS).astype(np.int32)
    return named_pattern(detector, data_sets()[dataset], index, image.reshape(-1)[index])


def pattern_sim_set(
    dataset: str, n_patterns: int, seed: int, program: str = "pattern_sim"
) -> list[tuple[Pattern, NDArray[np.float64]]]:
    """Let pattern_sim make patterns of proteinase K, 10 um, 3e8 photons, for one data set.

    Returns:
        Patterns with their orientations: uniformly random, the same for the same seed.

    Raises:
        SimulationError: as `run_pattern_sim` and `read_frame`.
    """
    rng, detector = np.random.default_rng([seed, int(dataset)]), Detector()
    turns = [random_quaternion(rng) for _ in range(n_patterns)]
    with TemporaryDirectory(prefix="pattern_sim_") as name:
        folder = Path(name)
        shipped = files("hitfinder.sim").joinpath("data")
        geometry, cell = folder / f"{dataset}.geom", folder / "1IC6.cell"
        intensities = folder / "1IC6.hkl"
        geometry.write_text(geometry_text(data_sets()[dataset], detector))
        cell.write_text(shipped.joinpath("1IC6.cell").read_text())
        packed = shipped.joinpath("1IC6.hkl.gz").read_bytes()
        intensities.write_bytes(gzip.decompress(packed))
        inputs = PatternSimInputs(geometry=geometry, cell=cell, intensities=intensities)
        made = run_pattern_sim(inputs, folder, turns, dataset, program)
        frames = [read_frame(path, dataset, detector) for path in made]
    return list(zip(frames, turns, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Let pattern_sim make patterns and write one file a data set."""
    parser = sets_parser("hitfinder.sim.pattern_sim", main.__doc__)
    parser.add_argument("--program", default="pattern_sim", help="name on the PATH, or a path")
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in track(chosen.datasets, "data sets", console=Console(stderr=True)):
        made = pattern_sim_set(name, chosen.per_set, chosen.seed, chosen.program)
        write_set(chosen.out / f"peaks_{name}.h5", name, made, chosen.seed, "pattern_sim")


if __name__ == "__main__":
    main()
