"""The child that brings frames: the wire's receiver, or a recorded run's reader.

Both end in the same intake; only where messages come from differs. Each takes up again the message
at which a killed predecessor died.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain
from pathlib import Path

from hitfinder.stream.inbox import Inbox
from hitfinder.stream.intake import Intake
from hitfinder.stream.receiver import Receiver, waiting
from hitfinder.stream.recordings import open_recordings
from hitfinder.stream.ring import Bells, Ring
from hitfinder.workers.session import SOURCE_ROLE, Pulse, Session

log = logging.getLogger(__name__)


def _intake(
    session: Session, ring: Ring, bells: Bells, beat: Callable[[], bool], when_full: str
) -> Intake:
    intake = Intake(ring, bells, Path(session.runtime), when_full=when_full, beat=beat)
    intake.recover()
    return intake


def run_receiver(session: Session) -> None:
    """Take in what the connection reads, until the daemon stops."""
    ring, bells = session.attach()
    pulse, source = Pulse(ring, SOURCE_ROLE), session.config.source
    # While draining the receiver still waits for room; only the end of the daemon ends that.
    inbox, go_on = Inbox(ring), pulse.until(2)
    intake = _intake(session, ring, bells, waiting(inbox, go_on), session.config.ring.when_full)
    receiver = Receiver(
        inbox,
        bells,
        intake,
        protocol=source.protocol,
        lenient=source.lenient,
        peers=session.config.member.peers,
    )
    pulse.ready()
    bells.ring("supervisor")
    receiver.run(stopping=lambda: pulse.stop_level() > 0 or pulse.orphaned(), go_on=go_on)
    receiver.close()
    ring.control["source_done"][0] = 1


def run_reader(session: Session) -> None:
    """Read recorded runs as fast as they are judged; nothing is dropped."""
    ring, bells = session.attach()
    pulse = Pulse(ring, SOURCE_ROLE)
    recordings = open_recordings(
        [Path(p) for p in session.replay],
        protocol=session.config.source.protocol,
        lenient=session.config.source.lenient,
        opening=lambda path: session.leave_words(SOURCE_ROLE, f"opening {path}"),
    )
    session.leave_words(SOURCE_ROLE, "")
    known = [r.n_frames for r in recordings if r.n_frames is not None]
    ring.control["source_total"][0] = sum(known) if len(known) == len(recordings) else -1
    for recording in recordings:
        for warning in recording.warnings:
            log.warning("%s: %s", recording.path, warning)
    intake = _intake(session, ring, bells, pulse.until(2), "block")
    pulse.ready()
    bells.ring("supervisor")
    done = int(ring.control["source_position"][0])
    messages = chain.from_iterable(r.messages() for r in recordings)
    for position, message in enumerate(messages, 1):
        # A killed reader's successor passes over what is already in the ring or judged.
        if position > done:
            intake.take(message, again=position == done + 1)
            ring.control["source_position"][0] = position
        intake.seal()
        if not pulse.until(1)():
            break
    ring.control["source_done"][0] = 1
    bells.ring("supervisor")
