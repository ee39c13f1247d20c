"""The pipeline: frames in, judgements out. Peaks first; only if present energy, then clen.

One rule: a frame is judged by itself, the series' stated tables and the version that it names of
what the series has taught, so the same frames in the same order give the same verdicts, and one
frame judged again with its version gives its own. The header's energy and camera length are
never looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hitfinder.models import heads, learned, weights
from hitfinder.models.calibration import GateMode
from hitfinder.models.errors import ModelError
from hitfinder.models.evidence import Evidence, gather_evidence, outside_boxes
from hitfinder.models.frame_gate import FrameGate
from hitfinder.models.frontend import CellTables, Pooled, pool_frame
from hitfinder.models.geometry import Geometry
from hitfinder.models.image import Image
from hitfinder.models.judgement import Judgement
from hitfinder.models.places import Float, Places, look_closer
from hitfinder.models.series_context import SeriesContext
from hitfinder.models.spots import Spots, locate, no_spots

if TYPE_CHECKING:
    from hitfinder.models.device_evidence import DeviceEvidence

MIN_SPOT_EVIDENCE = -1.0
"""Boxes of a hit that are looked at in its pixels; chance makes ten of them in a frame."""
MOST_LOOKS = 1024
"""Places of a hit that are looked at, the best: as many as peaks are written. In a crowd each
costs three hundredths of a memcpy of the frame, and more where the background is bright."""
MIN_SPOT_PROBABILITY = 0.5
"""Places of a hit that are called spots; the best one is in any case."""


class Pipeline:
    """Judges frames.

    Args:
        weights: loaded weights, a path, or None for the shipped ones.
        device: "cpu", "cuda" or "cuda:N".
        mode: "any" or "spots3"; which probability decides.
        max_false_positive_rate: share of blanks like the calibration's that may pass.
        threshold: of p_hit; None takes it from the false-positive rate.

    Attributes:
        gate: the model in force; another may be put in its place between frames.
        threshold: likewise.
        candidate: a gate that judges the same places beside it, for comparison; None if none.

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
        if mode not in list(GateMode):
            raise ModelError(f"mode {mode!r}; expected one of {', '.join(GateMode)}")
        self.weights = _resolve(weights)
        self.device, self.mode = device, GateMode(mode)
        if threshold is None:
            threshold = self.weights.calibration.threshold(self.mode, max_false_positive_rate)
        self.threshold = float(threshold)
        self.gate = FrameGate(self.weights, self.mode)
        self.candidate: FrameGate | None = None
        # Frames are judged where they are, or uploaded.
        self._on_device = _on(device) if device.startswith("cuda") else None

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
        return SeriesContext(geometry, valid, self.weights.water, known)

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
            pooled = [pool_frame(image, context.valid) for image in images]
        _check_maps(pooled, len(images), context)
        judged: list[Judgement] = []
        version, first = context.series.version, context.n_judged
        numbers = range(first, first + len(images)) if frames is None else frames
        step = max(len(images), 1) if self._on_device is not None else 1
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
    ) -> Iterable[Evidence]:
        """Return what each frame's maps hold."""
        if self._on_device is not None:
            return self._on_device.of(pooled, cells)
        return (gather_evidence(p.sums, p.maxima, c) for p, c in zip(pooled, cells, strict=True))

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
            context.mask,
            found.boxes(),
            context.geometry.beam_center_px,
            context.series.knows_hot_pixels,
        )
        p = self.gate.judge(seen.features)
        is_hit = p.hit > self.threshold
        peaks, estimate = no_spots(), None
        radial_counts = np.empty((2, len(found.counts_N)), np.float32)
        radial_counts[0], radial_counts[1] = found.counts_N, found.exposure_N
        if is_hit:
            n_boxes = int((found.candidates_5SK[0] > MIN_SPOT_EVIDENCE).sum())
            boxes = found.boxes(max(n_boxes, 1))
            peaks = self._locate(image, context, boxes, seen)
            counts_N, exposure_N = outside_boxes(pooled.sums, found.total_N, cells, boxes)
            estimate = heads.estimate(counts_N, exposure_N, context.heads)
            radial_counts[0], radial_counts[1] = counts_N, exposure_N
        return Judgement(
            is_hit=is_hit,
            p_hit=p.hit,
            threshold=self.threshold,
            p_any=p.any,
            p_spots3=p.spots3,
            p_candidate=None
            if self.candidate is None
            else self.candidate.judge(seen.features).hit,
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
            radial_counts=radial_counts,
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
            context.mask,
            boxes,
            context.geometry.beam_center_px,
            # It is a hit for other reasons; an unknown hot pixel is one peak more.
            trust_bright_pixels=True,
            n_places=MOST_LOOKS,
            # The gate's looks are these where it trusted bright pixels too.
            looks=seen.looks if context.series.knows_hot_pixels else None,
        )
        p = self.gate.spots(found.features)
        best = np.argsort(-p, kind="stable")
        best = best[: max(int((p >= MIN_SPOT_PROBABILITY).sum()), 1)]
        columns = (found.ss, found.fs, found.sigma_px, found.background_per_px, p)
        return locate(image, context.mask, *(c[best] for c in columns))


def _on(device: str) -> DeviceEvidence:
    # Judging on a CPU needs no torch, and loading it takes as long as all the rest of a start.
    from hitfinder.models.device_evidence import DeviceEvidence

    return DeviceEvidence(device)


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
