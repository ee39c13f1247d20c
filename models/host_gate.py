"""The gate's network on the host, one frame at a time.

One rule: `GateNet` is the definition. A frame has a few places, for which torch's two dozen small
operations cost more than their arithmetic; here is the same arithmetic, compiled, on the places
that are there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hitfinder.models import _gate
from hitfinder.models.gate import CEILING, FAINTEST, SCALE, TOP, GateNet
from hitfinder.models.places import N_WIDTHS, PLACES

Float = NDArray[np.float32]


class HostGate:
    """What a `GateNet` says now; what it learns later is not seen.

    Args:
        net: its weights are read once.
    """

    def __init__(self, net: GateNet) -> None:
        self._column_F, self._factor_F = net.column_F.numpy(), net.factor_F.numpy()
        self._place, self._any, self._spots3 = (
            _packed(branch) for branch in (net.place_branch, net.any_branch, net.spots3_branch)
        )

    def judge(self, features_KF: Float) -> Float:
        """Return the logits (any, spots3) of a frame with these places, up to `PLACES`."""
        logits = np.empty(2, np.float32)
        self._run(features_KF, logits)
        return logits

    def spot_logits(self, features_KF: Float) -> Float:
        """Return the logits of any number of places that are there."""
        return self._run(features_KF, np.empty(0, np.float32))

    def _run(self, features_KF: Float, logits: Float) -> Float:
        """Fill the frame's logits, unless there is no room for them; return those of places."""
        spots_K = np.empty(len(features_KF), np.float32)
        _gate.judge(
            np.ascontiguousarray(features_KF),
            self._column_F,
            self._factor_F,
            self._place,
            self._any,
            self._spots3,
            (N_WIDTHS, PLACES, TOP),
            (FAINTEST, CEILING, SCALE),
            spots_K,
            logits,
        )
        return spots_K


def _packed(branch: nn.Sequential) -> Float:
    """Return all layers as one array: the weights, inputs first, and the bias of each."""
    linear = [layer for layer in branch if isinstance(layer, nn.Linear)]
    parts = [part.detach().numpy() for m in linear for part in (m.weight.T, m.bias)]
    return np.concatenate([part.ravel() for part in parts])
