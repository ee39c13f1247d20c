"""What frames have taught about a detector: a list that only grows.

One rule: version k of what is known is the first k entries, so a verdict that names its version
can be reached again from the list alone. Entries take pixels away; one kind, `SETTLED`, says from
where on a lone bright pixel is evidence, since the hot ones are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

ENTRY = np.dtype([("pixel", "<i8"), ("edge_px", "<i4"), ("kind", "S8"), ("frame", "<i8")])
"""A square of pixels: flat index of its first, its edge, what it is, and the frame that taught it;
-1 for a frame of an earlier series. A square that leaves the detector is cut."""

Entries = NDArray[np.void]


class Kind(StrEnum):
    """What an entry says of its pixels."""

    HOT = "hot"  # bright without photons
    DEAD = "dead"  # no counts where the rings promise many
    SHADOW = "shadow"  # less than half of what the rings promise
    SETTLED = "settled"  # of none: what is hot is known from here on


def entries(
    kind: Kind, pixels: NDArray[np.integer] | Sequence[int], edge_px: int, frame: int
) -> Entries:
    """Return entries of one kind, dtype `ENTRY`, shape (pixels,)."""
    made = np.zeros(len(pixels), ENTRY)
    made["pixel"], made["edge_px"], made["kind"], made["frame"] = pixels, edge_px, kind, frame
    return made


def no_entries() -> Entries:
    """Return what is known before the first frame."""
    return np.zeros(0, ENTRY)


def is_settled(known: Entries) -> bool:
    """Return whether the hot pixels are known at this version."""
    return bool((known["kind"] == Kind.SETTLED.encode()).any())


def hot_before(known: Entries) -> Entries:
    """Return what the next series on the same detector starts from.

    Hot pixels stay hot. What was dark may have been a shadow, and shadows move with what casts
    them; frames show them again soon enough.
    """
    lasting = known[np.isin(known["kind"], (Kind.HOT.encode(), Kind.SETTLED.encode()))].copy()
    lasting["frame"] = -1
    return lasting


def for_more_pixels(known: Entries) -> Entries:
    """Return what stays known where a mask gives pixels back, whose hot ones are to be found."""
    return np.asarray(known[known["kind"] != Kind.SETTLED.encode()])


def pixels_of(known: Entries, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the flat indices that entries take away, rising, each once.

    Args:
        known: entries.
        shape: (ss, fs) of the detector.
    """
    squares = known[known["edge_px"] > 0]
    found = [np.zeros(0, np.int64)]
    for edge in np.unique(squares["edge_px"]).tolist():
        row, column = np.divmod(squares["pixel"][squares["edge_px"] == edge], shape[1])
        span = np.arange(edge)
        rows, columns = row[:, None, None] + span[:, None], column[:, None, None] + span
        inside = (rows < shape[0]) & (columns < shape[1])
        found.append((rows * shape[1] + columns)[inside])
    return np.unique(np.concatenate(found))
