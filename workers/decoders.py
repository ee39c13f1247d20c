"""Frames on their way to be judged: reduced by threads, handed out in the order they came in.

One rule: a frame is reduced with the mask as it is when the frame is planned; what is learned in
between is taken out of its maps before it is judged.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from hitfinder.models.frontend import Pooled
from hitfinder.models.image import Image, Mask
from hitfinder.models.series_context import SeriesContext
from hitfinder.stream.messages import Blob
from hitfinder.workers.geometry import SeriesGeometry
from hitfinder.workers.knowledge import Knowledge
from hitfinder.workers.reduction import FrameReduction, reductions_on


class Terms:
    """What frames of one series, header, shape and mask are judged by.

    Attributes:
        version: of the series' header.
    """

    def __init__(
        self,
        version: int,
        geometry: SeriesGeometry,
        context: SeriesContext,
        knowledge: Knowledge,
    ) -> None:
        self.version, self.geometry, self.context = version, geometry, context
        self.knowledge = knowledge

    def mask(self) -> tuple[Mask, int]:
        """Return the pixels that count now, and the version of what was learned."""
        return self.context.mask, self.context.series.version


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A frame that is being reduced, or is.

    Attributes:
        slot: where it lies in the ring.
        terms: what it is judged by.
    """

    slot: int
    terms: Terms
    n_learned: int
    reduction: FrameReduction
    done: Future[None]

    def wait(self) -> tuple[Image, Pooled]:
        """Return image and maps as of now, borrowed until the frame is given back.

        Raises:
            WireError: its bytes do not follow their format.
        """
        self.done.result()
        image, pooled = self.reduction.image, self.reduction.pooled
        return image, self.terms.context.pooled_now(image, pooled, self.n_learned)


class Decoders:
    """Threads that reduce frames ahead of the one that judges.

    Args:
        n_threads: frames reduced at the same time.
        device: where; `cpu` or `cuda:N`.

    Attributes:
        planned: frames that wait here, oldest first.
    """

    def __init__(self, n_threads: int, device: str) -> None:
        self.planned: deque[Planned] = deque()
        self._threads = ThreadPoolExecutor(n_threads, "decoder")
        self._new_reduction = reductions_on(device)
        self._unused: list[FrameReduction] = []

    def plan(self, slot: int, blob: Blob, terms: Terms) -> None:
        """Have a frame reduced; its bytes must stay where they are until it is given back."""
        mask, n_learned = terms.mask()
        reduction = self._memory(blob)
        done = self._threads.submit(reduction.take, blob, mask)
        self.planned.append(Planned(slot, terms, n_learned, reduction, done))

    def take(self, n: int) -> list[Planned]:
        """Return the n oldest frames, or as many as there are."""
        return [self.planned.popleft() for _ in range(min(n, len(self.planned)))]

    def give_back(self, frames: list[Planned]) -> None:
        """Let the memory of frames that are done be used again."""
        self._unused += [frame.reduction for frame in frames]

    def _memory(self, blob: Blob) -> FrameReduction:
        while self._unused:
            found = self._unused.pop()
            if (found.shape, found.dtype) == (blob.shape, blob.dtype):
                return found
        return self._new_reduction(blob.shape, blob.dtype)
