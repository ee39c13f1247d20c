"""The geometry in force for a series: header, then the operator's .geom, then config values.

One rule: the summary can say for each value which source won. DECTRIS and CrystFEL count the beam
centre in pixels from the array's corner; a pixel index counts from the first pixel's centre, half
a pixel less.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.models.crystfel_geom import CrystfelGeometry, read_geom
from hitfinder.models.errors import GeometryError
from hitfinder.models.geometry import EIGER_PIXEL_SIZE_M, Geometry
from hitfinder.models.masks import (
    mask_sha256,
    read_mask_file,
    valid_from_gap_value,
    valid_from_pixel_mask,
)
from hitfinder.stream.bslz4 import Pixels
from hitfinder.stream.controls import DIGITS
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.nexus import RunGeometry
from hitfinder.stream.sink import InForce
from hitfinder.workers.config import ConfigError, GeometryConfig

log = logging.getLogger(__name__)

# What a value may be, each of its numbers: wider than any beamline, narrow enough that tables made
# from an absurd header stay small.
VALUES = {
    "beam_center_px": (-20_000.0, 20_000.0),
    "pixel_size_m": (1e-6, 1e-2),
    "clen_m": (1e-3, 100.0),
    "photon_energy_eV": (100.0, 1e6),
}
MAX_PIXEL_ASPECT = 10.0
# Pixels at their type's largest value are gaps where they fill a square of this side; alone they
# are overflows, which the front end leaves out frame by frame.
GAP_SIDE_PX = 5


@dataclass(frozen=True, slots=True, eq=False)
class SeriesGeometry:
    """What is in force for one series.

    Attributes:
        stated: values of header, .geom and config, with their sources; what files carry.
        geometry: the same for `models`, with what nobody stated assumed.
        valid: bool (ss, fs), False where a pixel must not count.
        of_detector: the same before the operator's mask and .geom took theirs away.
        mask: names the operator's mask, as `Record.mask`.
    """

    stated: RunGeometry
    geometry: Geometry
    valid: NDArray[np.bool_]
    of_detector: NDArray[np.bool_]
    mask: str | None


class OperatorGeometry:
    """What the operator's configuration says, read once a process.

    Raises:
        ConfigError: the .geom file cannot be read, or the mask file is not there.
    """

    def __init__(self, config: GeometryConfig) -> None:
        self._config = config
        self._geom: CrystfelGeometry | None = None
        if config.geom_file is not None:
            try:
                self._geom = read_geom(config.geom_file)
            except GeometryError as error:
                raise ConfigError(f"geometry.geom_file {config.geom_file}: {error}") from error

    def stated(self, start: SeriesStart) -> RunGeometry:
        """Return the header's values with the operator's put over them."""
        found: dict[str, Any] = {}
        sources: dict[str, str] = {}
        geom = self._geom.geometry if self._geom else None
        if geom is not None:
            corner = (geom.beam_center_px[0] + 0.5, geom.beam_center_px[1] + 0.5)
            geom = replace(geom, beam_center_px=corner)
        for source, said in (("header", start), ("geom file", geom), ("config", self._config)):
            for name in VALUES:
                value = getattr(said, name, None)
                if value is not None and _is_plausible(name, value):
                    found[name], sources[name] = value, source
                elif value is not None:
                    log.warning("%s says %s = %s, which cannot be; left out", source, name, value)
        return RunGeometry(**found, sources=sources)

    def bad_pixels(
        self, shape: tuple[int, int], mask_file: Path | None = None
    ) -> tuple[NDArray[np.bool_] | None, str | None]:
        """Return what .geom and mask file take away, and the mask's name.

        A mask that does not fit this series is left out, with a warning: the frames still count.

        Args:
            mask_file: in the place of the configured one.

        Returns:
            bool (ss, fs), None if they say nothing; `Record.mask`.
        """
        valid: NDArray[np.bool_] | None = None
        name = None
        file = mask_file or self._config.mask_file
        try:
            if self._config.geom_file is not None:
                valid = read_geom(self._config.geom_file, shape).valid
            if file is not None:
                mask = read_mask_file(file, shape)
                valid = mask if valid is None else valid & mask
                name = mask_sha256(mask)[:DIGITS]
        except GeometryError as error:
            log.warning("%s; this series goes on without it", error)
        return None if valid is None else ~valid, name

    def of_series(
        self, start: SeriesStart, image: Pixels, mask_file: Path | None = None
    ) -> SeriesGeometry:
        """Return what a worker needs to judge a series, from its header and its first image.

        Args:
            image: (ss, fs) counts of the first frame: its shape, and the gaps no mask names.
            mask_file: in the place of the configured one.
        """
        shape = (image.shape[0], image.shape[1])
        stated, valid = self.stated(start), valid_pixels(start.pixel_mask, image)
        unmasked = SeriesGeometry(stated, full_geometry(stated, shape), valid, valid, None)
        return self.masked(unmasked, mask_file)

    def masked(self, series: SeriesGeometry, mask_file: Path | None) -> SeriesGeometry:
        """Return what is in force for a series under a mask, the configured one if None."""
        bad, name = self.bad_pixels(series.geometry.shape, mask_file)
        valid = series.of_detector if bad is None else series.of_detector & ~bad
        return replace(series, valid=valid, mask=name)

    def in_force(self, start: SeriesStart, mask_file: Path | None = None) -> InForce:
        """Return what the sink writes into a series' files."""
        bad, name = None, None
        if start.shape is not None:
            bad, name = self.bad_pixels(start.shape, mask_file)
        digest = hashlib.sha256()
        for mask in (start.pixel_mask, bad):
            digest.update(b"none" if mask is None else mask.tobytes())
        return InForce(self.stated(start), bad, name, {"mask_sha256": digest.hexdigest()})


