"""CrystFEL's own `pattern_sim`, called with the seed report's arguments where it is installed.

One rule: nothing is guessed: the program, its inputs and what it says when it fails are named.
`pattern_sim` left CrystFEL after 0.10.2; `sampled.py` has its arithmetic without the program.
Arguments: the report's submit scripts; the energy and the 1 % band stand in the geometry file.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.physics import PULSE_PHOTONS, SimulationError

# A frame takes minutes; a program that is silent for a day is hung.
TIMEOUT_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternSimInputs:
    """What one data set is made from.

    Attributes:
        geometry: CrystFEL geometry with photon energy, bandwidth and clen (`Eiger4M_NN.geom`).
        cell: unit cell file; intensities: reflection list; point_group: of that list.
        crystal_nm: edge of the crystals, with n_photons on beam_radius_m.
        with_noise: let pattern_sim draw Poisson counts.
    """

    geometry: Path
    cell: Path
    intensities: Path
    point_group: str = "4/mmm"
    crystal_nm: int = 10_000
    n_photons: float = PULSE_PHOTONS
    beam_radius_m: float = 5e-6
    with_noise: bool = False


def command(inputs: PatternSimInputs, n_frames: int, stem: str, program: str) -> list[str]:
    """Return the command line that writes `n_frames` frames named after `stem`."""
    noise = [] if inputs.with_noise else ["--no-noise"]
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
        *noise,
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
            "use hitfinder.sim.sampled, which computes the same patterns"
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
