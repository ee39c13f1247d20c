"""Locking the ring for a GPU: what the driver is asked, and that a refusal is said and borne."""

import ctypes
import logging
import os

import numpy as np
import pytest
import torch

from hitfinder.stream.ring import Layout, Ring, create_memory
from hitfinder.workers.pinned import lock_pages


class Driver:
    """A driver's library that answers with a code and remembers what it was asked."""

    def __init__(self, code: int) -> None:
        self.code, self.asked = code, []

    def cuMemHostRegister_v2(self, *given: ctypes.c_void_p) -> int:
        self.asked.append(tuple(g.value for g in given))
        return self.code


@pytest.fixture
def ring():
    layout = Layout(n_slots=4, slot_bytes=1 << 16)
    fd = create_memory(layout)
    yield Ring(fd, layout)
    os.close(fd)


def test_all_slots_of_the_ring_are_locked_at_once(ring: Ring) -> None:
    driver = Driver(0)
    assert lock_pages(ring.payload, driver)
    assert driver.asked == [(ring.payload.ctypes.data, 4 << 16, 1)]
    # Whole pages: the driver takes no others.
    assert ring.payload.ctypes.data % 4096 == 0


def test_a_driver_that_refuses_is_named_and_the_ring_used_as_it_is(
    ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not lock_pages(ring.payload, Driver(2))
        assert not lock_pages(ring.payload, object())
    first, second = (record.getMessage() for record in caplog.records)
    assert "CUDA error 2; fewer ring.slots need less" in first
    assert "cuMemHostRegister_v2" in second
    ring.payload[:] = 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks a GPU's driver")
def test_a_gpu_reads_a_locked_ring_where_it_lies(ring: Ring) -> None:
    torch.zeros(1, device="cuda:0")
    ring.payload[:] = np.arange(4, dtype=np.uint8)[:, None]
    assert lock_pages(ring.payload)
    slots = torch.from_numpy(ring.payload)
    assert slots.is_pinned()
    on_device = slots.to("cuda:0", non_blocking=True)
    torch.cuda.synchronize()
    assert (on_device.cpu() == slots).all()