def full_geometry(stated: RunGeometry, shape: tuple[int, int]) -> Geometry:
    """Return what frames of this shape are judged with: what nobody stated is assumed."""
    corner = stated.beam_center_px or (shape[1] / 2, shape[0] / 2)
    return Geometry(
        shape,
        stated.pixel_size_m or (EIGER_PIXEL_SIZE_M, EIGER_PIXEL_SIZE_M),
        (corner[0] - 0.5, corner[1] - 0.5),
        stated.clen_m,
        stated.photon_energy_eV,
    )


def valid_pixels(pixel_mask: NDArray[np.uint32] | None, image: Pixels) -> NDArray[np.bool_]:
    """Return bool (ss, fs): what a mask of the image's shape and the image's own gaps leave."""
    valid = ~gaps(image)
    if pixel_mask is not None and pixel_mask.shape == image.shape:
        valid &= valid_from_pixel_mask(pixel_mask)
    return valid


def _is_plausible(name: str, value: float | tuple[float, float]) -> bool:
    low, high = VALUES[name]
    numbers = value if isinstance(value, tuple) else (value,)
    if not all(low <= number <= high for number in numbers):
        return False
    return name != "pixel_size_m" or max(numbers) <= MAX_PIXEL_ASPECT * min(numbers)


def gaps(image: Pixels) -> NDArray[np.bool_]:
    """Return where an image's areas of the largest value are: module gaps without a mask."""
    full = ~valid_from_gap_value(image)
    # Outside the array counts as full, so that a gap at the edge is one.
    eroded = _over_squares(np.logical_and, full, border=True)
    return _over_squares(np.logical_or, eroded, border=False) & full


def _over_squares(join: np.ufunc, flags: NDArray[np.bool_], border: bool) -> NDArray[np.bool_]:
    """Join the flags of the square around each pixel, along one axis and then the other."""
    flags = np.pad(flags, GAP_SIDE_PX // 2, constant_values=border)
    for _ in flags.shape:
        n = len(flags) - GAP_SIDE_PX + 1
        flags = reduce(join, (flags[k : k + n] for k in range(GAP_SIDE_PX))).T
    return flags
