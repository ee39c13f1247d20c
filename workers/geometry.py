"""The geometry in force for a series: header, completed or overridden by the operator's config.

One rule: the summary can say for each value which source won. DECTRIS and CrystFEL count the beam
centre in pixels from the array's corner; a pixel index counts from the first pixel's centre, half
a pixel less.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hitfinder.models.geometry import EIGER_PIXEL_SIZE_M, Geometry
from hitfinder.stream.bslz4 import Pixels
from hitfinder.stream.messages import SeriesStart
from hitfinder.stream.nexus import RunGeometry
from hitfinder.stream.sink import InForce
from hitfinder.workers.config import GeometryConfig

VALUES = ("beam_center_px", "pixel_size_m", "clen_m", "photon_energy_eV")
# Pixels at their type's largest value are gaps where they fill a square of this side; alone they
# are overflows, which the front end leaves out frame by frame.
GAP_SIDE_PX = 5
# Mask bits that make a pixel bad: gap, dead, under- and over-responding, noisy, and NeXus's 5-8
# (protocol note, section 7).
BAD_BITS = 0x1FF


@dataclass(frozen=True, slots=True, eq=False)
class SeriesGeometry:
    """What is in force for one series.

    Attributes:
        stated: values of header and config, with their sources; what files carry.
        geometry: the same for `models`, with what nobody stated assumed.
        valid: bool (ss, fs), False where a pixel must not count.
    """

    stated: RunGeometry
    geometry: Geometry
    valid: NDArray[np.bool_]


def stated_geometry(start: SeriesStart, config: GeometryConfig) -> RunGeometry:
    """Return the header's values with the operator's put over them."""
    found: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, said in (("header", start), ("config", config)):
        for name in VALUES:
            value = getattr(said, name, None)
            if value is not None:
                found[name], sources[name] = value, source
    return RunGeometry(**found, sources=sources)


def series_geometry(start: SeriesStart, config: GeometryConfig, image: Pixels) -> SeriesGeometry:
    """Return what a worker needs to judge a series, from its header and its first image.

    Args:
        image: (ss, fs) counts of the first frame: its shape, and the gaps that no mask names.
    """
    shape = (image.shape[0], image.shape[1])
    stated = stated_geometry(start, config)
    pixel_size_m = stated.pixel_size_m or (EIGER_PIXEL_SIZE_M, EIGER_PIXEL_SIZE_M)
    corner = stated.beam_center_px or (shape[1] / 2, shape[0] / 2)
    geometry = Geometry(
        shape,
        pixel_size_m,
        (corner[0] - 0.5, corner[1] - 0.5),
        stated.clen_m,
        stated.photon_energy_eV,
    )
    valid = ~gaps(image)
    if start.pixel_mask is not None and start.pixel_mask.shape == shape:
        valid &= (start.pixel_mask & BAD_BITS) == 0
    return SeriesGeometry(stated, geometry, valid)


def gaps(image: Pixels) -> NDArray[np.bool_]:
    """Return where an image's areas of the largest value are: module gaps without a mask."""
    full = image == np.iinfo(image.dtype).max
    square = np.ones((GAP_SIDE_PX, GAP_SIDE_PX), np.bool_)
    # Outside the array counts as full, so that a gap at the edge is one.
    eroded = ndimage.binary_erosion(full, square, border_value=1)
    opened: NDArray[np.bool_] = ndimage.binary_dilation(eroded, square)
    return opened & full


def in_force(start: SeriesStart, config: GeometryConfig) -> InForce:
    """Return what the sink writes into a series' files."""
    mask = b"" if start.pixel_mask is None else start.pixel_mask.tobytes()
    stamps = {"mask_sha256": hashlib.sha256(mask).hexdigest() if mask else "none"}
    return InForce(stated_geometry(start, config), None, stamps)
