"""Kinds of evidence that a gate can be trained without, to measure what each brings.

One rule: what is taken away is a choice of columns that the network itself carries, so weights
trained without something are judged without it, by the same pipeline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import torch

from hitfinder.models.gate import GateNet
from hitfinder.models.places import FEATURES, N_FEATURES, N_WIDTHS


class Evidence(StrEnum):
    """A kind of evidence that can be taken away."""

    SCALES = "scales"  # all widths of a spot but the narrowest
    PATCHES = "patches"  # the refinement at full resolution: the scan's evidence stands in
    SURROUNDINGS = "surroundings"  # background, radius and intensity of a place


SURROUNDINGS = (
    "log10_background_per_px",
    "radius_kpx",
    "log10_intensity",
    "log10_background_raised",
)


def take_away(net: GateNet, evidence: Sequence[Evidence]) -> None:
    """Make a network blind to this evidence, in place."""
    ratios = range(1, 1 + N_WIDTHS)
    source, scale = list(range(N_FEATURES)), net.factor_F.tolist()
    if Evidence.SCALES in evidence:
        for column in ratios:
            source[column] = ratios[0]
    if Evidence.PATCHES in evidence:
        for column in ratios:
            source[column], scale[column] = FEATURES.index("evidence"), math.log(10)
    if Evidence.SURROUNDINGS in evidence:
        for name in SURROUNDINGS:
            scale[FEATURES.index(name)] = 0.0
    net.column_F.copy_(torch.tensor(source))
    net.factor_F.copy_(torch.tensor(scale))
