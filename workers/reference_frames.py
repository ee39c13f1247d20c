"""Frames to train references on, and how each kind of network looks at them.

One rule: every network gets the same drawn frames, in pairs of a blank and the same water with a
crystal, a new orientation in each pair. They are kept as lists of photons, as a frame is mostly
zeros, and laid out when a batch is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hitfinder.sim.frames import Exposure, FrameSettings, FrameSource
from hitfinder.sim.physics import Detector, data_sets
from hitfinder.sim.reflections import read_crystal

STRENGTH = (0.02, 1.0)
DIVERGENCE_MRAD = (0.0, 2.0)
"""Every second pair sharp, the others widened."""
THICKNESS_JITTER = 0.1
CENTER_JITTER_PX = 2.0
LABEL_PHOTONS = 0.5
"""A pixel belongs to a peak from so many expected photons on."""
CROP_PX = 256
CROPS = 4
"""Of a frame a step, every second one around a spot."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One frame as its photons.

    Attributes:
        index: int32, flat pixel of every lit counting pixel.
        counts: float32, photons there.
        bragg_index, bragg_photons: the noise-free crystal; empty for a blank.
        data_set: 0 to 8.
        is_hit: a crystal was in the beam.
    """

    index: NDArray[np.int32]
    counts: NDArray[np.float32]
    bragg_index: NDArray[np.int32]
    bragg_photons: NDArray[np.float32]
    data_set: int
    is_hit: bool


class ReferenceFrames:
    """Draws pairs of frames; a pair is a function of the seed and its number alone.

    Args:
        seed: of everything.
        detector: by default the EIGER2 4M.
    """

    def __init__(self, seed: int, detector: Detector | None = None) -> None:
        self.detector = detector or Detector()
        names, crystals = tuple(data_sets()), (read_crystal(),)
        self._order = {name: k for k, name in enumerate(names)}
        self._sources = {
            (width, share): FrameSource(
                FrameSettings(
                    datasets=names,
                    hit_fraction=share,
                    strength=STRENGTH,
                    divergence_mrad=width,
                    thickness_jitter=THICKNESS_JITTER,
                    center_jitter_px=CENTER_JITTER_PX,
                    patterns="generator",
                ),
                seed,
                self.detector,
                crystals,
            )
            for width in DIVERGENCE_MRAD
            for share in (0.0, 1.0)
        }

    def pair(self, number: int) -> tuple[Shot, Shot]:
        """Return a blank and the same water with a crystal."""
        width = DIVERGENCE_MRAD[number % len(DIVERGENCE_MRAD)]
        blank, hit = (self._sources[width, share].draw(number) for share in (0.0, 1.0))
        return self._shot(blank), self._shot(hit)

    def _shot(self, exposure: Exposure) -> Shot:
        flat = exposure.image.reshape(-1)
        lit = np.flatnonzero(flat)
        lit = lit[flat[lit] != np.iinfo(flat.dtype).max]
        bragg_index, bragg = np.zeros(0, np.int32), np.zeros(0, np.float32)
        if exposure.bragg is not None:
            counts = ~self.detector.gap_mask.reshape(-1)[exposure.bragg.index]
            bragg_index = exposure.bragg.index[counts]
            bragg = exposure.bragg.photons[counts]
        return Shot(
            lit.astype(np.int32),
            flat[lit].astype(np.float32),
            bragg_index,
            bragg,
            self._order[exposure.dataset or ""],
            exposure.is_hit,
        )


def lay_out(
    index: NDArray[np.int32], values: NDArray[np.float32], shape: tuple[int, int]
) -> torch.Tensor:
    """Return float32 (ss, fs), zeros where nothing is listed."""
    dense = np.zeros(shape, np.float32)
    dense.reshape(-1)[index] = values
    return torch.from_numpy(dense)


class WholeFrames:
    """Single frames with their label, for classifiers; `n_channels` 2 adds the noise-free one."""

    def __init__(self, shots: Sequence[Shot], shape: tuple[int, int], n_channels: int) -> None:
        self._shots, self._shape, self._n_channels = shots, shape, n_channels

    def __len__(self) -> int:
        return len(self._shots)

    def batch(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return counts_BCYX and labels_B."""
        shots = [self._shots[k] for k in chosen]
        frames = []
        for shot in shots:
            channels = [lay_out(shot.index, shot.counts, self._shape)]
            if self._n_channels == 2:
                channels.append(lay_out(shot.bragg_index, shot.bragg_photons, self._shape))
            frames.append(torch.stack(channels))
        return torch.stack(frames), torch.tensor([float(shot.is_hit) for shot in shots])


class Pairs:
    """A blank and its hit for each number, so that a step sees both."""

    def __init__(self, shots: Sequence[Shot], shape: tuple[int, int], n_channels: int) -> None:
        self._frames = WholeFrames(shots, shape, n_channels)

    def __len__(self) -> int:
        return len(self._frames) // 2

    def batch(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return counts_BCYX and labels_B of the pairs' frames."""
        return self._frames.batch([2 * k + side for k in chosen for side in (0, 1)])


class Crops:
    """Cut-outs of hits with their peak pixels, for the heatmap."""

    def __init__(self, hits: Sequence[Shot], shape: tuple[int, int], seed: int) -> None:
        self._hits, self._shape = hits, shape
        self._edge = min(CROP_PX, *shape)
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self._hits)

    def batch(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return counts_BCYX and labels_BYX of new cut-outs."""
        counts, labels = [], []
        for k in chosen:
            hit = self._hits[k]
            image = lay_out(hit.index, hit.counts, self._shape)
            peak = hit.bragg_photons >= LABEL_PHOTONS
            places = hit.bragg_index[peak]
            label = lay_out(places, np.ones(len(places), np.float32), self._shape)
            for n in range(CROPS):
                corner = self._corner(places if n % 2 else places[:0])
                window = tuple(slice(c, c + self._edge) for c in corner)
                counts.append(image[window])
                labels.append(label[window])
        return torch.stack(counts)[:, None], torch.stack(labels)

    def _corner(self, places: NDArray[np.int32]) -> tuple[int, int]:
        """Return a corner of a window over one of the places, anywhere if there is none."""
        if len(places):
            ss, fs = divmod(int(self._rng.choice(places)), self._shape[1])
            ss, fs = (at - int(self._rng.integers(self._edge)) for at in (ss, fs))
        else:
            ss, fs = (int(self._rng.integers(n)) for n in self._shape)
        most = [n - self._edge for n in self._shape]
        return min(max(ss, 0), most[0]), min(max(fs, 0), most[1])


class DataSets:
    """Frames with the class of their photon energy and of their camera length."""

    def __init__(self, shots: Sequence[Shot], shape: tuple[int, int]) -> None:
        self._frames = WholeFrames(shots, shape, 1)
        self._classes = [(shot.data_set % 3, shot.data_set // 3) for shot in shots]

    def __len__(self) -> int:
        return len(self._frames)

    def batch(self, chosen: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return counts_BCYX and classes (B, 2)."""
        return self._frames.batch(chosen)[0], torch.tensor([self._classes[k] for k in chosen])
