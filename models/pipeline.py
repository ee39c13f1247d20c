"""The pipeline: frames in, judgements out. Peaks first; only if present energy, then clen.

One rule: a frame is judged by itself and the series' stated tables, so a batch gives what one by
one gives, and a frame judged again after a restart gets the same verdict. The header's energy
and camera length are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models import background, heads, scan, weights
from hitfinder.models.errors import ModelError
from hitfinder.models.frontend import (
    CELL_PX,
    CellTables,
    Pooled,
    cell_tables,
    pool_frame,
)
from hitfinder.models.gate import GateMode, Places, features, merge, sigmoid
from hitfinder.models.geometry import Geometry
from hitfinder.models.judgement import Judgement
from hitfinder.models.spots import MAX_PEAKS, Spots, locate, no_spots
from hitfinder.models.uploads import Uploader

__all__ = ["Evidence", "Image", "Judgement", "Pipeline", "SeriesContext", "gather_evidence"]

Image = NDArray[np.unsignedinteger]
FEW_SATURATED = 64
"""Up to this many overflowed pixels the exposure of their cells is not worth correcting."""
MIN_EVIDENCE = 1.0
"""Positions are given for places that chance makes in less than one frame of ten, per scale."""
CUDA_BATCH = 4
"""Frames judged together on a GPU, while the next are copied; a CPU gains nothing from batches."""


class SeriesContext:
    """What the frames of one series share: geometry, mask and the tables made from them."""

    def __init__(
        self, geometry: Geometry, valid: NDArray[np.bool_], weights: weights.Weights, device: str
    ) -> None:
        self.geometry, self.valid = geometry, valid
        self.cells = cell_tables(geometry, valid, device)
        self.heads = heads.head_tables(weights.water, self.cells, geometry.pixel_size_m[0])
        self._device = device
        self.valid_YX = torch.from_numpy(np.array(valid)).to(device)
        self._stuck: NDArray[np.intp] | None = None
        self._stuck_cells = self.cells

    def cells_of(self, image: Image, n_saturated: int) -> CellTables:
        """Return the tables for a frame, without its saturated pixels if they are many.

        A module gap that no mask names reads the largest value in every frame; the tables of the
        last such pattern are kept, and used only where a frame repeats it exactly.
        """
        if n_saturated <= FEW_SATURATED:
            return self.cells
        top = np.iinfo(image.dtype).max
        known = self._stuck
        if known is not None and len(known) == n_saturated:
            if bool((image.ravel()[known] == top).all()):
                return self._stuck_cells
        saturated = (image == top) & self.valid
        self._stuck = np.flatnonzero(saturated)
        self._stuck_cells = cell_tables(self.geometry, self.valid & ~saturated, self._device)
        return self._stuck_cells


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a batch of pooled maps holds before anything learned looks at it."""

    sums: torch.Tensor
    background: background.Background
    candidates: scan.Candidates
    features: torch.Tensor


def gather_evidence(
    sums_BHW: torch.Tensor, maxima_BHW: torch.Tensor, cells: CellTables
) -> Evidence:
    """Estimate backgrounds and scan; the part of the pipeline that training shares."""
    expected = background.estimate(sums_BHW, cells)
    found = scan.scan(sums_BHW, maxima_BHW, expected.mean_BHW, cells)
    return Evidence(sums_BHW, expected, found, features(found))


