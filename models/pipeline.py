"""The pipeline: frames in, judgements out. Peaks first; only if present energy, then clen.

One rule: a frame is judged by itself, the series' stated tables and the version that it names of
what the series has taught, so the same frames in the same order give the same verdicts, and one
frame judged again with its version gives its own. The header's energy and camera length are
never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.models import heads, learned, weights
from hitfinder.models.calibration import GateMode, sigmoid
from hitfinder.models.errors import ModelError
from hitfinder.models.evidence import (
    Evidence,
    gather_evidence,
    gather_on_device,
    outside_boxes,
)
from hitfinder.models.frontend import CellTables, Pooled, pool_frame
from hitfinder.models.geometry import Geometry
from hitfinder.models.host_gate import HostGate
from hitfinder.models.judgement import Judgement
from hitfinder.models.places import Float, Places, look_closer
from hitfinder.models.series_context import Image, SeriesContext
from hitfinder.models.spots import Spots, locate, no_spots
from hitfinder.models.uploads import Uploader

MIN_SPOT_EVIDENCE = -1.0
"""Boxes of a hit that are looked at in its pixels; chance makes ten of them in a frame."""
MOST_LOOKS = 1024
"""Places of a hit that are looked at, the best: as many as peaks are written. In a crowd each
costs three hundredths of a memcpy of the frame, and more where the background is bright."""
MIN_SPOT_PROBABILITY = 0.5
"""Places of a hit that are called spots; the best one is in any case."""
CUDA_BATCH = 4
"""Frames judged together on a GPU, while the next are copied; a CPU gains nothing from batches."""


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
        self._gate = HostGate(self.weights.net)
        # Frames are judged where they are, or uploaded.
        self._uploader = Uploader(device) if device.startswith("cuda") else None

    def begin(
        self,
        geometry: Geometry,
        valid: NDArray[np.bool_],
        known: learned.Entries | None = None,
    ) -> SeriesContext:
        """Prepare a series: takes a few tenths of a second for 4 million pixels.

        Args:
            geometry: stated geometry; energy and clen in it are not used.
            valid: bool (ss, fs), True where a pixel counts.
            known: what was learned before: of the previous series on this detector
                (`learned.hot_before`), or the first entries of a series, to judge a frame of it
                again with the version that its verdict names.
        """
        known = learned.no_entries() if known is None else known
        return SeriesContext(geometry, valid, self.weights.water, self.device, known)

    def judge(
        self,
        images: Sequence[Image],
        context: SeriesContext,
        pooled: Sequence[Pooled] | None = None,
        frames: Sequence[int] | None = None,
    ) -> list[Judgement]:
        """Judge frames of one series, and let them teach the ones that follow.

        On a CPU each frame teaches the next; on a GPU, where they are judged together, they
        teach once all of this call are judged.

        Args:
            images: each (ss, fs) uint8, uint16 or uint32 counts; only read.
            context: of their series.
            pooled: their pooled maps, made with the context's mask as it is now.
            frames: their numbers, for the record of what was learned; counted on if not given.

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
        version, first = context.series.version, context.n_judged
        numbers = range(first, first + len(images)) if frames is None else frames
        step = max(len(images), 1) if self._uploader is not None else 1
        for start in range(0, len(images), step):
            some = slice(start, start + step)
            maps = [
                context.pooled_now(image, p, version)
                for image, p in zip(images[some], pooled[some], strict=True)
            ]
            judged += self._judge_together(images[some], maps, context)
            for k, p in enumerate(maps, start):
                context.teach(
                    images[k],
                    p,
                    judged[k].radial_counts,
                    judged[k].background_photons_per_px,
                    is_hit=judged[k].is_hit,
                    frame=numbers[k],
                )
        return judged

    def _judge_together(
        self, images: Sequence[Image], pooled: Sequence[Pooled], context: SeriesContext
    ) -> list[Judgement]:
        """Judge frames with what is known now."""
        cells = [
            context.cells_of(image, p.n_saturated) for image, p in zip(images, pooled, strict=True)
        ]
        found = self._evidence(pooled, cells)
        frames = zip(images, pooled, found, cells, strict=True)
        return [self._one(*frame, context) for frame in frames]

    def _evidence(
        self, pooled: Sequence[Pooled], cells: Sequence[CellTables]
    ) -> Iterator[Evidence]:
        """Yield what each frame's maps hold."""
        if self._uploader is None:
            for p, c in zip(pooled, cells, strict=True):
                yield gather_evidence(p.sums, p.maxima, c)
            return
        batches = list(_batches(cells))
        maps = self._uploader.ahead(pooled[batch] for batch in batches)
        for batch, (sums_BHW, maxima_BHW) in zip(batches, maps, strict=True):
            with torch.inference_mode():
                found = gather_on_device(sums_BHW, maxima_BHW, cells[batch.start])
            yield from found

    def run(self, image: Image, geometry: Geometry | None = None) -> Judgement:
        """Judge a single frame; without a geometry the beam is taken to be in the middle.

        Nothing can be learned from one frame: its bright pixels count as photons.
        """
        geometry = geometry or Geometry.centred((image.shape[0], image.shape[1]))
        known = learned.entries(learned.Kind.SETTLED, [0], 0, -1)
        context = self.begin(geometry, np.ones(geometry.shape, np.bool_), known)
        return self.judge([image], context)[0]

    def _one(
        self,
        image: Image,
        pooled: Pooled,
        found: Evidence,
        cells: CellTables,
        context: SeriesContext,
    ) -> Judgement:
        seen = look_closer(
            image,
            context.valid,
            found.boxes(),
            context.geometry.beam_center_px,
            context.series.knows_hot_pixels,
        )
        logits = self._gate.judge(seen.features)
        p_any, p_spots3 = (float(p) for p in sigmoid(self.weights.calibration.scores(logits)))
        p_hit = p_any if self.mode is GateMode.ANY else p_spots3
        is_hit = p_hit > self.threshold
        peaks, estimate = no_spots(), None
        counts, exposure = found.counts_N, found.exposure_N
        if is_hit:
            n_boxes = int((found.candidates_5SK[0] > MIN_SPOT_EVIDENCE).sum())
            boxes = found.boxes(max(n_boxes, 1))
            peaks = self._locate(image, context, boxes, seen)
            counts, exposure = outside_boxes(pooled.sums, found.total_N, cells, boxes)
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
            background_photons_per_px=found.photons_per_px,
            n_saturated=pooled.n_saturated,
            radial_counts=np.stack((counts, exposure), dtype=np.float32),
            n_learned=context.series.version,
            flux_scale=context.series.flux_scale(found.photons_per_px),
        )

    def _locate(
        self,
        image: Image,
        context: SeriesContext,
        boxes: Float,
        seen: Places,
    ) -> Spots:
        """Return the spots of a hit: what its boxes are at full resolution."""
        found = look_closer(
            image,
            context.valid,
            boxes,
            context.geometry.beam_center_px,
            # It is a hit for other reasons; an unknown hot pixel is one peak more.
            trust_bright_pixels=True,
            n_places=MOST_LOOKS,
            # The gate's looks are these where it trusted bright pixels too.
            looks=seen.looks if context.series.knows_hot_pixels else None,
        )
        spot_logits = self._gate.spot_logits(found.features)
        p = self.weights.calibration.spot_probability(spot_logits)
        best = np.argsort(-p, kind="stable")
        best = best[: max(int((p >= MIN_SPOT_PROBABILITY).sum()), 1)]
        columns = (found.ss, found.fs, found.sigma_px, found.background_per_px, p)
        return locate(image, context.valid, *(c[best] for c in columns))


def _batches(cells: Sequence[CellTables]) -> Iterator[slice]:
    """Yield runs of frames that share their tables, in order."""
    start = 0
    for k in range(1, len(cells) + 1):
        if k == len(cells) or cells[k] is not cells[start] or k - start == CUDA_BATCH:
            yield slice(start, k)
            start = k


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
