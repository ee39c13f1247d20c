"""What turns the gate's logits into probabilities, and false-positive rates into thresholds.

One rule: it needs no torch, so that a process that judges nothing can say what a rate means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import weights_file
from hitfinder.models.errors import ModelError


class GateMode(StrEnum):
    """What counts as a hit; config key `gate.mode`."""

    ANY = "any"  # one spot is enough: most sensitive
    SPOTS3 = "spots3"  # at least three spots: salt and scatter make one or two


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What turns logits into probabilities and rates into thresholds.

    Attributes:
        slope: float64 (2,), Platt slope of (any, spots3).
        offset: float64 (2,), Platt offset.
        blank_scores: float32 (n,) for any and for spots3: calibrated logits of blanks, rising.
        spot: float64 (2,), Platt offset and slope of a place's logit in a hit.
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    blank_scores: tuple[NDArray[np.float32], NDArray[np.float32]]
    spot: NDArray[np.float64]

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the calibration among the arrays of a weights file.

        Raises:
            KeyError: there is none.
        """
        return cls(
            slope=arrays["calibration.slope"],
            offset=arrays["calibration.offset"],
            blank_scores=(
                arrays["calibration.blank_scores_any"],
                arrays["calibration.blank_scores_spots3"],
            ),
            spot=arrays["calibration.spot"],
        )

    def scores(self, logits_B2: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return calibrated logits."""
        return np.asarray(logits_B2 * self.slope + self.offset)

    def threshold(self, mode: GateMode, max_false_positive_rate: float) -> float:
        """Return the probability above which at most this share of blanks lies.

        Raises:
            ModelError: the rate is not in (0, 1], or the table has too few blanks for it.
        """
        if not 0 < max_false_positive_rate <= 1:
            raise ModelError(
                f"max_false_positive_rate is {max_false_positive_rate}; expected above 0, up to 1"
            )
        table = self.blank_scores[list(GateMode).index(mode)]
        n_allowed = int(max_false_positive_rate * (len(table) + 1))
        if n_allowed < 1:
            raise ModelError(
                f"max_false_positive_rate {max_false_positive_rate:g} cannot be told from "
                f"{len(table)} calibration blanks; ask for at least {1 / (len(table) + 1):.2g} "
                "or train with more blanks"
            )
        if n_allowed > len(table):
            return -1.0  # every frame passes
        return float(sigmoid(np.float64(table[-n_allowed])))

    def spot_probability(self, spot_logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of places of a hit to be a Bragg spot."""
        return np.asarray(sigmoid(self.spot[0] + self.spot[1] * spot_logits), np.float32)


def sigmoid(x: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64))))


def load_calibration(path: Path | None = None) -> Calibration:
    """Read the calibration alone of a weights file; None for the shipped one.

    Raises:
        ModelError: as `weights_file.read`, or it holds no calibration.
    """
    found = weights_file.read(path)
    try:
        return Calibration.of_arrays(found.arrays)
    except KeyError as error:
        raise ModelError(f"weights {path}: no array {error}") from error
