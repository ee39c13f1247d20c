"""The face of a reference, and the list of those that can run here.

One rule: a reference gives a frame one number, higher for what looks more like a hit, and is free
in how it gets there. Thresholds are set outside, on the same blanks for all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.geometry import Geometry

__all__ = ["Reference", "references"]


class Reference(Protocol):
    """Scores frames of one series after another.

    Attributes:
        name: for tables.
        needs_truth: wants the noise-free image, so it can never run live.
    """

    name: str
    needs_truth: bool

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> None:
        """Start a series.

        Args:
            geometry: stated geometry.
            valid: bool (ss, fs), True where a pixel counts.

        Raises:
            ModelError: trained for a detector of another shape.
        """

    def score(
        self, image: NDArray[np.unsignedinteger], noise_free: NDArray[np.float32] | None
    ) -> float:
        """Return how much one frame looks like a hit.

        Args:
            image: uint8, uint16 or uint32 (ss, fs), photons; the type's largest value is no count.
            noise_free: float32 (ss, fs), expected Bragg photons of this frame, zeros for a blank;
                looked at only where `needs_truth`.
        """


def references(folder: Path | None) -> list[Reference]:
    """Return every reference that can run: untrained ones first, then those in a folder.

    Args:
        folder: of weights by `python -m hitfinder.workers.train_references`; None for none.

    Raises:
        ModelError: weights in the folder that their cards do not vouch for.
    """
    from hitfinder.models.references.classifiers import CLASSIFIERS
    from hitfinder.models.references.heatmap import HEATMAP
    from hitfinder.models.references.probixi import ProbixiReference, is_importable
    from hitfinder.models.references.stored import is_stored
    from hitfinder.models.references.trained import TrainedReference
    from hitfinder.models.references.untrained import ScanReference, peak_finders

    found: list[Reference] = [ScanReference(), *peak_finders()]
    if is_importable():
        found.append(ProbixiReference())
    if folder is not None:
        names = (*CLASSIFIERS, HEATMAP)
        found += [TrainedReference(folder, name) for name in names if is_stored(folder, name)]
    return found
