"""Evidence gathered on a GPU: the next batch's maps are copied while this one is judged.

One rule: a batch is judged only when the device has it, and its memory is not reused before the
device is done with it (CUDA streams and events).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from hitfinder.models import device_background, device_scan
from hitfinder.models.device_tables import DeviceTables, stack_maps, tables_on
from hitfinder.models.errors import ModelError
from hitfinder.models.evidence import Evidence
from hitfinder.models.frontend import CellTables, Pooled

BATCH = 4
"""Frames judged together, while the next are copied; a CPU gains nothing from batches."""


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


class DeviceEvidence:
    """Gathers evidence on one GPU.

    Raises:
        ModelError: there is no such device.
    """

    def __init__(self, device: str) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError(f"device {device!r}: no CUDA device is visible; use cpu")
        # What the host still does goes on in the threads of the decoders.
        torch.set_num_threads(1)
        self._device = device
        self._uploader = Uploader(device)
        self._tables: DeviceTables | None = None

    def of(self, pooled: Sequence[Pooled], cells: Sequence[CellTables]) -> Iterator[Evidence]:
        """Yield what each frame's maps hold.

        Args:
            pooled: maps of the frames.
            cells: their tables; frames that follow each other share most of them.
        """
        batches = list(_batches(cells))
        maps = self._uploader.ahead(pooled[batch] for batch in batches)
        for batch, (sums_BHW, maxima_BHW) in zip(batches, maps, strict=True):
            with torch.inference_mode():
                found = gather(sums_BHW, maxima_BHW, self._tables_of(cells[batch.start]))
            yield from found

    def _tables_of(self, cells: CellTables) -> DeviceTables:
        if self._tables is None or self._tables.host is not cells:
            self._tables = tables_on(cells, self._device)
        return self._tables


def gather(
    sums_BHW: torch.Tensor, maxima_BHW: torch.Tensor, tables: DeviceTables
) -> list[Evidence]:
    """Do as `gather_evidence` does with a batch, where its tensors are."""
    found = device_background.estimate(sums_BHW, tables)
    candidates = device_scan.scan(sums_BHW, maxima_BHW, found.mean_BHW, tables).columns()
    columns = found.total_BN, found.counts_BN, found.exposure_BN, torch.stack(candidates, 1)
    total, counts, exposure, rows = (c.cpu().numpy() for c in columns)
    per_px = found.photons_per_px_B.tolist()
    return [Evidence(*of) for of in zip(total, counts, exposure, per_px, rows, strict=True)]


def _batches(cells: Sequence[CellTables]) -> Iterator[slice]:
    """Yield runs of frames that share their tables, in order."""
    start = 0
    for k in range(1, len(cells) + 1):
        if k == len(cells) or cells[k] is not cells[start] or k - start == BATCH:
            yield slice(start, k)
            start = k
