"""The SIMPLON REST interface of the emulated detector: requests in, replies out, no sockets.

Its one rule: answer what clients of a real unit ask for, in the JSON shapes they expect
(protocol note, section 9, "Minimum to answer"); everything else is 404. `rest_server.py` puts
it on HTTP. The file writer does not exist here and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from hitfinder import HitfinderError
from hitfinder.sim.detector import Protocol, exposure_times
from hitfinder.sim.emulator import Emulator, State
from hitfinder.sim.encoding import EncodedImage, unpack
from hitfinder.sim.parameters import (
    ARRAYS,
    UNLISTED,
    ParameterError,
    Setting,
    changed_names,
    describe,
    detector_values,
    from_darray,
    settings,
    to_darray,
)
from hitfinder.sim.tiff import tiff

VERSION = "1.8.0"
VERSIONS = ("1.6.0", "1.8.0")
MODULES = ("detector", "stream", "monitor", "filewriter", "system")
FORMAT_OF: Mapping[str, Protocol] = {"legacy": "v1", "cbor": "v2"}
ALLOWED = {
    "mode": ("enabled", "disabled"),
    "format": tuple(FORMAT_OF),
    "header_detail": ("none", "basic", "all"),
}
# Commands of a real unit that have nothing to do here.
IDLE_COMMANDS = ("status_update", "hv_reset", "wait", "check_connections")
# Housekeeping of a healthy detector, as far as clients look.
HOUSEKEEPING: Mapping[str, Any] = {
    "humidity": 5.0,
    "temperature": 22.0,
    "link_0": "up",
    "link_1": "up",
    "high_voltage/state": "READY",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to a client."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"


class UnknownPathError(HitfinderError):
    """A path that is not part of the interface."""


class Simplon:
    """The interface of one emulator; keeps the settings that exist only here.

    Args:
        emulator: whose commands and settings are reached.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self._settings = settings()
        self._monitor: dict[str, Any] = {
            "mode": "disabled",
            "buffer_size": 512,
            "discard_new": False,
        }
        self._filewriter: dict[str, Any] = {
            "mode": "disabled",
            "name_pattern": "series_$id",
            "nimages_per_file": 1000,
            "image_nr_start": 1,
            "compression_enabled": True,
            "format": "hdf5 nexus legacy nxmx",
        }
        self._shown: tuple[int, int] | None = None

    def answer(self, method: str, path: str, body: bytes = b"", accept: str = "") -> Reply:
        """Answer one request; refusals become replies with a text.

        Args:
            method: `GET` or `PUT`.
            path: without host and query.
            accept: the `Accept` header: a TIFF type asks for arrays as TIFF.
        """
        try:
            return self._route(method, path.strip("/").split("/"), body, accept)
        except UnknownPathError as reason:
            return Reply(str(reason).encode(), 404, "text/plain")
        except HitfinderError as reason:
            return Reply(str(reason).encode(), 400, "text/plain")

    def _route(self, method: str, path: list[str], body: bytes, accept: str) -> Reply:
        match path:
            case [module, "api", "version"] if module in MODULES and method == "GET":
                return _json({"value": VERSION, "value_type": "string"})
            case ["detector", "api", version, "config", *name] if version in VERSIONS:
                return self._detector_config(method, "/".join(name), body, accept)
            case ["detector", "api", version, "command", name] if version in VERSIONS:
                return _json(self._detector_command(_need_put(method, name), _value(body)))
            case ["monitor", "api", version, "images", *which] if version in VERSIONS:
                return self._images(which)
            case [module, "api", version, "status", *name] if version in VERSIONS:
                return _status(self._statuses(module), "/".join(name))
            case [module, "api", version, "config", name] if version in VERSIONS:
                return self._module_config(method, module, name, body)
            case [module, "api", version, "command", name] if version in VERSIONS:
                return _json(self._module_command(module, _need_put(method, name)))
            case ["filewriter", "api", version, "files"] if version in VERSIONS:
                return _json([])
        raise UnknownPathError(f"{'/'.join(path)}: no such parameter")

    # -- detector ------------------------------------------------------------------------------

    def _detector_config(self, method: str, name: str, body: bytes, accept: str) -> Reply:
        config = self.emulator.config
        if name == "keys":
            return _json(sorted((detector_values(config).keys() - UNLISTED) | set(ARRAYS)))
        if name in ARRAYS:
            return self._detector_array(method, name, body, accept)
        values = detector_values(config)
        if name not in values:
            raise UnknownPathError(f"detector config {name}: no such parameter")
        setting = self._settings.get(name)
        if method == "GET":
            return _json(describe(values[name], setting))
        if setting is None:
            raise ParameterError(f"detector config {name} is read only")
        value = setting.check(name, _value(body))
        self.emulator.configure(**setting.change(config, value))
        return _json(changed_names(config, self.emulator.config))

    def _detector_array(self, method: str, name: str, body: bytes, accept: str) -> Reply:
        config = self.emulator.config
        field = name.rpartition("/")[2]
        if method != "GET":
            array = from_darray(name, _value(body), config)
            self.emulator.configure(**{field: array})
            return _json([name])
        array = config.mask() if field == "pixel_mask" else config.flat()
        if "tif" in accept:
            return Reply(tiff(array, datetime.now(UTC)), media_type="application/tiff")
        return _json({"value": to_darray(array), "value_type": "darray", "access_mode": "rw"})

    def _detector_command(self, name: str, value: Any) -> dict[str, int]:
        e = self.emulator
        if name == "trigger":
            seconds = Setting(lambda _, __: {}, "float", 0.0)
            e.trigger(None if value is None else seconds.check("trigger", value))
            return {}
        if name == "initialize":
            e.initialize()
            return {}
        commands: dict[str, Callable[[], int]] = {
            "arm": e.arm,
            "disarm": e.disarm,
            "cancel": e.cancel,
            "abort": e.abort,
        }
        if name in commands:
            return {"sequence id": commands[name]()}
        if name in IDLE_COMMANDS:
            return {}
        raise UnknownPathError(f"detector command {name}: no such command")

    # -- stream, monitor, filewriter, system ---------------------------------------------------

    def _module_values(self, module: str) -> dict[str, Any]:
        e = self.emulator
        if module == "stream":
            return {
                "mode": "enabled" if e.enabled else "disabled",
                "format": next(f for f, p in FORMAT_OF.items() if p == e.protocol),
                "header_detail": e.config.header_detail,
                "header_appendix": e.config.header_appendix,
                "image_appendix": e.config.image_appendix,
            }
        return {"monitor": self._monitor, "filewriter": self._filewriter}.get(module, {})

    def _module_config(self, method: str, module: str, name: str, body: bytes) -> Reply:
        values = self._module_values(module)
        if name == "keys" and values:
            return _json(sorted(values))
        if name not in values:
            raise UnknownPathError(f"{module} config {name}: no such parameter")
        if method == "GET":
            allowed = {"allowed_values": ALLOWED[name]} if name in ALLOWED else {}
            return _json(describe(values[name]) | {"access_mode": "rw"} | allowed)
        value, before = _value(body), values[name]
        if type(value) is not type(before):
            raise ParameterError(f"{module} {name}: {value!r}; expected like {before!r}")
        if module != "filewriter" and name in ALLOWED and value not in ALLOWED[name]:
            raise ParameterError(f"{module} {name}: {value!r}; one of {', '.join(ALLOWED[name])}")
        if module == "stream":
            self._set_stream(name, value)
        elif (module, name) != ("filewriter", "mode"):  # it stays disabled: there is none
            values[name] = value
        return _json([name] if self._module_values(module)[name] != before else [])

    def _set_stream(self, name: str, value: Any) -> None:
        if name == "mode":
            self.emulator.enabled = value == "enabled"
        elif name == "format":
            self.emulator.select_protocol(FORMAT_OF[value])
        else:
            self.emulator.configure(**{name: value})

    def _module_command(self, module: str, name: str) -> dict[str, int]:
        match module, name:
            case "stream", "initialize":
                self.emulator.stream_initialize()
            case "monitor", "clear" | "initialize":
                latest = self.emulator.latest
                self._shown = None if latest is None else latest[:2]
            case ("filewriter", "clear" | "initialize") | ("system", "restart"):
                pass
            case _:
                raise UnknownPathError(f"{module} command {name}: no such command")
        return {}

    def _statuses(self, module: str) -> dict[str, Any]:
        e = self.emulator
        is_armed = e.state in (State.READY, State.ACQUIRE)
        n_waiting = int(e.latest is not None and e.latest[:2] != self._shown)
        match module:
            case "detector":
                return {
                    "state": str(e.state),
                    "error": [],
                    "time": _now(),
                    "series_unique_id": e.series.uid,
                    **HOUSEKEEPING,
                }
            case "stream":
                state = "disabled" if not e.enabled else "acquire" if is_armed else "ready"
                return {"state": state, "dropped": e.dropped, "error": []}
            case "monitor":
                return {
                    "state": "normal",
                    "dropped": 0,
                    "error": [],
                    "buffer_free": 1 - n_waiting,
                    "buffer_fill_level": [n_waiting, 1],
                }
            case "filewriter":
                return {"state": "disabled", "error": [], "files": [], "buffer_free": 0}
        raise UnknownPathError(f"{module} has no status")

    def _images(self, which: Sequence[str]) -> Reply:
        """Answer from the one image the monitor keeps: the latest."""
        latest = self.emulator.latest if self._monitor["mode"] == "enabled" else None
        match which:
            case []:
                return _json([] if latest is None else [[latest[0], [latest[1]]]])
            case ["next"]:
                if latest is None or latest[:2] == self._shown:
                    return Reply(b"no new image", 408, "text/plain")
                self._shown = latest[:2]
                return self._tiff(*latest)
            case ["monitor"]:
                if latest is None:
                    return Reply(b"no image", 408, "text/plain")
                return self._tiff(*latest)
            case [series, frame] if latest is not None and [series, frame] == [
                str(number) for number in latest[:2]
            ]:
                return self._tiff(*latest)
        raise UnknownPathError(f"monitor image {'/'.join(which)}: not held")

    def _tiff(self, _series: int, frame: int, images: Sequence[EncodedImage]) -> Reply:
        start_ns = exposure_times(self.emulator.config, frame).start_ns
        taken = self.emulator.series.start_date + timedelta(microseconds=start_ns // 1000)
        return Reply(tiff(unpack(images[0]), taken), media_type="application/tiff")


def _status(statuses: Mapping[str, Any], name: str) -> Reply:
    if name == "keys":
        return _json(sorted(statuses.keys() - {"error"}))
    if name not in statuses:
        raise UnknownPathError(f"status {name}: no such parameter")
    described = describe(statuses[name]) | {"time": _now(), "state": "normal"}
    return _json(described | ({"value_type": "datetime"} if name == "time" else {}))


def _need_put(method: str, name: str) -> str:
    if method != "PUT":
        raise ParameterError(f"command {name}: {method}; expected PUT")
    return name


def _value(body: bytes) -> Any:
    """Return `value` of a request body; None for the empty bodies that commands have."""
    if not body.strip():
        return None
    try:
        plain = json.loads(body)
    except ValueError as reason:
        raise ParameterError(f"body is not JSON ({reason})") from reason
    return plain.get("value") if isinstance(plain, dict) else None


def _json(value: Any) -> Reply:
    return Reply(json.dumps(value, separators=(",", ":"), default=_plain).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value)} has no JSON form")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
