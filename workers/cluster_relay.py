"""Headers and ends on their way from the host that got them to all others.

    receiver -> Relay -> SeriesLog -> the other hosts' Relays -> their receivers

One rule: a message keeps the name that its first relay gave it, so it can be told again whenever
somebody on the way was restarted, and nobody hears it twice: without unique ids (stream V1) a
header that comes again would begin a new series. Neither class knows what carries the messages
between hosts.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zmq

from hitfinder.stream.peers import QUEUE, START

log = logging.getLogger(__name__)

# Messages that the log keeps: four series. The header of a 16M detector with masks and flatfields
# is 150 MB, so it is not more.
KEPT = 8
# Where a reader of the log is: which log (one that was restarted begins anew), messages read.
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Told:
    """A header or an end.

    Attributes:
        teller: number of the daemon whose receiver got it.
        count: how many that daemon had told before.
        parts: the kind (`start`, `end`), then what the detector sent.
    """

    teller: int
    count: int
    parts: tuple[bytes, ...]

    @property
    def name(self) -> tuple[int, int]:
        """What tells it from all others."""
        return self.teller, self.count

    @property
    def is_start(self) -> bool:
        """Say whether it is a header."""
        return self.parts[0] == START


class SeriesLog:
    """The headers and ends of the latest series, in the order in which they were told.

    Args:
        epoch: another number after a restart, so that readers begin anew.
    """

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._kept: deque[Told] = deque(maxlen=KEPT)
        self._n_dropped = 0
        self._known: deque[tuple[int, int]] = deque(maxlen=8 * KEPT)

    def tell(self, told: Told) -> bool:
        """Keep a message; False if it is known already."""
        if told.name in self._known:
            return False
        self._known.append(told.name)
        self._n_dropped += len(self._kept) == KEPT
        self._kept.append(told)
        return True

    def after(self, place: Place | None) -> tuple[Place, list[Told]]:
        """Return what came after `place`, and the place after that.

        Args:
            place: as returned before; None or that of an earlier log for the series that may be
                open: the latest header and what follows it.
        """
        n_told = self._n_dropped + len(self._kept)
        if place is not None and place[0] == self._epoch:
            first = max(0, place[1] - self._n_dropped)
        else:
            starts = [i for i, told in enumerate(self._kept) if told.is_start]
            first = starts[-1] if starts else 0
        return (self._epoch, n_told), list(self._kept)[first:]


class Relay:
    """The receiver's end of the line, on its own host.

    Args:
        number: of the daemon.
        socket_file: where to listen; its receiver connects to `endpoint`.
    """

    def __init__(self, number: int, socket_file: Path) -> None:
        self.endpoint = f"ipc://{socket_file}"
        self._number, self._n_told = number, 0
        self._recent: deque[Told] = deque(maxlen=KEPT)
        self._heard: deque[tuple[int, int]] = deque(maxlen=8 * KEPT)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.SNDHWM, QUEUE)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(self.endpoint)

    @property
    def recent(self) -> list[Told]:
        """What our receiver told lately: a log that was restarted must be told again."""
        return list(self._recent)

    def told(self, timeout_s: float) -> list[Told]:
        """Return what our receiver has told since it was asked last, waiting for a first one."""
        found = []
        wait_ms = round(timeout_s * 1000)
        while self._socket.poll(wait_ms):
            found.append(Told(self._number, self._n_told, tuple(self._socket.recv_multipart())))
            self._n_told += 1
            wait_ms = 0
        self._recent.extend(found)
        return found

    def pass_on(self, news: Iterable[Told]) -> None:
        """Hand our receiver what others told, each once."""
        for told in news:
            if told.teller == self._number or told.name in self._heard:
                continue
            self._heard.append(told.name)
            try:
                self._socket.send_multipart(told.parts, zmq.NOBLOCK)
            except zmq.Again:
                log.error("the receiver does not take a %s of another host", told.parts[0])

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        self._context.term()
