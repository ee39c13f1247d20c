"""How many hosts, cards and collectors a detector needs, from what one host was measured to take.

One rule: every figure is a measurement, given on the command line, or said to be assumed; a plan
is believed once a simulation of its queues drops nothing. Cost is taken to grow with the pixels,
and cores to scale: both are what the first run at such a place should measure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hitfinder.workers.config import ConfigError

MEASURED_PIXELS = 2162 * 2068
# Share of any resource that a plan uses: queues grow without bound towards 1.
FULL = 0.7
GBIT = 1e9 / 8
# Jobs of a daemon that are one process each, so that one core bounds each.
SINGLE = ("receiver", "sink", "supervisor")


@dataclass(frozen=True, slots=True)
class HostCost:
    """What a frame costs on one host, core-ms; of a 4M detector unless scaled.

    Attributes:
        jobs: job -> core-ms a frame; `worker` is shared by all cores, the others are one process.
        packed_bytes: of a frame on the wire.
        hit_fraction: of the frames measured.
    """

    jobs: Mapping[str, float]
    packed_bytes: float
    hit_fraction: float

    def scaled(self, pixels: float) -> HostCost:
        """Return the cost of frames of another size.

        The supervisor's is that of a record and the sink's mostly of rows, but both are scaled,
        too: an upper bound.
        """
        by = pixels / MEASURED_PIXELS
        jobs = {job: by * ms for job, ms in self.jobs.items()}
        return HostCost(jobs, by * self.packed_bytes, self.hit_fraction)


@dataclass(frozen=True, slots=True)
class Site:
    """What stands at a place; assumed unless it was given.

    Attributes:
        cores: of a host, for the daemon.
        card_Gbit: of a host's network card towards the detector.
        detector_Gbit: that the detector's control unit sends at most.
        disk_GB: that the shared file system takes a second, of all hosts.
        collector_ms: core-ms a record of the collector, which is one process.
        n_beamlines: that write to the same disk; all else each has to itself.
    """

    cores: int = 32
    card_Gbit: float = 25.0
    detector_Gbit: float = 100.0
    disk_GB: float = 5.0
    collector_ms: float = 0.17
    n_beamlines: int = 1


@dataclass(frozen=True, slots=True)
class Detector:
    """One beamline's.

    Attributes:
        pixels: of a frame; rate_Hz: frames a second.
    """

    name: str
    pixels: float
    rate_Hz: float


DETECTORS = (
    Detector("4M at 1 kHz", MEASURED_PIXELS, 1000.0),
    Detector("16M at 1 kHz", 4362 * 4148, 1000.0),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a detector needs.

    Attributes:
        limits_Hz: resource -> frames a second that it takes when it is full: of one host, or of
            what all hosts share (`detector link`, `disk`, `collector`).
        hosts_bound: what of a host is full first, and sets their number.
        n_hosts: so that nothing of a host is used beyond `FULL`.
        first: what is used most then, of hosts and of what they share.
        use: resource -> share of it in use; above 1 the site cannot do it.
    """

    detector: Detector
    cost: HostCost
    limits_Hz: Mapping[str, float]
    hosts_bound: str
    n_hosts: int
    first: str
    use: Mapping[str, float]


def read_cost(path: Path) -> HostCost:
    """Read what `bench --json` measured.

    Raises:
        ConfigError: not such a file.
    """
    try:
        said = json.loads(path.read_text())
        jobs = {p["process"]: float(p["core_ms"]) for p in said["end_to_end"][0]["processes"]}
        packed = float(said["frame"]["n_bytes_packed_mean"])
        hit_fraction = float(said["options"]["mix"]["hit_fraction"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"bench file {path}: {error}; give what `bench --json` wrote") from error
    if set(jobs) != {*SINGLE, "worker"}:
        raise ConfigError(f"bench file {path}: its processes are {', '.join(jobs)}")
    return HostCost(jobs, packed, hit_fraction)


def plan(detector: Detector, measured: HostCost, site: Site) -> Plan:
    """Return what one detector needs at a site."""
    cost = measured.scaled(detector.pixels)
    total_ms = sum(cost.jobs.values())
    of_host = {
        "cores": 1e3 * site.cores / total_ms,
        "network card": site.card_Gbit * GBIT / cost.packed_bytes,
        **{job: 1e3 / cost.jobs[job] for job in SINGLE},
    }
    of_all = {
        "detector link": site.detector_Gbit * GBIT / cost.packed_bytes,
        "disk": site.disk_GB * 1e9 / site.n_beamlines / (cost.packed_bytes * cost.hit_fraction),
        "collector": 1e3 / site.collector_ms,
    }
    hosts_bound = min(of_host, key=lambda name: of_host[name])
    n_hosts = max(1, math.ceil(detector.rate_Hz / (FULL * of_host[hosts_bound])))
    use = {name: detector.rate_Hz / n_hosts / limit for name, limit in of_host.items()}
    use |= {name: detector.rate_Hz / limit for name, limit in of_all.items()}
    first = max(use, key=lambda name: use[name])
    return Plan(detector, cost, {**of_host, **of_all}, hosts_bound, n_hosts, first, use)
