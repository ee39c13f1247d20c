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
from hitfinder.workers.bench_joined import JoinedFrames

# Each data set five times.
POOL = 45
HIT_FRACTION = 0.2
SEED = 4
# Spots of a made-up crowd: Gaussian, anywhere, photons even in the logarithm.
SPOT_SIGMA_PX, SPOT_PHOTONS = 1.0, (30.0, 600.0)
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
        n_spots: spots that a hit shows instead of its crystal's; None for the crystal's.
    """

    hit_fraction: float = HIT_FRACTION
    photons_per_px: float | None = None
    dtype: PixelType = "uint16"
    n_spots: int | None = None

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
        n: frames of the pool.

    Attributes:
        images: the pool, packed.
        is_hit: the truth of each.
        shown: frame number of a series -> what the detector sends: frames joined of the pool's.
    """

    def __init__(self, shape: tuple[int, int], mix: FrameMix, n: int = POOL) -> None:
        detector, names = Detector(shape=shape), tuple(data_sets())
        self.mix = mix
        self.config = DetectorConfig(
            shape=shape, beam_center_px=detector.center_px, dtype=mix.dtype
        )
        encoder = Encoder("v2", "bslz4", mix.dtype)
        self.images: list[EncodedImage] = []
        self.is_hit = [mix.is_hit(k) for k in range(n)]
        for k in range(n):
            has_crystal = self.is_hit[k] and mix.n_spots is None
            settings = FrameSettings(
                datasets=(names[k % len(names)],),
                hit_fraction=float(has_crystal),
                dtype=mix.dtype,
            )
            if mix.photons_per_px is not None:
                thickness = mix.photons_per_px / _own_photons_per_px(settings, detector)
                settings = replace(settings, thickness=thickness)
            image = FrameSource(settings, SEED, detector).draw(k).image
            if self.is_hit[k] and mix.n_spots is not None:
                _add_spots(image, mix.n_spots, np.random.default_rng((SEED, k)))
            self.images.append(encoder(image))
        group = [k % len(names) for k in range(n)]
        self.shown = JoinedFrames(self.images, group, self.is_hit)
        now = datetime.now(UTC)
        self._series = Series(1, new_uid(), now, now)

    def start(self) -> list[bytes]:
        """Return a V2 start message."""
        return stream_v2.start(self.config, self._series)

    def message(self, k: int, protocol: Protocol) -> list[bytes]:
        """Return the message of frame `k`, the parts as they come off the wire."""
        produce = stream_v1.image if protocol == "v1" else stream_v2.image
        times = exposure_times(self.config, k)
        return produce(self.config, self._series, k, [self.images[k % len(self.images)]], times)

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
            "n_spots": self.mix.n_spots,
            "n_bytes": self.memory().nbytes,
            "n_bytes_packed_mean": round(float(np.mean(sizes))),
            "pool": len(self.images),
            "hits": sum(self.is_hit),
        }


def _own_photons_per_px(settings: FrameSettings, detector: Detector) -> float:
    """Return the mean water of a data set on the pixels that count, from one blank."""
    blank = FrameSource(replace(settings, hit_fraction=0.0), SEED, detector).draw(0).image
    return float(blank[blank < np.iinfo(blank.dtype).max].mean())


def _add_spots(image: NDArray[np.unsignedinteger], n: int, rng: np.random.Generator) -> None:
    """Add spots to an image in place; gaps stay gaps, and no pixel reaches their value."""
    top = np.iinfo(image.dtype).max
    fewest, most = SPOT_PHOTONS
    n_photons = rng.poisson(fewest * (most / fewest) ** rng.random(n))
    centre = (rng.random((n, 2)) * image.shape).repeat(n_photons, axis=0)
    met = np.rint(rng.normal(centre, SPOT_SIGMA_PX)).astype(np.intp)
    met = met[((met >= 0) & (met < image.shape)).all(axis=1)]
    more = np.bincount(np.ravel_multi_index(tuple(met.T), image.shape), minlength=image.size)
    counts = np.minimum(image + more.reshape(image.shape), top - 1)
    np.copyto(image, counts, casting="unsafe", where=image < top)
