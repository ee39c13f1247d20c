"""The crystals that a source shoots: proteinase K, made-up ones of many cells, or both.

One rule: a made-up crystal is a function of (seed, number, cells, groups) alone and is made when
it is first shot; large cells end at the resolution where they have 200 000 reflections, as large
cells do in life.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import gemmi
import numpy as np

from hitfinder.sim.nuisances import Span, draw_span
from hitfinder.sim.physics import SimulationError
from hitfinder.sim.reflections import Crystal, random_crystal, read_crystal

CrystalKind = Literal["1IC6", "random", "both"]
# How many different made-up crystals one source has; each is up to 3 MB and half a second.
N_MADE_UP = 24
MAX_REFLECTIONS = 200_000
D_MIN_A = 2.0

# One group or more of every Laue class.
SPACE_GROUPS = (
    "P 1",
    "P 1 21 1",
    "C 1 2 1",
    "P 21 21 21",
    "C 2 2 21",
    "I 2 2 2",
    "P 4",
    "I 4",
    "P 43 21 2",
    "P 3",
    "P 31 2 1",
    "H 3",
    "H 3 2",
    "P 63",
    "P 61 2 2",
    "P 21 3",
    "I 2 3",
    "P 4 3 2",
)


def draw_cell(
    rng: np.random.Generator, space_group: str, cell_A: Span
) -> tuple[float, float, float, float, float, float]:
    """Draw a cell that a space group allows: edges within the span, oblique angles 75-110.

    Raises:
        SimulationError: gemmi knows no such group.
    """
    found = gemmi.find_spacegroup_by_name(space_group)
    if found is None:
        raise SimulationError(f'space group {space_group!r}; expected one such as "P 43 21 2"')
    a, b, c = (draw_span(rng, cell_A, log=True) for _ in range(3))
    angles = tuple(rng.uniform(75, 110, 3).tolist())
    match found.crystal_system():
        case gemmi.CrystalSystem.Triclinic:
            return a, b, c, *angles
        case gemmi.CrystalSystem.Monoclinic:
            return a, b, c, 90.0, 90.0 + abs(angles[1] - 90), 90.0
        case gemmi.CrystalSystem.Orthorhombic:
            return a, b, c, 90.0, 90.0, 90.0
        case gemmi.CrystalSystem.Tetragonal:
            return a, a, c, 90.0, 90.0, 90.0
        case gemmi.CrystalSystem.Cubic:
            return a, a, a, 90.0, 90.0, 90.0
    return a, a, c, 90.0, 90.0, 120.0


@dataclass(frozen=True, slots=True)
class CrystalPool:
    """A source's crystals by number; see the file's head.

    Attributes:
        kind: which crystals there are; "both" gives proteinase K every other number.
        seed: of the made-up ones.
        cell_A: edges of their cells (a pair evenly in the logarithm).
        space_groups: what they are drawn from.
        given: crystals to shoot instead.
    """

    kind: CrystalKind
    seed: int
    cell_A: Span
    space_groups: tuple[str, ...]
    given: tuple[Crystal, ...] = ()
    _made: dict[int, Crystal] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.given:
            return len(self.given)
        return {"1IC6": 1, "random": N_MADE_UP, "both": 2 * N_MADE_UP}[self.kind]

    def __getitem__(self, number: int) -> Crystal:
        """Return one crystal, 0 to len - 1; the first time may take half a second."""
        if self.given:
            return self.given[number]
        is_protein = self.kind == "1IC6" or (self.kind == "both" and number % 2 == 0)
        key = -1 if is_protein else number
        if key not in self._made:
            self._made[key] = read_crystal() if is_protein else self._make_up(number)
        return self._made[key]

    def _make_up(self, number: int) -> Crystal:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(3, number)))
        group = self.space_groups[int(rng.integers(len(self.space_groups)))]
        cell = draw_cell(rng, group, self.cell_A)
        volume_A3 = gemmi.UnitCell(*cell).volume
        d_full_A = (4 / 3 * np.pi * volume_A3 / MAX_REFLECTIONS) ** (1 / 3)
        return random_crystal(
            cell,
            group,
            d_min_A=max(D_MIN_A, float(d_full_A)),
            b_factor_A2=float(rng.uniform(10, 60)),
            seed=int(rng.integers(2**31)),
        )
