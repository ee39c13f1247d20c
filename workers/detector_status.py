"""What the detector says of itself over its REST interface: is its buffer filling?

One rule: it asks and never commands, every few seconds, from a thread whose answers the daemon's
loop only reads; a detector that does not answer delays nobody. SIMPLON tells no fill level of the
stream's queue, so it is told by what it dropped, and by the memory that the file writer has left,
where one is at work. A monitor's buffer is full as soon as nobody looks, and means nothing.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from http.client import HTTPException
from typing import Any

log = logging.getLogger(__name__)

EVERY_S, ANSWER_S = 2.0, 3.0
MOST_BYTES = 65536
VERSION = "1.8.0"
DISABLED = "disabled"


class DetectorStatus:
    """Asks a detector in a thread of its own.

    Args:
        rest: HOST:PORT; None to ask nobody.

    Attributes:
        latest: None before the first answer and without a detector; else `answers` (bool),
            `state`, `n_dropped` (images of the stream since it was armed), `buffer_used` (share of
            the file writer's buffer, None where none is at work), `error` (text, empty if none).
    """

    def __init__(self, rest: str | None) -> None:
        self.latest: dict[str, Any] | None = None
        self._rest, self._most_free = rest, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)
        # Past proxies of the environment: a detector is a neighbour.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        if rest is not None:
            self._thread.start()

    def close(self) -> None:
        """End the thread; an answer that is under way is not waited for."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                now = self._ask()
            except (OSError, ValueError, KeyError, TypeError, HTTPException) as error:
                now = _unknown(str(error) or type(error).__name__)
            was = self.latest
            if not now["answers"] and (was is None or was["answers"]):
                log.warning("detector's status at %s: %s", self._rest, now["error"])
            self.latest = now
            self._over.wait(EVERY_S)

    def _ask(self) -> dict[str, Any]:
        return {
            "answers": True,
            "state": str(self._value("detector", "state")),
            "n_dropped": int(self._value("stream", "dropped")),
            "buffer_used": self._buffer_used(),
            "error": "",
        }

    def _buffer_used(self) -> float | None:
        """Return the share of the file writer's buffer in use; SIMPLON tells what is free."""
        if str(self._value("filewriter", "state")) == DISABLED:
            return None
        free = float(self._value("filewriter", "buffer_free"))
        self._most_free = max(self._most_free, free)
        return 1.0 - free / self._most_free if self._most_free > 0 else None

    def _value(self, module: str, name: str) -> Any:
        url = f"http://{self._rest}/{module}/api/{VERSION}/status/{name}"
        with self._open(url, timeout=ANSWER_S) as answer:
            return json.loads(answer.read(MOST_BYTES))["value"]


def _unknown(error: str) -> dict[str, Any]:
    return {
        "answers": False,
        "state": None,
        "n_dropped": None,
        "buffer_used": None,
        "error": error[:200],
    }
