"""Pooled maps on their way to the device: the next batch's copy runs while this one is judged.

One rule: a batch is handed out only when the device will have it, and its memory is not reused
before the device is done with it (CUDA streams and events). On a CPU there is nothing to copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from hitfinder.models.frontend import Pooled, stack_maps


@dataclass(frozen=True, slots=True)
class _Upload:
    sums_BHW: torch.Tensor
    maxima_BHW: torch.Tensor
    arrived: torch.cuda.Event | None


class Uploader:
    """Copies batches to one device, on a stream of its own where the device is a GPU."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._copies: torch.cuda.Stream | None = None
        if device.startswith("cuda"):
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def ahead(
        self, batches: Iterable[Sequence[Pooled]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (sums_BHW, maxima_BHW), float32, of each batch; the next one is already coming."""
        coming: _Upload | None = None
        for batch in batches:
            following = self._start(batch)
            if coming is not None:
                yield self._receive(coming)
            coming = following
        if coming is not None:
            yield self._receive(coming)

    def _start(self, batch: Sequence[Pooled]) -> _Upload:
        if self._copies is None:
            return _Upload(*stack_maps(batch, self._device), None)
        with torch.cuda.stream(self._copies):
            maps = stack_maps(batch, self._device)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._copies)
        return _Upload(*maps, arrived)

    def _receive(self, upload: _Upload) -> tuple[torch.Tensor, torch.Tensor]:
        maps = upload.sums_BHW, upload.maxima_BHW
        if upload.arrived is not None:
            judging = torch.cuda.current_stream(self._device)
            judging.wait_event(upload.arrived)
            for tensor in maps:
                tensor.record_stream(judging)
        return maps
