"""What the emulated detector is and how it is set: one frozen `DetectorConfig`.

Its one rule: names and units here are ours; `simplon_values` alone turns them into SIMPLON's
config names, which the V1 header and the REST interface share. Facts from the protocol note
(sections 2.1, 4.2, 7, 8); defaults describe an EIGER2 4M at a serial crystallography beamline.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Protocol = Literal["v1", "v2"]
Compression = Literal["bslz4", "lz4", "none"]
HeaderDetail = Literal["none", "basic", "all"]

TRIGGER_MODES = ("exts", "ints", "exte", "inte", "extg", "eies")
PIXEL_BITS = {"uint8": 8, "uint16": 16, "uint32": 32}
PLANCK_TIMES_C_eV_A = 12398.419843320026
# EIGER2 modules repeat every 1028 + 12 columns and 512 + 38 rows (note, section 8).
MODULE_SHAPE = (512, 1028)
MODULE_PITCH = (550, 1040)
AXES = ("chi", "kappa", "omega", "phi", "two_theta")
INERT: Mapping[str, str | bool] = MappingProxyType(
    {
        "auto_summation": True,
        "counting_mode": "normal",
        "element": "",
        "roi_mode": "disabled",
    }
)
GAP_BIT = 1  # pixel_mask bit 0: no sensor
_ULID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectorConfig:
    """Everything a client can set or read of the detector, as it stands at arm.

    Attributes:
        shape: (ss, fs) = (rows, columns).
        channels: image channels in order; V1 can send only the first.
        compression: SIMPLON's word; `lz4` is a bare block in V1, HDF5-framed in V2.
        block_bytes: bitshuffle block size, 0 for the library's default.
        tick_ns: unit of V1 times: 1 (EIGER2) or 20 (EIGER1, firmware 1.6).
        beam_center_px: (x, y) = (fs, ss).
        pixel_mask: uint32 (ss, fs); None for the module gaps of an EIGER2 of that shape.
        flatfield: float32 (ss, fs); None for ones.
        header_appendix: text added to a V1 header, if not empty; V2 sends it as `user_data`.
        image_appendix: the same for images.
        goniometer: axis name -> (start, increment), degrees.
        inert: SIMPLON settings that a client may make and that change nothing here.
    """

    shape: tuple[int, int] = (2162, 2068)
    dtype: str = "uint16"
    channels: tuple[str, ...] = ("threshold_1",)
    compression: Compression = "bslz4"
    header_detail: HeaderDetail = "basic"
    block_bytes: int = 0
    tick_ns: int = 1
    n_images: int = 1
    n_trigger: int = 1
    trigger_mode: str = "ints"
    count_time_s: float = 0.0099
    frame_time_s: float = 0.01
    readout_time_s: float = 1e-7
    clen_m: float = 0.15
    photon_energy_eV: float = 8000.0
    threshold_energy_eV: tuple[float, float] = (4000.0, 11200.0)
    beam_center_px: tuple[float, float] = (1034.0, 1081.0)
    pixel_size_m: float = 75e-6
    sensor_thickness_m: float = 450e-6
    sensor_material: str = "Si"
    description: str = "Dectris EIGER2 Si 4M (emulated)"
    serial_number: str = "E-08-0000"
    software_version: str = "1.8.0"
    data_collection_date: str = "2024-01-01T00:00:00.000+00:00"
    pixel_mask: NDArray[np.uint32] | None = None
    flatfield: NDArray[np.float32] | None = None
    pixel_mask_applied: bool = True
    flatfield_applied: bool = True
    countrate_correction_applied: bool = True
    virtual_pixel_correction_applied: bool = True
    mask_to_zero: bool = False
    header_appendix: str = ""
    image_appendix: str = ""
    goniometer: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: dict.fromkeys(AXES, (0.0, 0.0))
    )
    inert: Mapping[str, str | bool] = field(default_factory=lambda: dict(INERT))

    @property
    def bit_depth(self) -> int:
        """Bits of a pixel as sent."""
        return PIXEL_BITS[self.dtype]

    @property
    def saturation_value(self) -> int:
        """Largest valid count: the codes above mean no measurement (note, section 7)."""
        return int(min((1 << self.bit_depth) - 2, 2_000_000))

    @property
    def wavelength_A(self) -> float:
        """Wavelength of the incident photons."""
        return PLANCK_TIMES_C_eV_A / self.photon_energy_eV

    @property
    def images_per_trigger(self) -> int:
        """In `inte` and `exte` a trigger is one image, whatever nimages says [UM]."""
        return 1 if self.trigger_mode in ("inte", "exte") else self.n_images

    @property
    def n_frames(self) -> int:
        """Number of images of the whole series."""
        return self.images_per_trigger * self.n_trigger

    def mask(self) -> NDArray[np.uint32]:
        """Return the pixel mask sent in headers: uint32 (ss, fs), bits of note section 7."""
        if self.pixel_mask is not None:
            return np.ascontiguousarray(self.pixel_mask, np.uint32)
        return gap_mask(self.shape)

    def flat(self) -> NDArray[np.float32]:
        """Return the flatfield sent in headers: float32 (ss, fs)."""
        if self.flatfield is not None:
            return np.ascontiguousarray(self.flatfield, np.float32)
        return np.ones(self.shape, np.float32)

    def translation_m(self) -> tuple[float, float, float]:
        """Return `detector_translation`: beam position, and minus the distance ([REAL2])."""
        x, y = self.beam_center_px
        return x * self.pixel_size_m, y * self.pixel_size_m, -self.clen_m


@lru_cache(maxsize=1)
def gap_mask(shape: tuple[int, int]) -> NDArray[np.uint32]:
    """Return the mask of an EIGER2's module gaps, read-only uint32 (ss, fs)."""
    rows, columns = (np.arange(n) for n in shape)
    gap_row = rows % MODULE_PITCH[0] >= MODULE_SHAPE[0]
    gap_column = columns % MODULE_PITCH[1] >= MODULE_SHAPE[1]
    mask = np.where(gap_row[:, None] | gap_column, GAP_BIT, 0).astype(np.uint32)
    mask.flags.writeable = False
    return mask


