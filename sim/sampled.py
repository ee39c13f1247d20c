"""Bragg patterns as pattern_sim computes them, sample by sample, for any orientation.

One rule: this is pattern_sim's arithmetic, not the truth: 7 energies at (i + 1) / 8 of the band,
4 x 4 points of a pixel at its quarters' starts, and a lattice amplitude interpolated between 4096
points of a cell. A 10 um crystal's peaks are narrower than all three, so single pixels hold
thousands of photons and other reflections are missed (physics.md; pattern_sim README, "Limits").
`python -m hitfinder.sim.sampled OUT --per-set 30 --seed 1` writes files in the layout of the
recorded ones; `FrameSource(pattern_sets=...)` shows them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hitfinder.sim.crystal import Beam
from hitfinder.sim.patterns import Pattern, find_spots
from hitfinder.sim.physics import (
    PULSE_PHOTONS,
    R_E_M,
    Detector,
    SimulationError,
    data_sets,
    wavelength_A,
)
from hitfinder.sim.reflections import Crystal, orient, random_quaternion, read_crystal

N_ENERGIES = 7
N_POINTS = 4
TABLE_STEPS = 4096
# Pixels below this many photons are left out, as the shipped patterns leave them out.
CUT_PHOTONS = 1e-3
# A sieve first: a pixel that could at best hold this many at one energy is not sampled.
SIEVE_PHOTONS = 1e-4
ROWS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class LatticeTables:
    """A crystal's |F|^2 by index, and its block's amplitude between lattice points.

    Attributes:
        f2: float32 (2 m + 1, ...), |F|^2 at hkl + m; f2_max: the largest.
        n_cells: whole cells along a, b, c.
        amplitudes: float64 (3, 4097), |sin(pi N x) / sin(pi x)| at x = i / 4096.
    """

    f2: NDArray[np.float32]
    f2_max: float
    n_cells: NDArray[np.float64]
    amplitudes: NDArray[np.float64]


def lattice_tables(crystal: Crystal, crystal_um: float = 10.0) -> LatticeTables:
    """Prepare a crystal of this size; one call serves all its orientations.

    Raises:
        SimulationError: a crystal smaller than a cell.
    """
    n_cells = np.floor(crystal_um * 1e4 / np.array(crystal.lengths_A))
    if n_cells.min() < 1:
        raise SimulationError(f"crystal of {crystal_um} um; expected at least one cell of it")
    reach = int(np.abs(crystal.hkl).max()) + 1
    f2 = np.zeros((2 * reach + 1,) * 3, np.float32)
    f2[tuple(crystal.hkl.astype(np.int64).T + reach)] = crystal.f2
    x = np.arange(1, TABLE_STEPS) / TABLE_STEPS
    inner = np.abs(np.sin(np.pi * n_cells[:, None] * x) / np.sin(np.pi * x))
    ends = n_cells[:, None]
    return LatticeTables(f2, float(f2.max()), n_cells, np.concatenate([ends, inner, ends], axis=1))


def sampled_pattern(
    crystal: Crystal,
    tables: LatticeTables,
    detector: Detector,
    beam: Beam,
    quaternion_wxyz: NDArray[np.floating],
) -> Pattern:
    """Compute one noise-free frame by pattern_sim's sampling; 3 s of a core at 4M pixels.

    Args:
        crystal, tables: what is shot.
        detector: shape, pixel and beam centre.
        beam: energy, band, flux and length; its divergence is not used.
        quaternion_wxyz: orientation (see `reflections.orient`).

    Returns:
        Pixels of at least 1e-3 photons; spots as `patterns.find_spots` names them.
    """
    cells_A = np.asarray(np.linalg.inv(orient(crystal, quaternion_wxyz)), np.float64)
    energies = 1 + beam.bandwidth * (np.arange(1, N_ENERGIES + 1) / (N_ENERGIES + 1) - 0.5)
    k_inv_A = (energies / wavelength_A(beam.photon_energy_eV)).tolist()
    scale = beam.fluence_per_m2 * R_E_M**2 / N_ENERGIES / N_POINTS**2
    # A sample lies at most 0.55 px from the middle of a pixel's samples.
    slack_px = 0.55 * detector.pixel_size_m / beam.clen_m * np.linalg.norm(cells_A, axis=0)
    index: list[NDArray[np.int64]] = []
    photons: list[NDArray[np.float64]] = []
    for begin in range(0, detector.shape[0], ROWS_AT_ONCE):
        rows = np.arange(begin, min(begin + ROWS_AT_ONCE, detector.shape[0]))
        ss, fs = (
            a.ravel() for a in np.meshgrid(rows, np.arange(detector.shape[1]), indexing="ij")
        )
        found = np.zeros(len(ss))
        solid_angle = _solid_angle(detector, beam, ss, fs)
        # At the samples' middle, for every energy.
        middle = _lattice(detector, beam, cells_A, ss + 0.375, fs + 0.375)
        for k in k_inv_A:
            h = (k * middle).astype(np.float32)
            bright = _sieve(tables, h, slack_px * k, scale * solid_angle)
            found[bright] += _sample(tables, cells_A, detector, beam, ss[bright], fs[bright], k)
        found *= scale * solid_angle
        lit = np.flatnonzero(found >= CUT_PHOTONS)
        index.append(ss[lit] * detector.shape[1] + fs[lit])
        photons.append(found[lit])
    pixels = np.concatenate(index).astype(np.int32)
    expected = np.concatenate(photons).astype(np.float32)
    spots = find_spots(detector.shape, pixels, expected)
    d_A = detector.d_A(spots.fs, spots.ss, beam.clen_m, beam.photon_energy_eV)
    return Pattern(detector.shape, pixels, expected, replace(spots, d_A=d_A.astype(np.float32)))


def _lattice(
    detector: Detector,
    beam: Beam,
    cells_A: NDArray[np.float64],
    ss: NDArray[np.floating],
    fs: NDArray[np.floating],
) -> NDArray[np.float64]:
    """Return the lattice coordinates of points for k = 1 / A: (3, n).

    Args:
        detector, beam: where the points lie.
        cells_A: (3, 3), columns a, b, c.
        ss, fs: (n,), in pixels from the array's corner.
    """
    center_fs, center_ss = detector.center_px
    distance_px = beam.clen_m / detector.pixel_size_m
    x, y = fs - center_fs, ss - center_ss
    length = np.sqrt(x * x + y * y + distance_px**2)
    return np.asarray(cells_A.T @ np.stack([x / length, y / length, distance_px / length - 1]))


def _solid_angle(
    detector: Detector, beam: Beam, ss: NDArray[np.int64], fs: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return each pixel's solid angle, seen from the crystal."""
    center_fs, center_ss = detector.center_px
    distance_px = beam.clen_m / detector.pixel_size_m
    r2 = (fs + 0.5 - center_fs) ** 2 + (ss + 0.5 - center_ss) ** 2 + distance_px**2
    return np.asarray(distance_px * r2**-1.5)


