"""The frames a benchmark shows: drawn, packed and put into messages before the clock runs.

One rule: what is measured is fed what a detector at this source sends: all nine data sets mixed,
one frame in five a hit, bitshuffle-LZ4.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.sim import stream_v1, stream_v2
from hitfinder.sim.detector import DetectorConfig, Protocol, Series, exposure_times, new_uid
from hitfinder.sim.encoding import EncodedImage, Encoder
from hitfinder.sim.frames import FrameSettings, FrameSource
from hitfinder.sim.physics import Detector, data_sets
from hitfinder.stream.messages import Blob, Codec

# Each data set five times, once as a hit.
POOL = 45
HIT_EVERY = 5
SEED = 4


class BenchFrames:
    """A pool of packed frames with their truth.

    Args:
        shape: (ss, fs) of the detector.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        detector, names = Detector(shape=shape), tuple(data_sets())
        self.config = DetectorConfig(shape=shape, beam_center_px=detector.center_px)
        encoder = Encoder("v2", "bslz4", "uint16")
        self.images: list[EncodedImage] = []
        self.is_hit: list[bool] = []
        for k in range(POOL):
            is_hit = k % HIT_EVERY == 0
            settings = FrameSettings(datasets=(names[k % len(names)],), hit_fraction=float(is_hit))
            exposure = FrameSource(settings, SEED, detector).draw(k)
            self.images.append(encoder(exposure.image))
            self.is_hit.append(is_hit)
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

    def even(self, dtype: str, photons_per_px: float, seed: int) -> Blob:
        """Return a packed frame that is lit evenly."""
        rng = np.random.default_rng(seed)
        image = rng.poisson(photons_per_px, self.config.shape).astype(dtype)
        payload = Encoder("v2", "bslz4", dtype)(image).payload
        return Blob("", image.shape, dtype, Codec.BSLZ4, image.itemsize, memoryview(payload))

    def memory(self) -> NDArray[np.uint16]:
        """Return a frame's worth of memory, touched, to copy from."""
        return np.ones(self.config.shape, np.uint16)

    def describe(self) -> dict[str, Any]:
        """Return the frames' sizes."""
        sizes = [len(image.payload) for image in self.images]
        return {
            "shape": self.config.shape,
            "dtype": "uint16",
            "n_bytes": self.memory().nbytes,
            "n_bytes_packed_mean": round(float(np.mean(sizes))),
            "pool": POOL,
            "hits": sum(self.is_hit),
        }
