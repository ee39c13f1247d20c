"""The gate as a frame meets it: one model's network and calibration, read in one mode.

One rule: it is whole and unchanging, so the model in force is changed by putting another in its
place, and two can judge the same places side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.calibration import GateMode, sigmoid
from hitfinder.models.host_gate import HostGate
from hitfinder.models.weights import Weights

Float = NDArray[np.float32]


class Probabilities(NamedTuple):
    """What a gate says of a frame: `hit` is `any` or `spots3`, as its mode says."""

    hit: float
    any: float
    spots3: float


class FrameGate:
    """Says how probable a hit is, from what was seen at a frame's places.

    Args:
        weights: of one model.
        mode: which probability decides.

    Attributes:
        model_id: as in `Weights`.
        calibration: of the model.
    """

    def __init__(self, weights: Weights, mode: GateMode) -> None:
        self.model_id, self.calibration, self._mode = weights.model_id, weights.calibration, mode
        self._net = HostGate(weights.net)

    def judge(self, features_KF: Float) -> Probabilities:
        """Return the probabilities of a frame with these places."""
        scores = self.calibration.scores(self._net.judge(features_KF))
        p_any, p_spots3 = (float(p) for p in sigmoid(scores))
        p_hit = p_any if self._mode is GateMode.ANY else p_spots3
        return Probabilities(p_hit, p_any, p_spots3)

    def spots(self, features_KF: Float) -> Float:
        """Return the probability of each place of a hit to be a Bragg spot, (K,)."""
        return self.calibration.spot_probability(self._net.spot_logits(features_KF))
