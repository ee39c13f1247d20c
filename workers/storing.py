"""The child that writes files: a `Sink` over the ring until the daemon stops."""

from __future__ import annotations

from pathlib import Path

from hitfinder import __version__
from hitfinder.stream.sink import Sink, SinkSettings
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.session import SINK_ROLE, Pulse, Session

WAIT_S = 0.1


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
    )
    sink = Sink(ring, bells, Path(session.runtime), settings)
    pulse.ready()
    bells.ring("supervisor")
    go_on = pulse.until(2)
    while go_on():
        sink.run_once(WAIT_S)
