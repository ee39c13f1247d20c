"""What was wrong on the wire: counted and named for `status`, and now and then in the log."""

from __future__ import annotations

import logging
import time

from hitfinder.stream.ring import Ring

log = logging.getLogger(__name__)

LOG_PERIOD_NS = 1_000_000_000


class Malformed:
    """One process's reports of messages and images that do not follow their format."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._logged_ns, self._n_unlogged = 0, 0

    def note(self, text: str) -> None:
        """Count one and name it in `status` and, once a second, in the log."""
        self._ring.next("n_malformed")
        self._ring.note_error(text)
        now_ns = time.monotonic_ns()
        if now_ns - self._logged_ns > LOG_PERIOD_NS:
            log.warning("malformed message: %s (%d more)", text, self._n_unlogged)
            self._logged_ns, self._n_unlogged = now_ns, 0
        else:
            self._n_unlogged += 1
