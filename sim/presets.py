"""Named settings: what a gate is trained on, what is kept back, and the kinds of blanks.

One rule: a preset is complete but for the share of hits, the flux and the data sets, which a
caller sets by `dataclasses.replace`; names and numbers of the blanks are physics.md's and the gate
study's. `HELD_OUT` takes values that `TRAINING` never draws.
"""

from __future__ import annotations

from hitfinder.sim.defects import Defects
from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.sim.nuisances import Nuisances
from hitfinder.sim.physics import data_sets

ALL_SETS = tuple(data_sets())

TRAINING_GROUPS = (
    "P 1",
    "P 1 21 1",
    "C 1 2 1",
    "P 21 21 21",
    "I 2 2 2",
    "P 4",
    "P 43 21 2",
    "P 3",
    "P 31 2 1",
    "P 63",
    "P 61 2 2",
    "P 21 3",
    "P 4 3 2",
)
HELD_OUT_GROUPS = ("C 2 2 21", "P 21 21 2", "I 4", "P 41 2 2", "H 3", "H 3 2", "I 2 3", "F 4 3 2")

# Energy and length drawn freely; set both to None for the nine data sets.
TRAINING = FrameSettings(
    datasets=ALL_SETS,
    photon_energy_eV=(5000.0, 10000.0),
    clen_m=(0.1, 0.5),
    hit_fraction=0.5,
    n_photons=(1e7, 3e8),
    strength=(0.1, 1.0),
    crystal_um=(1.0, 20.0),
    divergence_mrad=(0.0, 3.0),
    bandwidth=(0.001, 0.05),
    mosaicity_deg=(0.0, 0.15),
    divergence_ratio=(0.6, 1.6),
    radial_stretch=(1.0, 1.8),
    n_crystals=(1, 2),
    crystals="both",
    cell_A=(40.0, 200.0),
    space_groups=TRAINING_GROUPS,
    thickness=(0.6, 1.4),
    center_shift_px=(0.0, 10.0),
    horizontal_polarization=(0.5, 1.0),
    nuisances=Nuisances(
        streak_photons=(0.0, 2000.0),
        rings=(0.0, 1.0),
        halo_photons=(0.0, 1000.0),
        ice_photons=(0.0, 1000.0),
    ),
    defects=Defects(dead_pixels=20, beam_stop_px=(10.0, 40.0)),
    patterns="generator",
    kind="training",
)

HELD_OUT = FrameSettings(
    datasets=ALL_SETS,
    hit_fraction=0.5,
    crystal_um=(8.0, 12.0),
    divergence_mrad=(0.0, 1.5),
    bandwidth=(0.005, 0.02),
    mosaicity_deg=(0.2, 0.4),
    divergence_ratio=(1.8, 2.5),
    radial_stretch=(2.0, 2.5),
    n_crystals=(1, 3),
    crystals="random",
    cell_A=(50.0, 160.0),
    space_groups=HELD_OUT_GROUPS,
    thickness=(1.5, 2.0),
    center_shift_px=(12.0, 25.0),
    horizontal_polarization=(0.0, 0.4),
    nuisances=Nuisances(halo_photons=(1000.0, 3000.0)),  # for streaks see STRONG_STREAK
    defects=Defects(dead_pixels=200, dead_rows=2, beam_stop_px=60.0, shadow_px=(100.0, 300.0)),
    patterns="generator",
    kind="held_out",
)

IDEAL = FrameSettings(datasets=ALL_SETS, kind="ideal")
JITTER = FrameSettings(
    datasets=ALL_SETS, thickness=(0.7, 1.3), center_shift_px=(0.0, 10.0), kind="jitter"
)
RINGS = FrameSettings(
    datasets=ALL_SETS,
    thickness=(0.7, 1.3),
    center_shift_px=(0.0, 10.0),
    nuisances=Nuisances(rings=1.0, rings_at_least=1),
    kind="rings",
)
# Five hot pixels, where they are through the whole of a source.
HOT = FrameSettings(datasets=ALL_SETS, n_hot_pixels=5, kind="hot")
SALT = FrameSettings(datasets=ALL_SETS, nuisances=Nuisances(salt_spots=(1, 2)), kind="salt")
STREAK = FrameSettings(
    datasets=ALL_SETS,
    thickness=(0.7, 1.3),
    center_shift_px=(0.0, 10.0),
    nuisances=Nuisances(streak_photons=(0.0, 2000.0)),
    kind="streak",
)
# Brighter, and in directions that no training draws.
STRONG_STREAK = FrameSettings(
    datasets=ALL_SETS,
    nuisances=Nuisances(streak_photons=(2000.0, 4000.0), streak_angle_deg=(20.0, 60.0)),
    kind="strong_streak",
)
ICE = FrameSettings(
    datasets=ALL_SETS,
    nuisances=Nuisances(ice_photons=(200.0, 5000.0), ice_spots=(0.0, 10.0)),
    kind="ice",
)

BLANK_KINDS = {
    settings.kind: settings
    for settings in (IDEAL, JITTER, RINGS, HOT, SALT, STREAK, STRONG_STREAK, ICE)
}
