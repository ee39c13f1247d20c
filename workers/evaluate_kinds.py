"""Which settings an evaluation shows besides the main table's: the simulator's presets.

One rule: a preset is changed only where a series needs it: nine data sets, for a plan has one;
hot pixels where the gate must live with them; seeds that no training used.
"""

from __future__ import annotations

from dataclasses import replace

from hitfinder.sim import presets
from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.sim.nuisances import Nuisances
from hitfinder.workers.evaluate_plans import N_HOT_PIXELS


def blank_kinds() -> dict[str, FrameSettings]:
    """Return the kinds of blanks by name."""
    return dict(presets.BLANK_KINDS)


def held_out_settings() -> FrameSettings:
    """Return the generator's settings that no training used, at the normal flux."""
    return replace(presets.HELD_OUT, n_hot_pixels=N_HOT_PIXELS)


def chance_settings() -> FrameSettings:
    """Return what a clean beam shows: half of the frames hits of all strengths and widths,
    some powder rings, hot pixels that the series learns.
    """
    return replace(
        presets.JITTER,
        nuisances=Nuisances(rings=0.5),
        n_hot_pixels=N_HOT_PIXELS,
        hit_fraction=0.5,
        strength=(0.001, 1.0),
        divergence_mrad=(0.0, 2.5),
        patterns="generator",
        kind="chance",
    )
