"""SIMPLON's detector parameters: what a client reads, may write, and what else changes with it.

Its one rule: a table, no I/O; a value is checked here before the detector sees it. Names, value
types and couplings from the protocol note, section 9.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder import HitfinderError
from hitfinder.sim.detector import (
    AXES,
    INERT,
    TRIGGER_MODES,
    DetectorConfig,
    PLANCK_TIMES_C_eV_A,
    simplon_values,
)

# Answered, but not listed under `config/keys` of a real unit (fastcs-eiger asks for it by name).
UNLISTED = frozenset({"wavelength"})
ARRAYS = tuple(
    f"{prefix}{name}"
    for prefix in ("", "threshold/1/", "threshold/2/")
    for name in ("pixel_mask", "flatfield")
)
CHANNEL_OF = {
    "threshold/1/mode": "threshold_1",
    "threshold/2/mode": "threshold_2",
    "threshold/difference/mode": "difference",
}
ON_OFF = ("enabled", "disabled")


class ParameterError(HitfinderError):
    """A value that the parameter cannot take."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter that a client may write.

    Attributes:
        change: (config, checked value) -> changed fields of the config.
        value_type: SIMPLON's word: float, uint, bool or string.
        minimum: smallest value taken.
        unit: as SIMPLON states it.
        allowed: the words taken; empty for any.
    """

    change: Callable[[DetectorConfig, Any], dict[str, Any]]
    value_type: str
    minimum: float | None = None
    unit: str | None = None
    allowed: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        """Return the value as the detector keeps it.

        Raises:
            ParameterError: another type, out of range, or not one of the allowed words.
        """
        kinds = {"float": (int, float), "uint": int, "bool": bool, "string": str}
        is_kind = isinstance(value, kinds[self.value_type])  # type: ignore[arg-type]
        if not is_kind or (isinstance(value, bool) and self.value_type != "bool"):
            raise ParameterError(f"{name}: {value!r}; expected a {self.value_type}")
        if self.allowed and value not in self.allowed:
            raise ParameterError(f"{name}: {value!r}; expected one of {', '.join(self.allowed)}")
        if self.value_type in ("float", "uint") and not math.isfinite(value):
            raise ParameterError(f"{name}: {value!r}; expected a finite number")
        if self.minimum is not None and value < self.minimum:
            raise ParameterError(f"{name}: {value!r}; expected at least {self.minimum:g}")
        return float(value) if self.value_type == "float" else value


def settings() -> dict[str, Setting]:
    """Return every writable scalar parameter by name."""
    table = {
        "nimages": _plain("n_images", "uint", 1),
        "ntrigger": _plain("n_trigger", "uint", 1),
        "trigger_mode": _plain("trigger_mode", "string", allowed=TRIGGER_MODES),
        "count_time": _plain("count_time_s", "float", 1e-7, "s"),
        "frame_time": _plain("frame_time_s", "float", 1e-7, "s"),
        "compression": _plain("compression", "string", allowed=("bslz4", "lz4", "none")),
        "detector_distance": _plain("clen_m", "float", 0, "m"),
        "data_collection_date": _plain("data_collection_date", "string"),
        "pixel_mask_applied": _plain("pixel_mask_applied", "bool"),
        "flatfield_correction_applied": _plain("flatfield_applied", "bool"),
        "countrate_correction_applied": _plain("countrate_correction_applied", "bool"),
        "virtual_pixel_correction_applied": _plain("virtual_pixel_correction_applied", "bool"),
        "mask_to_zero": _plain("mask_to_zero", "bool"),
        "photon_energy": Setting(_set_energy, "float", 1, "eV"),
        "incident_energy": Setting(_set_energy, "float", 1, "eV"),
        "wavelength": Setting(
            lambda c, v: _set_energy(c, PLANCK_TIMES_C_eV_A / v), "float", 0.01, "angstrom"
        ),
        "beam_center_x": Setting(
            lambda c, v: {"beam_center_px": (v, c.beam_center_px[1])}, "float", None, "pixel"
        ),
        "beam_center_y": Setting(
            lambda c, v: {"beam_center_px": (c.beam_center_px[0], v)}, "float", None, "pixel"
        ),
    }
    for name in ("threshold_energy", "threshold/1/energy"):
        table[name] = Setting(_set_threshold(0), "float", 1, "eV")
    table["threshold/2/energy"] = Setting(_set_threshold(1), "float", 1, "eV")
    table |= {
        name: Setting(_set_channel(channel), "string", allowed=ON_OFF)
        for name, channel in CHANNEL_OF.items()
    }
    for axis in AXES:
        for k, word in enumerate(("start", "increment")):
            table[f"{axis}_{word}"] = Setting(_set_axis(axis, k), "float", None, "degree")
    for name, value in INERT.items():
        kind = "bool" if isinstance(value, bool) else "string"
        table[name] = Setting(_set_inert(name), kind)
    return table


def detector_values(config: DetectorConfig) -> dict[str, Any]:
    """Return every scalar detector config parameter by name."""
    low, high = config.threshold_energy_eV
    modes = {
        name: ON_OFF[0] if channel in config.channels else ON_OFF[1]
        for name, channel in CHANNEL_OF.items()
    }
    energies = {"threshold/1/energy": low, "threshold/2/energy": high}
    return simplon_values(config) | modes | energies


def changed_names(before: DetectorConfig, after: DetectorConfig) -> list[str]:
    """Return the parameters whose value is another one now, in alphabetical order."""
    old, new = detector_values(before), detector_values(after)
    return sorted(name for name, value in new.items() if old[name] != value)


def describe(value: Any, setting: Setting | None = None) -> dict[str, Any]:
    """Return the JSON object of a GET: value, type, access and limits; absent keys left out."""
    limits: Mapping[str, Any] = {}
    if setting is not None:
        limits = {"min": setting.minimum, "unit": setting.unit, "allowed_values": setting.allowed}
    return {
        "value": value,
        "value_type": value_type(value),
        "access_mode": "r" if setting is None else "rw",
        **{key: limit for key, limit in limits.items() if limit not in (None, ())},
    }


def value_type(value: Any) -> str:
    """Return SIMPLON's word for the type of a value."""
    if isinstance(value, list):
        return "float[]" if value and isinstance(value[0], float) else "string[]"
    names = {bool: "bool", int: "uint", float: "float", str: "string"}
    return names[type(value)]