def simplon_values(config: DetectorConfig) -> dict[str, Any]:
    """Return SIMPLON config name -> plain value: V1 header part 2, and what REST answers."""
    rows, columns = config.shape
    axes = {
        f"{axis}_{word}": value
        for axis, pair in config.goniometer.items()
        for word, value in zip(("start", "increment"), pair, strict=True)
    }
    return (
        axes
        | dict(config.inert)
        | {
            "beam_center_x": config.beam_center_px[0],
            "beam_center_y": config.beam_center_px[1],
            "bit_depth_image": config.bit_depth,
            "bit_depth_readout": min(config.bit_depth, 16),
            "compression": config.compression,
            "count_time": config.count_time_s,
            "countrate_correction_applied": config.countrate_correction_applied,
            "countrate_correction_count_cutoff": config.saturation_value,
            "data_collection_date": config.data_collection_date,
            "description": config.description,
            "detector_distance": config.clen_m,
            "detector_number": config.serial_number,
            "detector_readout_time": config.readout_time_s,
            "detector_translation": list(config.translation_m()),
            "eiger_fw_version": "release-2022.1.2",
            "flatfield_correction_applied": config.flatfield_applied,
            "frame_time": config.frame_time_s,
            "incident_energy": config.photon_energy_eV,
            "mask_to_zero": config.mask_to_zero,
            "nimages": config.n_images,
            "ntrigger": config.n_trigger,
            "number_of_excluded_pixels": int(np.count_nonzero(config.mask())),
            "photon_energy": config.photon_energy_eV,
            "pixel_mask_applied": config.pixel_mask_applied,
            "sensor_material": config.sensor_material,
            "sensor_thickness": config.sensor_thickness_m,
            "software_version": config.software_version,
            "threshold_energy": config.threshold_energy_eV[0],
            "trigger_mode": config.trigger_mode,
            "virtual_pixel_correction_applied": config.virtual_pixel_correction_applied,
            "wavelength": config.wavelength_A,
            "x_pixel_size": config.pixel_size_m,
            "x_pixels_in_detector": columns,
            "y_pixel_size": config.pixel_size_m,
            "y_pixels_in_detector": rows,
        }
    )


def with_changes(config: DetectorConfig, changes: Mapping[str, Any]) -> DetectorConfig:
    """Return the config with changed fields, coupled times put right.

    A count time longer than the frame time pushes the frame time up [RN].
    """
    config = replace(config, **changes)
    frame_time_s = max(config.frame_time_s, config.count_time_s + config.readout_time_s)
    return replace(config, frame_time_s=frame_time_s)


@dataclass(frozen=True, slots=True)
class Series:
    """Which series a message belongs to.

    Attributes:
        number: the id; restarts at 1 after `initialize`.
        uid: 26 characters, never repeated.
        arm_date: when it was armed, with time zone.
        start_date: start of its first exposure, with time zone.
    """

    number: int
    uid: str
    arm_date: datetime
    start_date: datetime


@dataclass(frozen=True, slots=True)
class ExposureTimes:
    """When an image was taken, in ns since the start of its series."""

    start_ns: int
    stop_ns: int
    real_ns: int


def exposure_times(
    config: DetectorConfig, frame: int, count_time_s: float | None = None
) -> ExposureTimes:
    """Return the nominal times of frame number `frame`: back to back at the frame time.

    Args:
        count_time_s: the trigger's own exposure time (`inte`), None for the configured one.
    """
    start_ns = round(frame * config.frame_time_s * 1e9)
    real_ns = round((config.count_time_s if count_time_s is None else count_time_s) * 1e9)
    return ExposureTimes(start_ns, start_ns + real_ns, real_ns)


def new_uid() -> str:
    """Return a fresh `series_unique_id`: 48 bits of milliseconds, 80 random ones (a ULID)."""
    number = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    digits = math.ceil(128 / 5)
    return "".join(_ULID_ALPHABET[number >> 5 * k & 31] for k in reversed(range(digits)))
