"""The child that has recorded runs judged on a cluster: it stands where reader and workers do.

It announces series, deals their frames to judges on the nodes, and puts what they say into the
ring; ledger, files and topic are made from there as ever.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from hitfinder import __version__
from hitfinder.stream.errors import StoreError
from hitfinder.stream.intake import Intake
from hitfinder.stream.recording_series import RecordedSeries
from hitfinder.stream.recordings import Kind, Recording, open_recordings
from hitfinder.stream.ring import Ring, State
from hitfinder.stream.series import SeriesTable
from hitfinder.workers import cluster
from hitfinder.workers.cluster import Actors, ClusterError
from hitfinder.workers.cluster_replay_dealer import Dealer
from hitfinder.workers.cluster_replay_judge import Judge
from hitfinder.workers.cluster_replay_opening import Opener
from hitfinder.workers.cluster_replay_resume import require_same
from hitfinder.workers.config import Config, ConfigError
from hitfinder.workers.session import SOURCE_ROLE, Pulse, Session

log = logging.getLogger(__name__)

# How long is waited for an answer; estimates are asked for as often.
WAIT_S = 0.05


def run_cluster(session: Session) -> None:
    """Play recorded runs over the nodes of a cluster; nothing is dropped.

    Raises:
        HitfinderError: no such cluster, a recording that cannot be dealt, an earlier replay with
            other settings, or no node that can read.
    """
    ring, bells = session.attach()
    config = session.config
    recordings = open_recordings([Path(p) for p in session.replay])
    recorded = [series for recording in recordings for series in series_of(recording)]
    out = Path(config.sink.out or ".")
    for series in recorded:
        require_same(out, series, config)
    cluster.connect(str(session.cluster))
    pulse = Pulse(ring, SOURCE_ROLE)  # after Ray, which would take the signals
    device, n_judges = judges(config.workers.devices)
    log.info("%d judges on %s are asked for", n_judges, device)
    intake = Intake(ring, bells, Path(session.runtime), when_full="block", beat=pulse.until(2))
    recover(ring)
    ring.control["source_total"] = sum(series.n_frames for series in recorded)
    actors = Actors(Judge, (__version__, absolute(config), device), device, n_judges)
    dealer = Dealer(intake, Opener(intake, out), actors, cluster.node_names, recorded)
    is_ready, go_on = False, pulse.until(1)
    while go_on() and not dealer.is_done:
        dealer.step(WAIT_S)
        intake.seal()
        if dealer.n_up and not is_ready:
            is_ready = True
            pulse.ready()
            bells.ring("supervisor")
    for line in dealer.unfinished():
        log.warning("%s", line)
    ring.control["source_done"] = 1
    bells.ring("supervisor")
    cluster.disconnect()


def series_of(recording: Recording) -> list[RecordedSeries]:
    """Return the series of a recording, their files named as on every node.

    Raises:
        StoreError: its frames cannot be read one by one.
    """
    for warning in recording.warnings:
        log.warning("%s: %s", recording.path, warning)
    if recording.kind is Kind.CAPTURE:
        raise StoreError(
            f"{recording.path}: captured messages can only be read one after the other; replay "
            "them without --cluster"
        )
    return [
        replace(
            series,
            spans=tuple(replace(span, path=span.path.absolute()) for span in series.spans),
        )
        for series in recording.series
    ]


def absolute(config: Config) -> Config:
    """Return the configuration with its files named as on every node."""

    def there(path: str | None) -> str | None:
        return None if path is None else str(Path(path).absolute())

    geometry = structs.replace(
        config.geometry,
        geom_file=there(config.geometry.geom_file),
        mask_file=there(config.geometry.mask_file),
    )
    gate = structs.replace(config.gate, model=there(config.gate.model))
    return structs.replace(config, geometry=geometry, gate=gate)


def judges(devices: list[str]) -> tuple[str, int]:
    """Return on which device each judge works, and how many there are.

    Args:
        devices: `auto` (every GPU of the cluster, else every CPU), `cpu`, `cpu:N` or `cuda`.

    Raises:
        ConfigError: something else.
        ClusterError: there is no such device.
    """
    named = ",".join(devices)
    kind, colon, number = named.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and (kind != "cpu" or not number.isdigit())):
        raise ConfigError(
            f"device {named!r}: on a cluster Ray places the judges; expected auto, cpu[:N] or cuda"
        )
    n_gpus, n_cpus = cluster.count("GPU"), cluster.count("CPU")
    if kind == "cuda" or (kind == "auto" and n_gpus):
        if not n_gpus:
            raise ClusterError("no node of the cluster has a GPU; use --device cpu or auto")
        return "cuda:0", n_gpus  # Ray shows each judge its own alone
    n = int(number) if number else n_cpus
    if not n:
        raise ClusterError("no node of the cluster offers a CPU")
    return "cpu", n


def recover(ring: Ring) -> None:
    """Take over the slots that a killed predecessor was filling: hand on, or ask again."""
    table = SeriesTable(ring)
    for slot in range(ring.layout.n_slots):
        if ring.state_of(slot) is not State.FILLING:
            continue
        header = ring.slots[slot]
        entry = table.entry_of(int(header["key"]))
        # A frame is marked seen once all of it stands in its slot.
        if header["seq"] and entry is not None and table.is_seen(entry, int(header["frame"])):
            ring.set_state(slot, State.JUDGED)
        else:
            ring.release(slot)
