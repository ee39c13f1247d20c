"""What a source's frames are like: the settings, and which of them no frame can have.

One rule: a setting is either one value or a pair of ends (a `Span`) that each frame draws from.
Shipped patterns fix size, band, energy, length and pixel; the generator takes anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hitfinder.sim.crystal_pool import SPACE_GROUPS, CrystalKind
from hitfinder.sim.defects import Defects
from hitfinder.sim.nuisances import Nuisances, Span
from hitfinder.sim.patterns import Pattern
from hitfinder.sim.physics import PULSE_PHOTONS, Detector, SimulationError, data_sets

SHIPPED_CRYSTAL_UM = 10.0
SHIPPED_BANDWIDTH = 0.01


@dataclass(frozen=True, slots=True)
class FrameSettings:
    """What a source's frames are like. A `Span` of two values is drawn anew for each frame.

    Attributes:
        datasets: data sets ("01" to "09") to draw from evenly.
        photon_energy_eV, clen_m: instead of the data sets' (generator only).
        hit_fraction: share of frames with a crystal in the beam.
        n_photons: photons a pulse; a pair is drawn evenly in the logarithm.
        strength: factor on the Bragg photons alone; a pair evenly in the logarithm.
        crystal_um: edge of the crystal (a pair evenly in the logarithm); shipped ones are 10 um.
        divergence_mrad: FWHM of the beam's divergence, which widens spots; 0 = as computed.
        bandwidth: full relative width of the top hat (a pair evenly in the logarithm); shipped
            patterns have 1 %.
        mosaicity_deg: FWHM of the mosaic blocks' tilts (generator only).
        divergence_ratio: divergence along ss over that along fs, their product kept (a pair evenly
            in the logarithm; generator only).
        radial_stretch: factor on the spots' width along the radius (generator only).
        n_crystals: crystals in the beam of a hit; a pair is drawn evenly, both ends included.
        crystals: what the generator shoots: proteinase K, made-up cells, or one or the other.
        cell_A: edges of made-up cells (a pair evenly in the logarithm).
        space_groups: of made-up crystals, drawn evenly.
        thickness: factor on the jet's 100 um of water.
        thickness_jitter: relative sigma of the water's thickness.
        center_shift_px: how far the beam centre is off, in a random direction.
        center_jitter_px: sigma of the beam centre along each axis.
        horizontal_polarization: share of the beam polarised along fs; the rest is along ss.
        nuisances: streak, rings, halo, stray and salt spots; None for plain water.
        defects: dead pixels, beam stop and shadows, the same through a series; None for none.
        n_hot_pixels: hot pixels, at fixed places for a seed.
        hot_photons: mean counts of a hot pixel, each drawn once evenly in the logarithm.
        patterns: "shipped" (8 orientations a set, or the source's `pattern_sets`) or "generator"
            (a new one every hit).
        vary: also show shipped patterns mirrored and turned by 180 degrees.
        dtype: pixel type.
        count_cutoff: no pixel counts more; None for the type's own limit.
        kind: name of such frames, told by each of them.
    """

    datasets: tuple[str, ...] = ("02",)
    photon_energy_eV: Span | None = None
    clen_m: Span | None = None
    hit_fraction: float = 0.2
    n_photons: Span = PULSE_PHOTONS
    strength: Span = 1.0
    crystal_um: Span = SHIPPED_CRYSTAL_UM
    divergence_mrad: Span = 0.0
    bandwidth: Span = SHIPPED_BANDWIDTH
    mosaicity_deg: Span = 0.0
    divergence_ratio: Span = 1.0
    radial_stretch: Span = 1.0
    n_crystals: int | tuple[int, int] = 1
    crystals: CrystalKind = "1IC6"
    cell_A: Span = (40.0, 200.0)
    space_groups: tuple[str, ...] = SPACE_GROUPS
    thickness: Span = 1.0
    thickness_jitter: float = 0.0
    center_shift_px: Span = 0.0
    center_jitter_px: float = 0.0
    horizontal_polarization: Span = 1.0
    nuisances: Nuisances | None = None
    defects: Defects | None = None
    n_hot_pixels: int = 0
    hot_photons: Span = (1.0, 1000.0)
    patterns: Literal["shipped", "generator"] = "shipped"
    vary: bool = False
    dtype: Literal["uint8", "uint16", "uint32"] = "uint16"
    count_cutoff: int | None = None
    kind: str = ""


def check_settings(
    settings: FrameSettings,
    detector: Detector,
    pattern_sets: Mapping[str, Sequence[Pattern]] | None = None,
) -> None:
    """Refuse settings that no frame can have.

    Raises:
        SimulationError: unknown data sets, a hit fraction outside 0 to 1, shipped patterns with
            what they were not made for, or pattern sets without a data set that is asked for.
    """
    unknown = [name for name in settings.datasets if name not in data_sets()]
    if unknown or not settings.datasets:
        raise SimulationError(
            f"data sets {settings.datasets}; expected some of {', '.join(data_sets())}"
        )
    if not 0 <= settings.hit_fraction <= 1:
        raise SimulationError(f"hit fraction {settings.hit_fraction}; expected 0 to 1")
    if settings.patterns == "shipped":
        _check_shipped(settings, detector)
    if pattern_sets is not None:
        _check_sets(settings, pattern_sets)


def _check_sets(settings: FrameSettings, pattern_sets: Mapping[str, Sequence[Pattern]]) -> None:
    """Refuse pattern sets that are not used, or that leave a data set without patterns."""
    if settings.patterns != "shipped":
        raise SimulationError('pattern sets are given, but patterns="generator" makes its own')
    for name in settings.datasets:
        if not pattern_sets.get(name):
            raise SimulationError(
                f"no patterns for data set {name}; the sets given are {', '.join(pattern_sets)}"
            )


def _check_shipped(settings: FrameSettings, detector: Detector) -> None:
    """Refuse what the shipped patterns were not made for."""
    fixed = {
        "crystal_um": SHIPPED_CRYSTAL_UM,
        "bandwidth": SHIPPED_BANDWIDTH,
        "photon_energy_eV": None,
        "clen_m": None,
        "mosaicity_deg": 0.0,
        "divergence_ratio": 1.0,
        "radial_stretch": 1.0,
        "crystals": "1IC6",
    }
    for name, value in fixed.items():
        asked = getattr(settings, name)
        if asked != value:
            raise SimulationError(
                f"{name} = {asked}; shipped patterns have {value or 'their own'}; "
                'use patterns="generator"'
            )
    if detector.pixel_size_m != Detector().pixel_size_m:
        raise SimulationError(
            f"shipped patterns are made for 75 um pixels, not {detector.pixel_size_m:g} m; use "
            'patterns="generator"'
        )
