"""The configuration: one typed tree, read from TOML, overridden by the command line.

One rule: a key that is not here is an error that names it and the nearest right one; a bad value
names the key, what was got and what was expected (design section 7, config keys, fixed).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from hitfinder import HitfinderError

# Daemons that may ever write one run over several hosts; a restarted one counts anew.
MAX_MEMBERS = 99

Tree = TypeVar("Tree", bound=msgspec.Struct)


class ConfigError(HitfinderError):
    """The operator asked for something that cannot be; exit status 2."""


class SourceConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[source]`: where frames come from."""

    endpoints: list[str] = []
    protocol: Literal["auto", "v1", "v2"] = "auto"
    lenient: bool = False
    """Accept the two simulators whose blob headers are wrong."""
    rest: str | None = None
    """HOST:PORT of the detector's REST interface; its state and buffer are watched alone."""


class GeometryConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[geometry]`: overrides or completes the header; the summary says which source won."""

    clen_m: float | None = None
    photon_energy_eV: float | None = None
    beam_center_px: tuple[float, float] | None = None
    geom_file: str | None = None
    mask_file: str | None = None


class GateConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[gate]`: what a hit is."""

    mode: Literal["any", "spots3"] = "any"
    max_false_positive_rate: float = 1e-3
    threshold: float | None = None
    """Overrides the threshold that the false-positive rate gives."""
    model: str | None = None


class RingConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[ring]`: the shared memory. Only slots in use take memory."""

    slots: int = 64
    slot_bytes: int = 40 << 20
    """Most bytes of a frame, packed and decoded; only its packed bytes lie in the ring."""
    when_full: Literal["drop", "block"] = "drop"
    """`drop`: stop reading for ten seconds in which all processes run, 90 s at most, then drop and
    count; `block`: wait."""


class SinkConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[sink]`: what is kept, and where results are published."""

    out: str | None = None
    frames_per_file: int = 1000
    miss_sample_fraction: float = 0.01
    results: str = "tcp://127.0.0.1:5557"
    results_key_file: str | None = None
    """Secret key (`hitfinder-stream keys`); with it the results topic is encrypted."""
    results_clients: str | None = None
    """Folder of the public keys of those who may read; none for all who have the server's."""


class WorkersConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[workers]`: who judges."""

    devices: list[str] = msgspec.field(default_factory=lambda: ["auto"])
    decoders: int = 0
    """Threads of each worker; 0 shares half of the cores among the workers, at most 8 each."""
    batch: int = 8
    max_wait_s: float = 0.02
    """The oldest frame of an incomplete batch waits no longer than this."""


class HttpConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[http]`: the status page."""

    bind: str = "127.0.0.1:8080"
    token_file: str | None = None


class LogConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[log]`: what is written to stderr."""

    form: Literal["text", "json"] = "text"
    """Lines for people, or one JSON object a line."""


class MemberConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[member]`: one of several daemons that share a detector; `run --cluster` sets it."""

    number: int = 0
    """1 to 99, no other's in this run: its hit files and lists of learned pixels are numbered from
    10 000 times this. 0: the daemon has the detector to itself."""
    peers: str | None = None
    """Where it tells of the headers and ends that it got, and hears of the others'."""


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """The whole tree; every section may be left out."""

    source: SourceConfig = msgspec.field(default_factory=SourceConfig)
    geometry: GeometryConfig = msgspec.field(default_factory=GeometryConfig)
    gate: GateConfig = msgspec.field(default_factory=GateConfig)
    ring: RingConfig = msgspec.field(default_factory=RingConfig)
    sink: SinkConfig = msgspec.field(default_factory=SinkConfig)
    workers: WorkersConfig = msgspec.field(default_factory=WorkersConfig)
    http: HttpConfig = msgspec.field(default_factory=HttpConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)
    member: MemberConfig = msgspec.field(default_factory=MemberConfig)

    def as_json(self) -> str:
        """Return the effective configuration as stamped into files."""
        return msgspec.json.encode(self).decode()

    def sha256(self) -> str:
        """Return the hash of `as_json`."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def n_decoders(self, n_workers: int) -> int:
        """Return the number of decoder threads of each worker."""
        cores = len(os.sched_getaffinity(0))
        return self.workers.decoders or max(1, min(8, cores // 2 // n_workers))


def read_config(path: Path | None) -> Config:
    """Read a TOML file, or return the defaults.

    Raises:
        ConfigError: unreadable file, unknown key, wrong type or a value out of range.
    """
    config = Config() if path is None else read_tree(path, Config)
    check_values(config)
    return config


def read_tree(path: Path, shape: type[Tree]) -> Tree:
    """Read a TOML file as a typed tree.

    Args:
        path: the file.
        shape: a `msgspec.Struct` whose sections are structs too.

    Raises:
        ConfigError: unreadable file, unknown key or wrong type; values are not looked at.
    """
    try:
        tree = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"config file {path}: {error.strerror}; give a readable file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not TOML: {error}") from error
    _check_keys(tree, shape, "")
    try:
        return msgspec.convert(tree, shape)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at ")
        key = where.strip("`").removeprefix("$.") or "the file"
        raise ConfigError(f"config {path}: {key}: {text}") from error


def check_bounds(bounds: Iterable[tuple[str, float | None, float, float]]) -> None:
    """Refuse values that are out of range; None is a value that nobody gave.

    Args:
        bounds: key, value, lowest and highest value.

    Raises:
        ConfigError: names the key, what was got and what was expected.
    """
    for key, value, low, high in bounds:
        if value is not None and not low <= value <= high:
            raise ConfigError(f"{key}: got {value}, expected {low} to {high}")


def check_values(config: Config) -> None:
    """Refuse values that no run can use.

    Raises:
        ConfigError: names the key, what was got and what was expected.
    """
    bounds = (
        ("gate.max_false_positive_rate", config.gate.max_false_positive_rate, 0.0, 1.0),
        ("gate.threshold", config.gate.threshold, 0.0, 1.0),
        ("ring.slots", config.ring.slots, 2, 4096),
        ("ring.slot_bytes", config.ring.slot_bytes, 1 << 12, 1 << 30),
        ("sink.frames_per_file", config.sink.frames_per_file, 1, 1_000_000),
        ("sink.miss_sample_fraction", config.sink.miss_sample_fraction, 0.0, 1.0),
        ("workers.decoders", config.workers.decoders, 0, 64),
        ("workers.batch", config.workers.batch, 1, 1024),
        ("workers.max_wait_s", config.workers.max_wait_s, 0.0, 10.0),
        ("member.number", config.member.number, 0, MAX_MEMBERS),
        ("geometry.clen_m", config.geometry.clen_m, 1e-3, 100.0),
        ("geometry.photon_energy_eV", config.geometry.photon_energy_eV, 100.0, 1e6),
    )
    check_bounds(bounds)
    host, _, port = (config.source.rest or "host:80").rpartition(":")
    if not (host and port.isdigit() and 0 < int(port) < 65536) or "/" in host:
        raise ConfigError(f"source.rest: got {config.source.rest!r}, expected HOST:PORT")
    if not config.workers.devices:
        raise ConfigError("workers.devices: got an empty list, expected e.g. ['cpu']")


def _check_keys(tree: dict[str, Any], shape: type[msgspec.Struct], prefix: str) -> None:
    """Name unknown keys with the nearest right one; msgspec alone would only name the key."""
    known = {f.name: f.type for f in msgspec.structs.fields(shape)}
    for key, value in tree.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0)[0]
            raise ConfigError(
                f"unknown key {prefix}{key}; nearest is {prefix}{near} "
                f"(known: {', '.join(sorted(known))})"
            )
        kind = known[key]
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if not isinstance(value, dict):
                raise ConfigError(f"{prefix}{key}: got {value!r}, expected a section [{key}]")
            _check_keys(value, kind, f"{prefix}{key}.")