class Pipeline:
    """Judges frames.

    Args:
        weights: loaded weights, a path, or None for the shipped ones.
        device: "cpu", "cuda" or "cuda:N".
        mode: "any" or "spots3"; which probability decides.
        max_false_positive_rate: share of blanks like the calibration's that may pass.
        threshold: of p_hit; None takes it from the false-positive rate.

    Raises:
        ModelError: unusable weights, a rate that the calibration cannot tell, or no such device.
    """

    def __init__(
        self,
        weights: weights.Weights | Path | str | None = None,
        device: str = "cpu",
        mode: str = "any",
        max_false_positive_rate: float = 1e-3,
        threshold: float | None = None,
    ) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError(f"device {device!r}: no CUDA device is visible; use cpu")
        if mode not in list(GateMode):
            raise ModelError(f"mode {mode!r}; expected one of {', '.join(GateMode)}")
        self.weights = _resolve(weights)
        self.device, self.mode = device, GateMode(mode)
        self.model_id = self.weights.model_id
        if threshold is None:
            threshold = self.weights.calibration.threshold(self.mode, max_false_positive_rate)
        self.threshold = float(threshold)
        self._net = self.weights.net.to(device)
        self._uploader = Uploader(device)

    def begin(self, geometry: Geometry, valid: NDArray[np.bool_]) -> SeriesContext:
        """Prepare a series: takes a few tenths of a second for 4 million pixels.

        Args:
            geometry: stated geometry; energy and clen in it are not used.
            valid: bool (ss, fs), True where a pixel counts.
        """
        return SeriesContext(geometry, valid, self.weights, self.device)

    def judge(
        self,
        images: Sequence[Image],
        context: SeriesContext,
        pooled: Sequence[Pooled] | None = None,
    ) -> list[Judgement]:
        """Judge frames of one series.

        Args:
            images: each (ss, fs) uint8, uint16 or uint32 counts; only read.
            context: of their series.
            pooled: their pooled maps, if somebody has made them already.

        Raises:
            ModelError: an image or map of another shape than the series'.
        """
        for image in images:
            if image.shape != context.geometry.shape:
                raise ModelError(
                    f"image {image.shape}; expected (ss, fs) = {context.geometry.shape}: begin a "
                    "new series for another shape"
                )
        if pooled is None:
            pooled = [pool_frame(image, context.valid_YX) for image in images]
        _check_maps(pooled, len(images), context)
        judged: list[Judgement] = []
        batches = list(self._batches(images, pooled, context))
        with torch.inference_mode():
            maps = self._uploader.ahead([pooled[k] for k in batch] for batch, _ in batches)
            for (batch, cells), (sums_BHW, maxima_BHW) in zip(batches, maps, strict=True):
                part = gather_evidence(sums_BHW, maxima_BHW, cells)
                logits = self._net(part.features).cpu().numpy()
                for row, k in enumerate(batch):
                    judged.append(
                        self._one(row, images[k], pooled[k], part, logits[row], cells, context)
                    )
        return judged

    def run(self, image: Image, geometry: Geometry | None = None) -> Judgement:
        """Judge a single frame; without a geometry the beam is taken to be in the middle."""
        geometry = geometry or Geometry.centred((image.shape[0], image.shape[1]))
        context = self.begin(geometry, np.ones(geometry.shape, np.bool_))
        return self.judge([image], context)[0]

    def _batches(
        self, images: Sequence[Image], pooled: Sequence[Pooled], context: SeriesContext
    ) -> Iterator[tuple[list[int], CellTables]]:
        """Yield runs of frames that share their tables, in order."""
        most = CUDA_BATCH if self.device.startswith("cuda") else 1
        batch: list[int] = []
        current: CellTables | None = None
        for k, image in enumerate(images):
            cells = context.cells_of(image, pooled[k].n_saturated)
            if current is not None and (cells is not current or len(batch) == most):
                yield batch, current
                batch = []
            current = cells
            batch.append(k)
        if current is not None:
            yield batch, current

    def _one(
        self,
        row: int,
        image: Image,
        pooled: Pooled,
        part: Evidence,
        logits: NDArray[np.float32],
        cells: CellTables,
        context: SeriesContext,
    ) -> Judgement:
        p_any, p_spots3 = (float(p) for p in sigmoid(self.weights.calibration.scores(logits)))
        p_hit = p_any if self.mode is GateMode.ANY else p_spots3
        is_hit = p_hit > self.threshold
        peaks, estimate = no_spots(), None
        counts = part.background.counts_BN[row].cpu().numpy()
        exposure = part.background.exposure_BN[row].cpu().numpy()
        if is_hit:
            places = _places_of(part.candidates, row)
            peaks = self._locate(image, context, part, row, cells, places)
            counts, exposure = outside_places(part, row, cells, places)
            estimate = heads.estimate(counts, exposure, context.heads)
        return Judgement(
            is_hit=is_hit,
            p_hit=p_hit,
            threshold=self.threshold,
            p_any=p_any,
            p_spots3=p_spots3,
            peaks=peaks,
            photon_energy_eV=None if estimate is None else estimate.photon_energy_eV,
            photon_energy_sigma_eV=None if estimate is None else estimate.photon_energy_sigma_eV,
            clen_m=None if estimate is None else estimate.clen_m,
            clen_sigma_m=None if estimate is None else estimate.clen_sigma_m,
            tells_parameters=None if estimate is None else estimate.tells_parameters,
            matrix=None if estimate is None else estimate.matrix,
            n_photons=pooled.n_photons,
            background_photons_per_px=float(part.background.photons_per_px_B[row]),
            n_saturated=pooled.n_saturated,
            radial_counts=np.stack((counts, exposure)).astype(np.float32),
        )

    def _locate(
        self,
        image: Image,
        context: SeriesContext,
        part: Evidence,
        row: int,
        cells: CellTables,
        places: Places,
    ) -> Spots:
        evidence, rest, ss, fs, size, mean = (c[0].cpu().numpy() for c in places.columns())
        middle = np.float32((CELL_PX - 1) / 2)
        i, j = np.rint(ss).astype(np.int64), np.rint(fs).astype(np.int64)
        at_HW = part.background.mean_BHW[row] / cells.exposure_HW.clamp(min=1)
        per_px = at_HW[torch.from_numpy(i), torch.from_numpy(j)].cpu().numpy()
        p = self.weights.calibration.spot_probability(evidence, rest, mean)
        return locate(
            image, context.valid, ss * CELL_PX + middle, fs * CELL_PX + middle, size, per_px, p
        )


