"""The frames a benchmark shows: drawn, packed and put into messages before the clock runs.

One rule: what is measured is fed what a detector at this source sends: all nine data sets mixed,
one frame in five a hit, bitshuffle-LZ4; brighter frames and other depths where they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim import stream_v1, stream_v2
from hitfinder.sim.detector import DetectorConfig, Protocol, Series, exposure_times, new_uid
from hitfinder.sim.encoding import EncodedImage, Encoder
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import Detector, data_sets

# Each data set five times; one frame in five is a hit unless asked otherwise.
POOL = 45
HIT_FRACTION = 0.2
SEED = 4
# Buffers a copy goes round in, so that it does not stay in cache: 16 frames of 4M are 140 MB.
COPIES = 16

PixelType = Literal["uint8", "uint16", "uint32"]


@dataclass(frozen=True, slots=True)
class FrameMix:
    """What the frames are like.

    Attributes:
        hit_fraction: share of frames with a crystal, 0 to 1.
        photons_per_px: mean of the water, reached by its thickness; None for each data set's own.
        dtype: pixel type.
    """

    hit_fraction: float = HIT_FRACTION
    photons_per_px: float | None = None
    dtype: PixelType = "uint16"

    def is_hit(self, k: int) -> bool:
        """Say whether frame `k` is a hit: evenly spread, the first one of them."""
        return (k * self.hit_fraction) % 1 < self.hit_fraction


class Memcpy:
    """The yardstick: a decoded frame copied from memory to memory.

    Args:
        source: the frame's worth of memory.
    """

    def __init__(self, source: NDArray[Any]) -> None:
        self._source, self._copies = source, [source.copy() for _ in range(COPIES)]

    def __call__(self, k: int) -> None:
        """Copy once; `k` counts the calls."""
        np.copyto(self._copies[k % COPIES], self._source)


class BenchFrames:
    """A pool of packed frames with their truth.

    Args:
        shape: (ss, fs) of the detector.
        mix: what they are like.
    """

    def __init__(self, shape: tuple[int, int], mix: FrameMix) -> None:
        detector, names = Detector(shape=shape), tuple(data_sets())
        self.mix = mix
        self.config = DetectorConfig(
            shape=shape, beam_center_px=detector.center_px, dtype=mix.dtype
        )
        encoder = Encoder("v2", "bslz4", mix.dtype)
        self.images: list[EncodedImage] = []
        self.is_hit = [mix.is_hit(k) for k in range(POOL)]
        for k in range(POOL):
            settings = FrameSettings(
                datasets=(names[k % len(names)],),
                hit_fraction=float(self.is_hit[k]),
                dtype=mix.dtype,
            )
            if mix.photons_per_px is not None:
                thickness = mix.photons_per_px / _own_photons_per_px(settings, detector)
                settings = replace(settings, thickness=thickness)
            exposure = FrameSource(settings, SEED, detector).draw(k)
            self.images.append(encoder(exposure.image))
        now = datetime.now(UTC)
        self._series = Series(1, new_uid(), now, now)

    def start(self) -> list[bytes]:
        """Return a V2 start message."""
        return stream_v2.start(self.config, self._series)

    def message(self, k: int, protocol: Protocol) -> list[bytes]:
        """Return the message of frame `k`, the parts as they come off the wire."""
        produce = stream_v1.image if protocol == "v1" else stream_v2.image
        times = exposure_times(self.config, k)
        return produce(self.config, self._series, k, [self.images[k % POOL]], times)

    def memory(self) -> NDArray[Any]:
        """Return a frame's worth of memory, touched, to copy from."""
        return np.ones(self.config.shape, self.mix.dtype)

    def describe(self) -> dict[str, Any]:
        """Return the frames' sizes."""
        sizes = [len(image.payload) for image in self.images]
        return {
            "shape": self.config.shape,
            "dtype": self.mix.dtype,
            "photons_per_px": self.mix.photons_per_px,
            "n_bytes": self.memory().nbytes,
            "n_bytes_packed_mean": round(float(np.mean(sizes))),
            "pool": POOL,
            "hits": sum(self.is_hit),
        }


def _own_photons_per_px(settings: FrameSettings, detector: Detector) -> float:
    """Return the mean water of a data set on the pixels that count, from one blank."""
    blank = FrameSource(replace(settings, hit_fraction=0.0), SEED, detector).draw(0).image
    return float(blank[blank < np.iinfo(blank.dtype).max].mean())
