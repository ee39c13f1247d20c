"""The gate's network on the host, one frame at a time.

One rule: `GateNet` is the definition. A frame has a few places, for which torch's two dozen small
operations cost more than their arithmetic; here is the same arithmetic in numpy, on the places
that are there.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import nn

from hitfinder.models.gate import CEILING, FAINTEST, SCALE, TOP, GateNet
from hitfinder.models.places import N_WIDTHS, PLACES

Float = NDArray[np.float32]
LOG_WIDTHS = np.float32(math.log(N_WIDTHS))


class HostGate:
    """What a `GateNet` says now; what it learns later is not seen.

    Args:
        net: its weights are read once.
    """

    def __init__(self, net: GateNet) -> None:
        self._column_F, self._factor_F = net.column_F.numpy(), net.factor_F.numpy()
        self._place, self._any, self._spots3 = (
            _layers(branch) for branch in (net.place_branch, net.any_branch, net.spots3_branch)
        )

    def judge(self, features_KF: Float) -> Float:
        """Return the logits (any, spots3) of a frame with these places, up to `PLACES`."""
        spot_K = np.full(PLACES, FAINTEST, np.float32)
        spot_K[: len(features_KF)] = self.spot_logits(features_KF)
        best_T = np.sort(spot_K)[: -TOP - 1 : -1]
        scaled_T = best_T / np.float32(SCALE)
        total = np.logaddexp(np.float32(0), spot_K).sum()
        any_ = np.log(np.expm1(np.clip(total, np.float32(1e-12), np.float32(CEILING))))
        return np.array(
            (
                any_ + _run(self._any, scaled_T)[0],
                best_T[2] + _run(self._spots3, scaled_T[2:])[0],
            ),
            np.float32,
        )

    def spot_logits(self, features_KF: Float) -> Float:
        """Return the logits of any number of places that are there."""
        seen_KF = features_KF[:, self._column_F] * self._factor_F
        ratio_KW = seen_KF[:, 1 : 1 + N_WIDTHS]
        top_K1 = ratio_KW.max(1, keepdims=True)
        ratio_K = top_K1[:, 0] + np.log(np.exp(ratio_KW - top_K1).sum(1)) - LOG_WIDTHS
        spot_K = ratio_K + _run(self._place, seen_KF)[:, 0]
        return np.asarray(np.clip(spot_K, FAINTEST, CEILING), np.float32)


def _layers(branch: nn.Sequential) -> list[tuple[Float, Float]]:
    """Return each layer's weights, inputs first, and its bias."""
    linear = [layer for layer in branch if isinstance(layer, nn.Linear)]
    return [
        (np.ascontiguousarray(m.weight.detach().numpy().T), m.bias.detach().numpy().copy())
        for m in linear
    ]


def _run(layers: list[tuple[Float, Float]], x: Float) -> Float:
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, np.float32(0))
    weight, bias = layers[-1]
    return np.asarray(x @ weight + bias)
