"""Headers and ends on their way from the host that got them to all others.

    receiver -> Relay -> SeriesLog -> the other hosts' Relays -> their receivers

One rule: a message keeps the name that its first relay gave it, so it can be told again whenever
somebody on the way was restarted, and nobody hears it twice: without unique ids (stream V1) a
header that comes again would begin a new series. Neither class knows what carries the messages
between hosts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zmq

from hitfinder.stream.peers import QUEUE, START

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
            place: as returned before; that of an earlier log for all that is kept. None for the
                header of the series that is open: who comes now has no part in one that is over.
        """
        at, kept = (self._epoch, self._n_dropped + len(self._kept)), list(self._kept)
        if place is None:
            return at, [told for told in kept[-1:] if told.is_start]
        n_read = place[1] if place[0] == self._epoch else 0
        return at, kept[max(0, n_read - self._n_dropped) :]


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
        self._waiting: deque[Told] = deque(maxlen=KEPT)
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

    def pass_on(self, news: Iterable[Told] = ()) -> None:
        """Hand our receiver what others told, each once; what it does not take yet is kept."""
        for told in news:
            if told.teller != self._number and told.name not in self._heard:
                self._heard.append(told.name)
                self._waiting.append(told)
        while self._waiting and self._socket.poll(0, zmq.POLLOUT):
            self._socket.send_multipart(self._waiting.popleft().parts)

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        self._context.term()
