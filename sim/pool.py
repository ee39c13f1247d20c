"""What an emulated detector shows, packed ahead, and the book of what was true of it.

Its one rule: a frame shown carries its truth with it, under the number it was drawn by, so that
a pool of few frames can be shown as a long series and still be known frame by frame.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hitfinder import HitfinderError
from hitfinder.sim.encoding import EncodedImage, Encoder
from hitfinder.sim.frames import Exposure, FrameSource


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """What is true of one frame that the detector produced, sent or lost.

    Attributes:
        drawn: number of the exposure shown: equal to `frame` unless a pool is cycled.
        n_spots: reflections of at least 3 expected photons on active pixels.
    """

    series: int
    frame: int
    is_hit: bool
    dataset: str
    photon_energy_eV: float
    clen_m: float
    drawn: int
    n_spots: int


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A packed exposure with its truth; the series and frame numbers are still 0."""

    image: EncodedImage
    truth: FrameTruth


class PooledSource:
    """Frames of one data set for an emulator, packed ahead and cycled, or drawn one by one.

    Args:
        source: where exposures come from.
        dataset: its name, for the truth.
        pool: how many exposures are kept; 0 draws frame after frame without end.
    """

    def __init__(self, source: FrameSource, dataset: str, pool: int) -> None:
        self._source = source
        self._dataset = dataset
        self._pool = pool
        self._kept: dict[tuple[int, Encoder], ShownFrame] = {}

    def show(self, frame: int, encoder: Encoder) -> ShownFrame:
        """Return what frame number `frame` shows."""
        drawn = frame % self._pool if self._pool else frame
        kept = self._kept.get((drawn, encoder))
        if kept is not None:
            return kept
        exposure = self._source.draw(drawn)
        shown = ShownFrame(encoder(exposure.image), _truth(exposure, self._dataset, drawn))
        if self._pool:
            self._kept[drawn, encoder] = shown
        return shown

    def fill(self, n_frames: int, encoder: Encoder) -> None:
        """Draw ahead what a series of `n_frames` will show."""
        for frame in range(min(self._pool, n_frames)):
            self.show(frame, encoder)


class TruthFile:
    """Counts frames and hits, and writes one object a frame if a file is asked for.

    Args:
        path: `.jsonl` for one object a line, else one JSON list; None to only count.

    Attributes:
        n_frames: frames noted.
        n_hits: of these, with a crystal in the beam.

    Raises:
        HitfinderError: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.n_frames = 0
        self.n_hits = 0
        self._path = path
        try:
            self._opened = None if path is None else path.open("w", encoding="utf-8")
        except OSError as reason:
            raise HitfinderError(f"truth file {path}: {reason}; choose another") from reason
        self._is_lines = path is not None and path.suffix == ".jsonl"

    def __enter__(self) -> TruthFile:
        if self._opened is not None and not self._is_lines:
            self._opened.write("[")
        return self

    def __exit__(self, *_reason: object) -> None:
        if self._opened is not None:
            self._opened.write("" if self._is_lines else "\n]\n")
            self._opened.close()

    def note(self, series: int, frame: int, truth: FrameTruth) -> None:
        """Take down one frame."""
        if self._opened is not None:
            line = json.dumps(asdict(truth) | {"series": series, "frame": frame})
            comma = "" if self._is_lines or self.n_frames == 0 else ","
            self._opened.write(f"{line}\n" if self._is_lines else f"{comma}\n{line}")
        self.n_frames += 1
        self.n_hits += truth.is_hit


def _truth(exposure: Exposure, dataset: str, drawn: int) -> FrameTruth:
    return FrameTruth(
        series=0,
        frame=0,
        is_hit=exposure.is_hit,
        dataset=dataset,
        photon_energy_eV=exposure.photon_energy_eV,
        clen_m=exposure.clen_m,
        drawn=drawn,
        n_spots=len(exposure.spots.photons),
    )
