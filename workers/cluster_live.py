"""`run --cluster`: one detector's stream over several hosts, one topic and one set of files.

One rule: Ray places, watches and restarts the hosts; this process follows them, collects, and ends
them. If it is killed the daemons end what they have, and the next start joins it.

    detector -> PULL of every host's daemon -> OUT/hosts/NN     (cluster_host.py)
                 headers and ends of all, to all                (cluster_relay.py)
             -> one topic, OUT/series_*                         (cluster_collector.py)
"""

from __future__ import annotations

import logging
import math
import signal
import time
import uuid
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import zmq
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from hitfinder.stream.shares import HOSTS
from hitfinder.workers.cluster import ClusterError, connect, disconnect, node_names
from hitfinder.workers.cluster_collector import Collector
from hitfinder.workers.cluster_host import About, Host, HostPlan, SeriesKeeper
from hitfinder.workers.config import Config, ConfigError
from hitfinder.workers.terminal import say_ready

log = logging.getLogger(__name__)

TURN_S = 0.05
# How often a host is asked how it is.
ASK_S = 0.5
# A host that does not answer so long is taken for dead; who answers by another name was, anyway.
AWAY_S = 3.0
# How often, between series, shares are looked for that nobody has joined.
LEFT_S = 10.0
# Nodes that are started together with this process need a moment to join the cluster.
JOINED_S, PLACED_S = 20.0, 60.0
# Loading torch on a busy machine takes its time.
READY_S = 180.0
# Bound of a graceful stop: above a daemon's own.
STOP_S = 150.0
# A host's daemon that dies again and again is not started for ever.
MAX_RESTARTS = 10


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What `run --cluster` was asked for.

    Attributes:
        address: of the cluster.
        n_hosts: None for every node with a CPU.
        config: as it holds for all hosts; config_text is what the file said.
        max_series: end after so many.
    """

    address: str
    n_hosts: int | None
    config: Config
    config_text: str
    max_series: int | None


def run_live(options: LiveOptions) -> int:
    """Run until stopped or `max_series`; returns the exit status.

    Raises:
        ClusterError: no cluster, no room on it, or hosts that cannot start.
        ConfigError: a folder or an endpoint that cannot be used.
    """
    out = Path(options.config.sink.out or ".").resolve()
    mark = _mark(out)
    connect(options.address)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with _Live(options, out, mark, Collector(context, out, options.config.sink)) as live:
            return live.run()
    finally:
        context.term()
        disconnect()
        (out / HOSTS / mark).unlink(missing_ok=True)


def _mark(out: Path) -> str:
    """Leave a file in the run's folder by which hosts know that it is the same."""
    mark = f".shared-{uuid.uuid4().hex}"
    try:
        (out / HOSTS).mkdir(parents=True, exist_ok=True)
        (out / HOSTS / mark).touch()
    except OSError as error:
        raise ConfigError(
            f"output folder {out}: {error.strerror}; give one that all hosts share with --out"
        ) from error
    return mark


@dataclass(eq=False)
class _Placed:
    """One host's actor, and what was heard of it last."""

    actor: Any
    name: str = ""
    asked: Future[About] | None = None
    ask_at_s: float = 0.0
    away_since_s: float = 0.0