def _f2(tables: LatticeTables, nearest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return |F|^2 of the nearest lattice points (3, n), 0 beyond the list: (n,)."""
    reach = tables.f2.shape[0] // 2
    at = np.clip(nearest, -reach, reach).astype(np.intp) + reach
    return np.asarray(tables.f2[at[0], at[1], at[2]])


def _sieve(
    tables: LatticeTables,
    h: NDArray[np.float32],
    slack: NDArray[np.float64],
    photons_per_point: NDArray[np.float64],
) -> NDArray[np.intp]:
    """Return the pixels that may be lit at one energy, by the envelope of the amplitude.

    Args:
        tables: of the crystal.
        h: float32 (3, n), lattice coordinates of the pixels.
        slack: (3,), how far a sample's coordinates may be from them.
        photons_per_point: (n,), photons of a sample for an intensity of 1.
    """
    # What a sample reads may also lie on the next step of the table.
    reach = (slack + 1 / TABLE_STEPS).astype(np.float32)
    nearest = np.rint(h)
    away = np.abs(h - nearest)
    away -= reach[:, None]
    np.maximum(away, 0.5 / tables.n_cells.astype(np.float32)[:, None], out=away)
    # 1 / sin(pi x) is below 1 / 2x.
    inverse = away[0] * away[1] * away[2]
    needed = inverse * inverse * np.float32(64 * SIEVE_PHOTONS / N_POINTS**2)
    needed /= photons_per_point.astype(np.float32)
    likely = np.flatnonzero(needed < tables.f2_max)
    return np.asarray(likely[_f2(tables, nearest[:, likely]) > needed[likely]])


def _sample(
    tables: LatticeTables,
    cells_A: NDArray[np.float64],
    detector: Detector,
    beam: Beam,
    ss: NDArray[np.int64],
    fs: NDArray[np.int64],
    k_inv_A: float,
) -> NDArray[np.float64]:
    """Return the sum of |F|^2 times the lattice's intensity over a pixel's points: (n,)."""
    step_ss, step_fs = (a.ravel() for a in np.mgrid[:N_POINTS, :N_POINTS] / N_POINTS)
    at_ss, at_fs = (ss[:, None] + step_ss).ravel(), (fs[:, None] + step_fs).ravel()
    h = k_inv_A * _lattice(detector, beam, cells_A, at_ss, at_fs)
    intensity = _f2(tables, np.rint(h)).astype(np.float64)
    for axis in range(3):
        place = np.abs(h[axis]) % 1 * TABLE_STEPS
        low = place.astype(np.intp)
        table = tables.amplitudes[axis]
        intensity *= (table[low] + (place - low) * (table[low + 1] - table[low])) ** 2
    return np.asarray(intensity.reshape(len(ss), N_POINTS**2).sum(axis=1))


def sampled_set(
    dataset: str, n_patterns: int, seed: int
) -> Iterator[tuple[Pattern, NDArray[np.float64]]]:
    """Compute patterns of proteinase K, 10 um, 3e8 photons, for one of the nine data sets.

    Yields:
        Patterns with their orientations: uniformly random, the same for the same seed.
    """
    setting, crystal = data_sets()[dataset], read_crystal()
    rng = np.random.default_rng([seed, int(dataset)])
    beam, tables = Beam(setting.photon_energy_eV, setting.clen_m), lattice_tables(crystal)
    for turn in [random_quaternion(rng) for _ in range(n_patterns)]:
        yield sampled_pattern(crystal, tables, Detector(), beam, turn), turn


def write_set(
    path: Path,
    dataset: str,
    patterns: Sequence[tuple[Pattern, NDArray[np.float64]]],
    seed: int,
    simulator: str = "hitfinder.sim.sampled",
) -> None:
    """Write patterns in the layout of the recorded `peaks_NN.h5` (its README)."""
    setting, crystal = data_sets()[dataset], read_crystal()
    n_ss, n_fs = Detector().shape
    with h5py.File(path, "w") as file:
        file.attrs.update(
            simulator=simulator,
            dataset=int(dataset),
            clen_m=setting.clen_m,
            photon_energy_eV=setting.photon_energy_eV,
            nphotons=PULSE_PHOTONS,
            n_rows_ss=n_ss,
            n_cols_fs=n_fs,
        )
        frames = file.create_group("size_10000nm")
        frames.attrs.update(cut_photons=CUT_PHOTONS, orientation_seed=seed)
        lengths = [len(pattern.index) for pattern, _ in patterns]
        frames["indptr"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        packing = {"compression": "gzip", "shuffle": True}
        index = np.concatenate([pattern.index for pattern, _ in patterns]).astype(np.uint32)
        frames.create_dataset("index", data=index, **packing)
        photons = np.concatenate([pattern.photons for pattern, _ in patterns])
        frames.create_dataset("photons", data=photons, **packing)
        turns = np.array([turn for _, turn in patterns], np.float32)
        frames["quaternion_wxyz"] = turns
        axes = [orient(crystal, turn) * 1e10 for turn in turns]
        frames["reciprocal_axes_inv_m"] = np.array(axes, np.float32)


def sets_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return what a program that makes such files is asked: where, which, how many, what seed."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("out", type=Path)
    parser.add_argument("--datasets", nargs="+", default=list(data_sets()), choices=data_sets())
    parser.add_argument("--per-set", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one file a data set."""
    chosen = sets_parser("hitfinder.sim.sampled", main.__doc__).parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.datasets:
        made = sampled_set(name, chosen.per_set, chosen.seed)
        shown = track(made, f"data set {name}", chosen.per_set, console=Console(stderr=True))
        write_set(chosen.out / f"peaks_{name}.h5", name, list(shown), chosen.seed)


if __name__ == "__main__":
    main()
