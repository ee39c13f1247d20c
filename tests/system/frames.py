"""Small series as wire messages, for tests that need the right bytes and then break them.

Messages come from the simulator's own producers, which share no code with the receiving floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import cbor2
import numpy as np
from numpy.typing import NDArray

from hitfinder.sim import stream_v1, stream_v2
from hitfinder.sim.detector import DetectorConfig, Protocol, Series, exposure_times
from hitfinder.sim.encoding import Encoder

SHAPE = (256, 288)
ARMED = datetime(2024, 1, 1, tzinfo=UTC)

Parts = list[bytes]


@dataclass(frozen=True, slots=True)
class WireSeries:
    """One series ready to be sent.

    Attributes:
        number: its id.
        start, end: messages.
        images: the frames' messages, in order.
        pixels: what they hold.
    """

    number: int
    start: Parts
    images: list[Parts]
    end: Parts
    pixels: list[NDArray[np.uint16]]

    @property
    def messages(self) -> list[Parts]:
        """Return all of it in order."""
        return [self.start, *self.images, self.end]


def wire_series(
    protocol: Protocol,
    number: int,
    n_frames: int,
    *,
    shape: tuple[int, int] = SHAPE,
    uid: str = "",
    has_spots: bool = False,
    hot_pixels: Sequence[int] = (),
) -> WireSeries:
    """Return a series of dim frames; V2's unique id is made of the number unless given.

    Args:
        has_spots: every second frame, from the first, shows five spots of 150 photons.
        hot_pixels: flat indices of pixels that hold about 30 counts in every frame.
    """
    config = DetectorConfig(shape=shape, n_trigger=n_frames, trigger_mode="inte")
    series = Series(number, uid or f"UID{number}", ARMED, ARMED)
    rng = np.random.default_rng([number, n_frames])
    pixels = [rng.poisson(0.05, shape).astype(np.uint16) for _ in range(n_frames)]
    for image in pixels[::2] if has_spots else []:
        # Wider than a pixel: a lone bright one is no evidence until the hot ones are known.
        for ss, fs in rng.integers(4, np.array(shape) - 4, (5, 2)):
            np.add.at(image, tuple(np.rint(rng.normal((ss, fs), 1.0, (150, 2))).astype(int).T), 1)
    for image in pixels if hot_pixels else []:
        image.ravel()[hot_pixels] += rng.poisson(30, len(hot_pixels)).astype(np.uint16)
    encode = Encoder(protocol, "bslz4", "uint16")
    wire = stream_v1 if protocol == "v1" else stream_v2
    images = [
        wire.image(config, series, k, [encode(image)], exposure_times(config, k))
        for k, image in enumerate(pixels)
    ]
    return WireSeries(number, wire.start(config, series), images, wire.end(series), pixels)


def changed(message: Parts, **fields: Any) -> Parts:
    """Return a V2 message with some of its fields replaced, or left out where None."""
    map_ = {**cbor2.loads(message[0]), **fields}
    return [cbor2.dumps({key: value for key, value in map_.items() if value is not None})]
