"""Frames that nobody has seen yet, from a pool of packed ones.

One rule: every frame shown is another one, as on a detector: what new frames teach costs time,
and a frame that was seen teaches nothing. A frame is the blocks of one of the pool and, from a
block in its second half on, those of another of the same data set, a blank where there is one; so
it is a hit if the first is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hitfinder.sim.encoding import EncodedImage
from hitfinder.stream import bslz4
from hitfinder.stream.messages import Blob, Codec

TURNS = 13
"""How often a data set's frames are shown before the next one's turn: a detector's settings do
not change from frame to frame, and what is expected is made anew when the brightness does."""
STRIDE = 101
"""From one join to the next, in blocks: prime, so that all come before one comes again."""
LENGTH_BYTES = 4
"""Of the word before each block."""


@dataclass(frozen=True, slots=True)
class _Packed:
    image: EncodedImage
    starts: list[int]  # where each block begins, its length word included


class JoinedFrames:
    """A pool's frames, joined.

    Args:
        images: packed by bitshuffle-LZ4, of one shape and type.
        group: which of them belong together: data set of each.
        is_hit: whether each is one.
    """

    def __init__(
        self, images: Sequence[EncodedImage], group: Sequence[int], is_hit: Sequence[bool]
    ) -> None:
        self._pool = [_Packed(image, _block_starts(image)) for image in images]
        self._order: list[tuple[int, int]] = []  # frame of the pool, turn
        self._others: dict[int, list[int]] = {}
        for name in sorted(set(group)):
            own = [k for k, g in enumerate(group) if g == name]
            self._order += [(k, turn) for turn in range(TURNS) for k in own]
            blanks = [k for k in own if not is_hit[k]]
            for k in own:
                alike = blanks or own
                self._others[k] = [other for other in alike if other != k] or [k]

    def __call__(self, frame: int) -> EncodedImage:
        """Return what is shown as a series' frame of this number."""
        cycle, at = divmod(frame, len(self._order))
        k, turn = self._order[at]
        n_shown, own, others = cycle * TURNS + turn, self._pool[k], self._others[k]
        n_second = len(own.starts) - len(own.starts) // 2
        join = len(own.starts) // 2 + n_shown * STRIDE % n_second
        other = self._pool[others[n_shown // n_second % len(others)]]
        first, second = own.image.payload, other.image.payload
        payload = first[: own.starts[join]] + second[other.starts[join] :]
        # A digest would cost the sender more than the join, and stream V2 has none.
        return replace(own.image, payload=payload, md5="")


def _block_starts(image: EncodedImage) -> list[int]:
    payload = memoryview(image.payload)
    itemsize = {"uint8": 1, "uint16": 2, "uint32": 4}[image.dtype]
    blob = Blob("", image.shape, image.dtype, Codec.BSLZ4, itemsize, payload)
    starts = bslz4.block_table(blob)[:, 0] - LENGTH_BYTES
    return [int(start) for start in starts]
