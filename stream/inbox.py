"""Messages between the connection and the receiver, in memory that outlives the receiver.

One rule: a message stays here until whoever took it up says that it is done with it; so what a
killed receiver had in its hands its successor takes up again. One writer each: the connection
(`connection.py`) puts, the receiver (`receiver.py`) tries and is done.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from hitfinder.stream.ring import MESSAGE_BYTES, N_MESSAGES, Ring

# A message larger than this gives its memory back; the next of its size is a header, much later.
KEPT_BYTES = 1 << 26


class Inbox:
    """The few messages that were read from the wire and are not taken in yet, oldest first."""

    def __init__(self, ring: Ring) -> None:
        self.ring, self._control = ring, ring.control

    def __len__(self) -> int:
        return int(self._control["n_put"][0]) - int(self._control["n_done"][0])

    @property
    def is_full(self) -> bool:
        """Say whether there is no room for another message."""
        return len(self) >= N_MESSAGES

    def put(self, parts: Sequence[memoryview]) -> None:
        """Copy a message in; there is room for it, and it keeps to the two limits."""
        at = int(self._control["n_put"][0]) % N_MESSAGES
        begin = self.ring.message_at(at)
        for part in parts:
            self.ring.memory[begin : begin + len(part)] = part
            begin += len(part)
        said = self.ring.messages[at : at + 1]
        said["n_tries"], said["n_parts"] = 0, len(parts)
        said["lengths"][0, : len(parts)] = [len(part) for part in parts]
        self.ring.next("n_put")

    def take_up(self) -> tuple[list[memoryview], int] | None:
        """Return the oldest message and how often it was taken up before; None if there is none.

        Its parts are borrowed until `done`.
        """
        if not len(self):
            return None
        at = int(self._control["n_done"][0]) % N_MESSAGES
        said, begin, parts = self.ring.messages[at], self.ring.message_at(at), []
        for length in said["lengths"][: said["n_parts"]].tolist():
            parts.append(memoryview(self.ring.memory)[begin : begin + length])
            begin += length
        n_tries = int(said["n_tries"])
        self.ring.messages["n_tries"][at] = n_tries + 1
        return parts, n_tries

    def forgive(self) -> None:
        """Count the message as taken up once: who waits with it in hand is well."""
        at = int(self._control["n_done"][0]) % N_MESSAGES
        self.ring.messages["n_tries"][at] = 1

    def done(self) -> None:
        """Forget the message that was taken up; its parts are gone."""
        at = int(self._control["n_done"][0]) % N_MESSAGES
        said = self.ring.messages[at]
        if said["lengths"][: said["n_parts"]].sum() > KEPT_BYTES:
            begin = self.ring.message_at(at)
            self.ring.memory.madvise(mmap.MADV_REMOVE, begin, MESSAGE_BYTES)
        self.ring.next("n_done")
