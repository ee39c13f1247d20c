"""Frames to learn from: the places of each, and what is true of them.

One rule: a hit and its twin, the same water without its crystal, carry the same `pair`; whoever
splits or batches frames keeps them together, so no part holds the twin of another part's frame.

Suffixes: B frames, K places, F features of a place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.errors import ModelError


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrames:
    """Places of frames with their truth.

    Attributes:
        places_BKF: float32, as `places` gives them.
        is_hit: bool (B,), a crystal was in the beam.
        has_3_spots: bool (B,), at least three spots of 3 expected photons.
        has_decoys: bool (B,), hot pixels nobody knows of or stray spots: one such spot cannot be
            told from a weak hit's, so these frames teach only the output that withstands them.
        spot_label_BK: int8, 1 where photons of the crystal make the place, 0 where none of them
            came near, -1 where nobody can say or there is no place.
        pair: int64 (B,), see above.
    """

    places_BKF: NDArray[np.float32]
    is_hit: NDArray[np.bool_]
    has_3_spots: NDArray[np.bool_]
    has_decoys: NDArray[np.bool_]
    spot_label_BK: NDArray[np.int8]
    pair: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.is_hit)

    def __getitem__(self, chosen: NDArray[np.generic] | slice) -> LabelledFrames:
        """Return the frames that a mask, an index array or a slice chooses."""
        return LabelledFrames(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def labels_B2(self) -> NDArray[np.float32]:
        """Return what is true for (any, spots3)."""
        return np.stack((self.is_hit, self.has_3_spots), axis=1).astype(np.float32)

    def weights_B2(self) -> NDArray[np.float32]:
        """Return 0 where an output does not look, else 1.

        Hits of one or two spots are neither one nor the other to spots3.
        """
        unclear = self.is_hit & ~self.has_3_spots
        return np.stack((~self.has_decoys, ~unclear), axis=1).astype(np.float32)

    def sha256(self) -> str:
        """Return a hash of all columns."""
        digest = hashlib.sha256()
        for f in fields(self):
            digest.update(np.ascontiguousarray(getattr(self, f.name)).tobytes())
        return digest.hexdigest()


def joined(parts: Sequence[LabelledFrames]) -> LabelledFrames:
    """Return the frames of all parts in order.

    Raises:
        ModelError: there are none.
    """
    if not parts:
        raise ModelError("no frames to learn from; draw some")
    names = [f.name for f in fields(LabelledFrames)]
    return LabelledFrames(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))
