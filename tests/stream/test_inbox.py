"""From the connection to the receiver: a message is there until somebody is done with it."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hitfinder.stream.inbox import KEPT_BYTES, Inbox
from hitfinder.stream.intake import Intake
from hitfinder.stream.receiver import MAX_TRIES, Receiver, waiting
from hitfinder.stream.ring import N_MESSAGES, Bells, Layout, Ring, State, create_memory

GOLDEN = Path(__file__).parents[1] / "golden" / "wire_messages.json"
LAYOUT = Layout(n_slots=16, slot_bytes=1 << 20)


@pytest.fixture
def ring() -> Iterator[Ring]:
    fd = create_memory(LAYOUT)
    yield Ring(fd, LAYOUT)
    os.close(fd)


def views(*parts: bytes) -> list[memoryview]:
    return [memoryview(part) for part in parts]


def text(taken: tuple[list[memoryview], int] | None) -> tuple[list[bytes], int] | None:
    return None if taken is None else ([bytes(part) for part in taken[0]], taken[1])


def test_messages_come_out_whole_in_order_and_only_so_many_wait(ring: Ring) -> None:
    connection, receiver = Inbox(ring), Inbox(Ring(ring.fd, LAYOUT))
    assert receiver.take_up() is None
    for turn in range(3 * N_MESSAGES):
        connection.put(views(b"a" * turn, b"", b"c"))
        assert text(receiver.take_up()) == ([b"a" * turn, b"", b"c"], 0)
        receiver.done()
    for turn in range(N_MESSAGES):
        assert not connection.is_full
        connection.put(views(bytes([turn])))
    assert connection.is_full
    receiver.done()
    assert not connection.is_full


def test_a_message_nobody_was_done_with_is_there_for_the_next_with_its_number_of_tries(
    ring: Ring,
) -> None:
    Inbox(ring).put(views(b"frame"))
    for n_tries in range(3):
        assert text(Inbox(ring).take_up()) == ([b"frame"], n_tries)
    Inbox(ring).done()
    Inbox(ring).put(views(b"next"))
    assert text(Inbox(ring).take_up()) == ([b"next"], 0)


def test_the_memory_of_a_large_message_is_given_back(ring: Ring) -> None:
    inbox = Inbox(ring)
    before = os.fstat(ring.fd).st_blocks
    inbox.put(views(bytes(KEPT_BYTES), b"x"))
    assert (os.fstat(ring.fd).st_blocks - before) * 512 > KEPT_BYTES
    assert inbox.take_up() is not None
    inbox.done()
    assert (os.fstat(ring.fd).st_blocks - before) * 512 < 1 << 16


BELLS = ["connection", "inbox", "receiver", "worker0", "sink", "supervisor"]


def golden(name: str) -> list[memoryview]:
    """Return a message as it is on the wire."""
    return views(*(bytes.fromhex(p) for p in json.loads(GOLDEN.read_text())[name]["parts"]))


Successor = Callable[[Callable[[], bool]], Receiver]


@pytest.fixture
def successor(ring: Ring, tmp_path: Path) -> Iterator[Successor]:
    """Return what makes a receiver that begins where its predecessor died."""
    bells = Bells.create(BELLS)

    def make(go_on: Callable[[], bool]) -> Receiver:
        inbox = Inbox(ring)
        intake = Intake(ring, bells, tmp_path, when_full="block", beat=waiting(inbox, go_on))
        intake.recover()
        return Receiver(inbox, bells, intake)

    yield make
    for fd in bells.fds.values():
        os.close(fd)


def test_a_message_that_kills_its_receivers_is_given_up_and_the_next_one_taken(
    ring: Ring, successor: Successor, monkeypatch: pytest.MonkeyPatch
) -> None:
    Inbox(ring).put(golden("v2_start"))
    Inbox(ring).put(golden("v2_image_two_channels"))
    with monkeypatch.context() as deadly:
        deadly.setattr("hitfinder.stream.wire.WireDecoder.decode", lambda *_: 1 / 0)
        for _ in range(MAX_TRIES):
            with pytest.raises(ZeroDivisionError):
                successor(lambda: True).take_one()
    receiver = successor(lambda: True)
    assert receiver.take_one()
    assert receiver.take_one()
    assert not receiver.take_one()
    assert "3 receivers died taking it" in ring.errors()[0]
    assert len(ring.in_state(State.RECEIVED)) == 1


def test_deaths_while_a_message_waits_for_room_are_not_its_own(
    ring: Ring, successor: Successor
) -> None:
    taken = [ring.take_free() for _ in range(LAYOUT.n_slots)]
    for slot in taken:
        ring.set_state(slot or 0, State.JUDGING)
    Inbox(ring).put(golden("v2_image_two_channels"))
    for _ in range(2 * MAX_TRIES):
        with pytest.raises(ZeroDivisionError):
            successor(lambda: bool(1 / 0)).take_one()
    ring.release(taken[0] or 0)
    assert successor(lambda: True).take_one()
    assert ring.errors() == []
    assert len(ring.in_state(State.RECEIVED)) == 1
