"""The child that writes files: a `Sink` over the ring until the daemon stops."""

from __future__ import annotations

import logging
from pathlib import Path

from hitfinder import __version__
from hitfinder.stream.check import repair_folder, series_folders
from hitfinder.stream.errors import StoreError
from hitfinder.stream.recovery import is_being_written
from hitfinder.stream.sink import Sink, SinkSettings
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.session import SINK_ROLE, Pulse, Session

log = logging.getLogger(__name__)

WAIT_S = 0.1
# Numbers of hit files that a daemon has to itself among those that share a detector.
FILES_A_MEMBER = 10_000


def mend(out: Path, in_use: set[str]) -> None:
    """Finish the series that killed daemons left in this folder, and name them.

    Args:
        in_use: folders of this daemon's own series, which its sinks carry on.
    """
    for folder in series_folders(out):
        if folder.name in in_use or is_being_written(folder):
            continue
        try:
            done = repair_folder(folder)
        except StoreError as error:
            log.warning("%s", error)
            continue
        if done:
            log.warning("%s was left by a killed daemon: %s", folder.name, "; ".join(done))


def run_sink(session: Session) -> None:
    """Write what the workers judge until all is stored, or the supervisor is gone."""
    ring, bells = session.attach()
    pulse, config = Pulse(ring, SINK_ROLE), session.config
    settings = SinkSettings(
        Path(config.sink.out or "."),
        config.sink.frames_per_file,
        config.sink.miss_sample_fraction,
        {"version": __version__, "config_sha256": config.sha256(), "config": config.as_json()},
        OperatorGeometry(config.geometry).in_force,
        first_file=FILES_A_MEMBER * config.member.number + 1,
    )
    # What a replay over a cluster left half done is what the next one goes on with.
    if session.cluster is None:
        mend(settings.out, in_use={s.decode() for s in ring.series["folder"].tolist()})
    sink = Sink(ring, bells, Path(session.runtime), settings)
    pulse.ready()
    bells.ring("supervisor")
    go_on = pulse.until(2)
    while go_on():
        sink.run_once(WAIT_S)
