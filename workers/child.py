"""Entry of every child process: `python -m hitfinder.workers.child NAME ROLE SESSION`.

One rule: a child takes everything from the session and the ring, reports for work once it can,
and ends when the ring says so; what it cannot do it says in one line and exits with 1.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hitfinder import HitfinderError
from hitfinder.workers.logs import log_to_stderr
from hitfinder.workers.session import Session


def main(name: str, role: int, session_file: Path) -> int:
    """Run one child until the daemon stops; returns its exit status."""
    session = Session.load(session_file)
    log_to_stderr(session.config.log, name)
    try:
        if name == "receiver":
            from hitfinder.workers.source import run_receiver

            run_receiver(session)
        elif name == "reader":
            from hitfinder.workers.source import run_reader

            run_reader(session)
        elif name == "cluster":
            from hitfinder.workers.cluster_replay import run_cluster

            run_cluster(session)
        elif name == "sink":
            from hitfinder.workers.storing import run_sink

            run_sink(session)
        else:
            from hitfinder.workers.worker import run_worker

            run_worker(session, role)
    except Exception as error:
        # A device that fails, memory that is not there, a fault of ours: all end a child like
        # this, and its frames are its successor's.
        expected = isinstance(error, HitfinderError)
        logging.getLogger(__name__).error("%s", error, exc_info=not expected)
        session.leave_last_words(role, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