class _Live:
    """A run over several hosts, from the first actor's start to the last join."""

    def __init__(self, options: LiveOptions, out: Path, mark: str, collector: Collector) -> None:
        self._options, self._out, self._collector = options, out, collector
        self._signals, self._look_at_s, self._is_ready = 0, 0.0, False
        source = options.config.source
        arguments = [w for endpoint in source.endpoints for w in ("--source", endpoint)]
        arguments += ["--protocol", source.protocol]
        arguments += ["--device", ",".join(options.config.workers.devices)]
        keeper = f"series-{mark}"
        self._plan = HostPlan(out, mark, keeper, options.config_text, tuple(arguments))
        self._placed: list[_Placed] = []
        self._keeper: Any = None

    def __enter__(self) -> _Live:
        return self

    def __exit__(self, *_: object) -> None:
        self._collector.close()

    def run(self) -> int:
        """See `run_live`."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._on_signal)
        self._place()
        self._wait_ready()
        wanted = self._options.max_series
        while not self._signals and (wanted is None or self._collector.n_ended < wanted):
            self._collector.step(TURN_S)
            self._ask()
            self._look_for_left()
        return self._stop()

    # ------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Have Ray place a host on each of as many nodes as are wanted."""
        nodes = self._nodes()
        n_hosts = self._options.n_hosts or len(nodes)
        # A host takes its whole node: its daemon uses all cores there.
        largest = sorted(nodes, key=lambda resources: -resources["CPU"])[:n_hosts]
        whole = {"CPU": int(min(resources["CPU"] for resources in largest))}
        if not all(d.startswith("cpu") for d in self._options.config.workers.devices):
            whole["GPU"] = int(min(resources.get("GPU", 0) for resources in largest))
        group = placement_group([whole] * n_hosts, strategy="STRICT_SPREAD")
        if not group.wait(PLACED_S):
            raise ClusterError(f"no {n_hosts} nodes with {whole} free within {PLACED_S:.0f} s")
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._keeper = (
            ray.remote(SeriesKeeper)
            .options(name=self._plan.keeper, num_cpus=0, max_restarts=-1, scheduling_strategy=here)
            .remote()
        )
        self._placed = [_Placed(self._host(group, i, whole)) for i in range(n_hosts)]

    def _nodes(self) -> list[dict[str, float]]:
        """Return the resources of the nodes with CPUs, once there are as many as are wanted."""
        wanted = self._options.n_hosts or 1
        deadline_s = time.monotonic() + JOINED_S
        while True:
            alive = [n["Resources"] for n in ray.nodes() if n["Alive"]]
            nodes = [resources for resources in alive if resources.get("CPU")]
            if len(nodes) >= wanted:
                return nodes
            if self._signals or time.monotonic() > deadline_s:
                raise ClusterError(
                    f"--hosts {wanted}: the cluster has {len(nodes)} nodes with CPUs after "
                    f"{JOINED_S:.0f} s"
                )
            self._collector.step(ASK_S)

    def _host(self, group: PlacementGroup, i: int, whole: dict[str, int]) -> Any:
        placed = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i)
        return (
            ray.remote(Host)
            .options(
                num_cpus=whole["CPU"],
                num_gpus=whole.get("GPU", 0),
                max_restarts=MAX_RESTARTS,
                max_task_retries=0,
                scheduling_strategy=placed,
            )
            .remote(self._plan)
        )

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + READY_S
        while not all(p.name and self._collector.heard(p.name) for p in self._placed):
            if self._signals or time.monotonic() > deadline_s:
                raise ClusterError(f"not all hosts ready after {READY_S:.0f} s; stopped")
            self._collector.step(TURN_S)
            self._ask()
        self._is_ready, members = True, self._collector.members
        hosts = ",".join(f"{p.name}@{members[p.name].node}" for p in self._placed)
        say_ready(
            f"ready source={', '.join(self._options.config.source.endpoints)} "
            f"results={self._collector.endpoint} out={self._out} hosts={hosts} "
            f"collector={node_names()[ray.get_runtime_context().get_node_id()]}"
        )

    def _ask(self) -> None:
        """Ask each host how it is, and follow what has changed."""
        now_s = time.monotonic()
        for placed in self._placed:
            if placed.asked is None and now_s >= placed.ask_at_s:
                placed.asked = placed.actor.about.remote().future()
                placed.ask_at_s = now_s + ASK_S
            elif placed.asked is not None and placed.asked.done():
                self._hear(placed, placed.asked)
                placed.asked = None

    def _hear(self, placed: _Placed, asked: Future[About]) -> None:
        try:
            about = asked.result()
        except RayError as error:
            placed.away_since_s = placed.away_since_s or time.monotonic()
            if placed.name and time.monotonic() - placed.away_since_s > AWAY_S:
                log.warning("Ray says: %s", str(error).strip().partition("\n")[0])
                self._bury(placed)
            return
        placed.away_since_s = 0.0
        if about.name == placed.name and not about.failure:
            return
        node = node_names().get(about.node, about.node[:8])
        if about.failure:
            if not self._is_ready:
                raise ClusterError(f"host on {node}: {about.failure}")
            log.error("host on %s is given up: %s", node, about.failure)
            placed.ask_at_s = math.inf
            self._bury(placed)
        elif about.results:
            self._bury(placed)
            placed.name = about.name
            self._collector.follow(about.name, node, about.results)

    def _bury(self, placed: _Placed) -> None:
        if placed.name:
            self._collector.bury(placed.name)
            placed.name = ""

    def _look_for_left(self) -> None:
        """Join what daemons of a killed run, or a host that was too late, have closed by now."""
        now_s = time.monotonic()
        if self._collector.is_idle and now_s >= self._look_at_s:
            self._look_at_s = now_s + LEFT_S
            self._collector.join_left()

    def _stop(self) -> int:
        """End all daemons, join what they had."""
        ending = [p.actor.stop.remote().future() for p in self._placed if p.name]
        deadline_s = time.monotonic() + STOP_S
        while not all(e.done() for e in ending) and time.monotonic() < deadline_s:
            self._collector.step(TURN_S)
        self._collector.finish()
        statuses = [_status_of(e) for e in ending]
        return 0 if all(status == 0 for status in statuses) else 1

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        if self._signals > 2:
            raise KeyboardInterrupt


def _status_of(ended: Future[int]) -> int:
    if not ended.done():
        log.error("a host did not stop within %.0f s", STOP_S)
        return 1
    try:
        return ended.result()
    except RayError as error:
        log.error("a host died while it was stopping: %s", str(error).partition("\n")[0])
        return 1
