"""Entry of every child process: `python -m hitfinder.workers.child NAME ROLE SESSION`.

One rule: a child takes everything from the session and the ring, reports for work once it can,
and ends when the ring says so; what it cannot do it says in one line and exits with 1.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hitfinder import HitfinderError
from hitfinder.workers.session import Session


def main(name: str, role: int, session_file: Path) -> int:
    """Run one child until the daemon stops; returns its exit status."""
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s %(levelname)s {name}: %(message)s"
    )
    session = Session.load(session_file)
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
    except HitfinderError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