def to_darray(array: NDArray[Any]) -> dict[str, Any]:
    """Return a 2-D array as SIMPLON's JSON: shape is [x, y], bytes in base64."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "__darray__": [1, 0, 0],
        "type": little.dtype.str,
        "shape": list(reversed(array.shape)),
        "filters": ["base64"],
        "data": base64.b64encode(little.tobytes()).decode("ascii"),
    }


def from_darray(name: str, plain: Any, config: DetectorConfig) -> NDArray[Any]:
    """Return the uploaded mask or flatfield, (ss, fs).

    Raises:
        ParameterError: not a darray of the detector's shape and the parameter's type.
    """
    expected = np.dtype("<u4" if name.endswith("pixel_mask") else "<f4")
    try:
        is_right = plain["type"] == expected.str and plain["filters"] == ["base64"]
        is_right = is_right and plain["shape"] == list(reversed(config.shape))
        raw = base64.b64decode(plain["data"], validate=True) if is_right else b""
    except (KeyError, TypeError, ValueError) as reason:
        raise ParameterError(f"{name}: not a base64 darray ({reason!r})") from reason
    if len(raw) != math.prod(config.shape) * expected.itemsize:
        raise ParameterError(
            f"{name}: expected a base64 darray of {expected.str}, shape [x, y] = "
            f"{list(reversed(config.shape))}"
        )
    return np.frombuffer(raw, expected).reshape(config.shape)


def _plain(
    field: str,
    kind: str,
    minimum: float | None = None,
    unit: str | None = None,
    allowed: tuple[str, ...] = (),
) -> Setting:
    return Setting(lambda _, value: {field: value}, kind, minimum, unit, allowed)


def _set_energy(config: DetectorConfig, photon_energy_eV: float) -> dict[str, Any]:
    """A new photon energy puts the first threshold at half of it, as the real unit does."""
    high = config.threshold_energy_eV[1]
    return {
        "photon_energy_eV": photon_energy_eV,
        "threshold_energy_eV": (photon_energy_eV / 2, high),
    }


def _set_threshold(k: int) -> Callable[[DetectorConfig, float], dict[str, Any]]:
    def change(config: DetectorConfig, energy_eV: float) -> dict[str, Any]:
        low, high = config.threshold_energy_eV
        return {"threshold_energy_eV": (energy_eV, high) if k == 0 else (low, energy_eV)}

    return change


def _set_channel(channel: str) -> Callable[[DetectorConfig, str], dict[str, Any]]:
    def change(config: DetectorConfig, mode: str) -> dict[str, Any]:
        on = set(config.channels) - {channel} | ({channel} if mode == ON_OFF[0] else set())
        if not on:
            raise ParameterError(f"{channel}: the last channel cannot be disabled")
        return {"channels": tuple(c for c in CHANNEL_OF.values() if c in on)}

    return change


def _set_axis(axis: str, k: int) -> Callable[[DetectorConfig, float], dict[str, Any]]:
    def change(config: DetectorConfig, degrees: float) -> dict[str, Any]:
        start, increment = config.goniometer[axis]
        pair = (degrees, increment) if k == 0 else (start, degrees)
        return {"goniometer": {**config.goniometer, axis: pair}}

    return change


def _set_inert(name: str) -> Callable[[DetectorConfig, Any], dict[str, Any]]:
    return lambda config, value: {"inert": {**config.inert, name: value}}
