"""Which settings an evaluation shows besides the main table's: the simulator's presets.

One rule: a preset is changed only where a series needs it: nine data sets, for a plan has one;
hot pixels where the gate must live with them; seeds that no training used.
"""

from __future__ import annotations

from dataclasses import replace

from hitfinder.sim import presets
from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.workers.evaluate_plans import N_HOT_PIXELS


def blank_kinds() -> dict[str, FrameSettings]:
    """Return the kinds of blanks by name."""
    return dict(presets.BLANK_KINDS)


def held_out_settings() -> FrameSettings:
    """Return the generator's settings that no training used, at the normal flux."""
    return replace(presets.HELD_OUT, n_hot_pixels=N_HOT_PIXELS)


def chance_settings() -> FrameSettings:
    """Return frames as they are drawn for training, half of them hits."""
    return replace(presets.TRAINING, photon_energy_eV=None, clen_m=None)