def _places_of(candidates: scan.Candidates, row: int) -> Places:
    """Return the significant places of one frame, as a batch of one."""
    one = scan.Candidates(*(c[row : row + 1] for c in candidates.columns()))
    n_significant = int((one.evidence > MIN_EVIDENCE).sum())
    places = merge(one, min(n_significant, MAX_PEAKS))
    kept = places.evidence[0] > MIN_EVIDENCE
    return Places(*(c[:, kept] for c in places.columns()))


def outside_places(
    part: Evidence, row: int, cells: CellTables, places: Places
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return counts and exposure per (ring, sector) of one frame's cells away from all places."""
    near = np.zeros(tuple(cells.bin_HW.shape), np.bool_)
    centres = (t[0].cpu().numpy() for t in (places.ss, places.fs, places.size))
    for ss, fs, size in zip(*centres, strict=True):
        reach = size / 2 + 1
        top, left = max(int(ss - reach), 0), max(int(fs - reach), 0)
        near[top : int(ss + reach) + 2, left : int(fs + reach) + 2] = True
    inside = torch.from_numpy(np.flatnonzero(near)).to(cells.bin_HW.device)
    index = cells.bin_HW.view(-1)[inside]

    def without(total_N: torch.Tensor, map_HW: torch.Tensor) -> NDArray[np.float32]:
        lost_N = torch.bincount(index, map_HW.reshape(-1)[inside], len(total_N))
        return np.asarray((total_N - lost_N).clamp(min=0).to(torch.float32).cpu().numpy())

    return (
        without(part.background.total_BN[row], part.sums[row]),
        without(cells.exposure_N, cells.exposure_HW),
    )


def _resolve(given: weights.Weights | Path | str | None) -> weights.Weights:
    if isinstance(given, weights.Weights):
        return given
    return weights.load(None if given is None else Path(given))


def _check_maps(pooled: Sequence[Pooled], n_images: int, context: SeriesContext) -> None:
    if len(pooled) != n_images:
        raise ModelError(f"{n_images} images, {len(pooled)} pooled maps; expected as many")
    shape = tuple(context.cells.exposure_HW.shape)
    for p in pooled:
        if p.sums.shape != shape or p.maxima.shape != shape:
            raise ModelError(
                f"pooled maps {p.sums.shape} and {p.maxima.shape}; expected {shape} for this mask"
            )
