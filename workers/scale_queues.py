"""A plan's hosts as queues, frame by frame: does it hold, and what is it that fails first?

One rule: what is bounded is bounded here: the detector's queue for each host, the ring's slots of
each, and cores that its processes share. A frame that finds no room is dropped.

    detector -> hosts in turn: card -> ring [ receiver -> worker (any core) -> sink -> supervisor ]
             -> collector
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hitfinder.workers.scale import GBIT, SINGLE, Plan, Site

RING_SLOTS = 64
# Frames that wait at the detector for one host's card; what a real one holds is not known.
SENT_AHEAD = 100
# A hit costs this many times a blank in the worker (bench_cpu_2core_2026-11-23: decode and judge).
HIT_OVER_BLANK = (2.29 + 6.97) / (2.29 + 2.50)
# Scatter of a step's time over its mean, as that of a shared machine's.
SCATTER = 0.3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a simulated run.

    Attributes:
        n_frames, n_dropped: of all hosts.
        p50_ms, p99_ms: from the last byte on the wire to the collector's publication.
        busy: resource -> mean share in use, of all hosts.
    """

    n_frames: int
    n_dropped: int
    p50_ms: float
    p99_ms: float
    busy: dict[str, float]


class _Servers:
    """One host's, or the collector: when each server of a stage is free next, and for how long."""

    def __init__(self, stages: Mapping[str, int]) -> None:
        self.free_s = {stage: [0.0] * n for stage, n in stages.items()}
        self.busy_s = dict.fromkeys(stages, 0.0)
        self.n_sent = self.n_slots_used = 0

    def serve(self, stage: str, at_s: float, time_s: float) -> float:
        """Serve who comes now, after all who came before; returns when it is done."""
        free_s = self.free_s[stage]
        done_s = max(at_s, free_s[0]) + time_s
        heapq.heapreplace(free_s, done_s)
        self.busy_s[stage] += time_s
        return done_s


def simulate(
    plan: Plan, site: Site, n_hosts: int, n_frames: int = 20_000, seed: int = 0
) -> Outcome:
    """Send frames at the detector's rate to so many hosts.

    Args:
        plan: whose detector and costs; its own number of hosts is not used.
    """
    times_s = _step_times(plan, site, n_frames, np.random.default_rng(seed))
    served_Hz = min(plan.detector.rate_Hz / n_hosts, plan.limits_Hz[plan.hosts_bound])
    single = sum(plan.cost.jobs[job] for job in SINGLE) * served_Hz / 1e3
    # What the single processes leave of the cores is the workers', who share it evenly.
    left = max(1.0, site.cores - single)
    n_workers = math.ceil(left)
    times_s["worker"] = [t * n_workers / left for t in times_s["worker"]]
    stages = {"network card": 1, "receiver": 1, "worker": n_workers, "sink": 1, "supervisor": 1}
    hosts = [_Servers(stages) for _ in range(n_hosts)]
    collector = _Servers({"collector": 1})
    path = [*stages, "collector"]
    # Who arrives where: (time, frame, place in the path); a frame is dealt to the hosts in turn.
    events = [(frame / plan.detector.rate_Hz, frame, 0) for frame in range(n_frames)]
    received_s: dict[int, float] = {}
    latencies_s, n_dropped, at_s = [], 0, 0.0
    while events:
        at_s, frame, place = heapq.heappop(events)
        host = hosts[frame % n_hosts]
        if place == len(path):
            latencies_s.append(at_s - received_s[frame])
            continue
        stage = path[place]
        if stage == "network card":
            if host.n_sent >= SENT_AHEAD:
                n_dropped += 1
                continue
            host.n_sent += 1
        elif stage == "receiver":
            host.n_sent -= 1
            if host.n_slots_used >= RING_SLOTS:
                n_dropped += 1
                continue
            host.n_slots_used += 1
            received_s[frame] = at_s
        elif stage == "collector":
            host.n_slots_used -= 1
        servers = collector if stage == "collector" else host
        done_s = servers.serve(stage, at_s, times_s[stage][frame])
        heapq.heappush(events, (done_s, frame, place + 1))
    span_s = at_s  # of the last event
    busy = {s: sum(h.busy_s[s] for h in hosts) / n_hosts / span_s for s in stages}
    of_workers = busy.pop("worker") * left / n_workers
    busy["cores"] = (sum(busy[job] for job in SINGLE) + of_workers) / site.cores
    busy["collector"] = collector.busy_s["collector"] / span_s
    p50_s, p99_s = np.percentile(np.array(latencies_s), (50, 99))
    return Outcome(n_frames, n_dropped, float(p50_s) * 1e3, float(p99_s) * 1e3, busy)


def _step_times(
    plan: Plan, site: Site, n_frames: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Return stage -> seconds of each frame; hits cost the worker more."""
    cost = plan.cost
    is_hit = rng.random(n_frames) < cost.hit_fraction
    shape = 1 / SCATTER**2
    steps: dict[str, list[float]] = {
        "network card": [cost.packed_bytes / (site.card_Gbit * GBIT)] * n_frames,
        "collector": [site.collector_ms * 1e-3] * n_frames,
    }
    for job, ms in cost.jobs.items():
        weights = np.where(is_hit, HIT_OVER_BLANK, 1.0) if job == "worker" else np.ones(n_frames)
        mean = 1 + cost.hit_fraction * (HIT_OVER_BLANK - 1) if job == "worker" else 1.0
        drawn = rng.gamma(shape, 1 / shape, n_frames) * weights / mean * ms * 1e-3
        steps[job] = drawn.tolist()
    return steps
