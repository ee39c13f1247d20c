"""The gate's network on the host, one frame at a time.

One rule: `gate.GateNet` is the definition. A frame has a few places, for which torch's two dozen
small operations cost more than their arithmetic, and loading torch more than all the rest of a
worker's start; here is the same arithmetic, compiled, on the places that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import _gate
from hitfinder.models.places import N_FEATURES, N_WIDTHS, PLACES

HIDDEN = 16
TOP = 8
"""Best places that the frame's correction looks at."""
FAINTEST, CEILING = -30.0, 60.0
"""Of a logit: less is "no place", more tells nothing new."""
SCALE = 5.0
"""Logits are divided by this for the network."""

Float = NDArray[np.float32]
NetArrays = Mapping[str, NDArray[Any]]
"""A network's weights by their names."""


class HostGate:
    """The network as it judges.

    Args:
        arrays: its weights, `GateNet.arrays`.

    Raises:
        KeyError: one is missing.
        ValueError: one has another shape, is not finite, or names a column that there is not.
    """

    def __init__(self, arrays: NetArrays) -> None:
        self._column_F = _of_shape(arrays, "column_F", (N_FEATURES,)).astype(np.int64)
        self._factor_F = _of_shape(arrays, "factor_F", (N_FEATURES,)).astype(np.float32)
        if not 0 <= self._column_F.min() <= self._column_F.max() < N_FEATURES:
            raise ValueError("columns of a place that there are not")
        self._place = _packed(arrays, "place_branch", N_FEATURES)
        self._any = _packed(arrays, "any_branch", TOP)
        self._spots3 = _packed(arrays, "spots3_branch", TOP - 2)

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


def _packed(arrays: NetArrays, branch: str, n_inputs: int) -> Float:
    """Return all layers as one array: the weights, inputs first, and the bias of each."""
    parts = []
    for layer, n_in, n_out in ((0, n_inputs, HIDDEN), (2, HIDDEN, HIDDEN), (4, HIDDEN, 1)):
        weight = _of_shape(arrays, f"{branch}.{layer}.weight", (n_out, n_in))
        parts += [weight.T.ravel(), _of_shape(arrays, f"{branch}.{layer}.bias", (n_out,))]
    return np.concatenate(parts).astype(np.float32)


def _of_shape(arrays: NetArrays, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    found = arrays[name]
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"{name} {found.shape}; expected finite numbers of shape {shape}")
    return found
