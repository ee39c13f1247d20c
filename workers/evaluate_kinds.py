"""Which settings an evaluation shows besides the main table's.

One rule: kinds are the simulator's presets, named there once for training and evaluation.
"""

from __future__ import annotations

from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.sim.nuisances import Nuisances

JITTER = FrameSettings(thickness_jitter=0.15, center_jitter_px=5.0)


def blank_kinds() -> dict[str, FrameSettings]:
    """Return the kinds of blanks."""
    return {
        "ideal": FrameSettings(),
        "jitter": JITTER,
        "rings": FrameSettings(
            thickness_jitter=0.15, center_jitter_px=5.0, nuisances=Nuisances(rings=3.0)
        ),
        "hot": FrameSettings(n_hot_pixels=5),
        "salt": FrameSettings(
            nuisances=Nuisances(
                stray_spots=2.0, stray_photons=(8.0, 1000.0), stray_sigma_px=(0.0, 4.0)
            )
        ),
    }


def held_out_settings() -> FrameSettings:
    """Return the generator's settings that no training used."""
    return FrameSettings(
        patterns="generator", divergence_mrad=(0.0, 2.5), thickness_jitter=0.25, n_hot_pixels=5
    )


def chance_settings() -> FrameSettings:
    """Return frames as they are drawn for training: half of them hits."""
    return FrameSettings(
        hit_fraction=0.5,
        n_photons=(1e7, 3e8),
        strength=(0.005, 1.0),
        divergence_mrad=(0.0, 2.0),
        thickness_jitter=0.15,
        center_jitter_px=3.0,
    )
