"""Crystals as lists of |F|^2: the shipped proteinase K, or a made-up one of any cell.

One rule: a list holds every symmetry mate, lowest |G| first, in electrons^2 a cell, so the
generator only rotates and cuts. 1IC6's list is computed from its atoms with a flat bulk solvent
(CrystFEL reflection list); others follow Wilson's statistics, symmetry by gemmi.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from importlib.resources import files

import gemmi
import numpy as np
from numpy.typing import NDArray

from hitfinder.sim.physics import SimulationError

# Wilson statistics: mean |F|^2 at d = infinity over the cell's volume, as 1IC6 has it with B = 17.
SCATTERING_E2_PER_A3 = 1.4


@dataclass(frozen=True, slots=True, eq=False)
class Crystal:
    """A unit cell and its reflections, all symmetry mates written out, lowest |G| first.

    Attributes:
        reciprocal_inv_A: float64 (3, 3), rows a*, b*, c* before rotation: a along x, b in xy.
        volume_A3: of the cell.
        lengths_A: a, b, c.
        hkl: int16 (n, 3).
        f2: float32 (n,), |F|^2 in electrons^2 a cell.
        g_inv_A: float32 (n,), |G| = 1/d.
    """

    reciprocal_inv_A: NDArray[np.float64]
    volume_A3: float
    lengths_A: tuple[float, float, float]
    hkl: NDArray[np.int16]
    f2: NDArray[np.float32]
    g_inv_A: NDArray[np.float32]


def _crystal(cell: gemmi.UnitCell, hkl: NDArray[np.integer], f2: NDArray[np.floating]) -> Crystal:
    """Sort reflections by |G| and compute the cell's axes."""
    reciprocal = np.array(cell.frac.mat.tolist())
    g_inv_A = np.linalg.norm(hkl @ reciprocal, axis=1)
    order = np.argsort(g_inv_A, kind="stable")
    return Crystal(
        reciprocal_inv_A=reciprocal,
        volume_A3=cell.volume,
        lengths_A=(cell.a, cell.b, cell.c),
        hkl=hkl[order].astype(np.int16),
        f2=f2[order].astype(np.float32),
        g_inv_A=g_inv_A[order].astype(np.float32),
    )


def _rotations(group: gemmi.GroupOps) -> list[NDArray[np.int64]]:
    """Return the group's rotations as they act on hkl from the right, with Friedel's inverses."""
    found = {tuple(np.array(op.rot).ravel() // op.DEN) for op in group.sym_ops}
    matrices = [np.array(flat, dtype=np.int64).reshape(3, 3) for flat in sorted(found)]
    return [sign * matrix for matrix in matrices for sign in (1, -1)]


def _distinct(hkl: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Return each hkl once, in order of h, k, l, and where it stands first."""
    base = 2 * int(np.abs(hkl).max(initial=0)) + 1
    _, first = np.unique((hkl @ np.array([base**2, base, 1])), return_index=True)
    return hkl[first], first


def read_crystal() -> Crystal:
    """Return proteinase K (PDB 1IC6) to 2.0 A, from the shipped cell and reflection list."""
    folder = files("hitfinder.sim").joinpath("data")
    fields = (line.split() for line in folder.joinpath("1IC6.cell").read_text().splitlines())
    sizes = {f[0]: float(f[2]) for f in fields if len(f) == 4 and f[1] == "="}
    cell = gemmi.UnitCell(*(sizes[name] for name in ("a", "b", "c", "al", "be", "ga")))
    lines = gzip.decompress(folder.joinpath("1IC6.hkl.gz").read_bytes()).decode().splitlines()
    rows = np.array([line.split()[:4] for line in lines[3:-1]], dtype=float)
    point_group = gemmi.SpaceGroup("P 4/m m m").operations()
    turned = [rows[:, :3].astype(np.int64) @ rotation for rotation in _rotations(point_group)]
    hkl, first = _distinct(np.concatenate(turned))
    return _crystal(cell, hkl, np.tile(rows[:, 3], len(turned))[first])


def random_crystal(
    cell: tuple[float, float, float, float, float, float],
    space_group: str,
    d_min_A: float = 2.5,
    b_factor_A2: float = 17.0,
    seed: int = 0,
) -> Crystal:
    """Return a crystal whose |F|^2 follow Wilson's statistics: made up, but with real symmetry.

    Args:
        cell: a, b, c in Angstrom, alpha, beta, gamma in degrees.
        space_group: Hermann-Mauguin symbol, e.g. "P 43 21 2".
        d_min_A: resolution to which reflections are made.
        b_factor_A2: fall-off of the mean, exp(-B / (2 d^2)).
        seed: of the draw.

    Raises:
        SimulationError: an unknown space group, or a cell that it does not allow.
    """
    found = gemmi.find_spacegroup_by_name(space_group)
    unit = gemmi.UnitCell(*cell)
    if found is None or not unit.is_compatible_with_spacegroup(found):
        raise SimulationError(
            f"space group {space_group!r} with cell {cell}; expected a Hermann-Mauguin symbol "
            'such as "P 43 21 2" and a cell that has its symmetry'
        )
    group = found.operations()
    unique = np.array(gemmi.make_miller_array(unit, found, d_min_A), dtype=np.int64)
    rng = np.random.default_rng(seed)
    g2 = np.sum((unique @ np.array(unit.frac.mat.tolist())) ** 2, axis=1)
    mean = SCATTERING_E2_PER_A3 * unit.volume * np.exp(-b_factor_A2 * g2 / 2)
    mean *= [group.epsilon_factor_without_centering(h) for h in unique.tolist()]
    centric = np.array([group.is_reflection_centric(h) for h in unique.tolist()])
    draw = np.where(centric, rng.chisquare(1, len(unique)), rng.exponential(1.0, len(unique)))
    turned = [unique @ rotation for rotation in _rotations(group)]
    hkl, first = _distinct(np.concatenate(turned))
    return _crystal(unit, hkl, np.tile(mean * draw, len(turned))[first])


def orient(crystal: Crystal, quaternion_wxyz: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the rotated axes: float64 (3, 3), rows a*, b*, c* in 1/A, by CrystFEL's convention.

    pattern_sim writes the inverse of the usual rotation of its quaternion.
    """
    w, x, y, z = np.asarray(quaternion_wxyz, float) / np.linalg.norm(quaternion_wxyz)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
            [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
            [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    return np.asarray(crystal.reciprocal_inv_A @ turn.T)


def random_quaternion(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a uniformly random orientation as a unit quaternion (w, x, y, z)."""
    deviates = rng.standard_normal(4)
    return np.asarray(deviates / np.linalg.norm(deviates))
