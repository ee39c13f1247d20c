"""The ring's slots locked for a GPU, which then reads a frame's bytes where they were received.

One rule: nothing depends on it. Memory that is not locked is copied by the driver on its way,
which costs a frame one copy of its packed bytes (CUDA driver API, "Memory Management").
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hitfinder.workers.devices import CUDA_DRIVER

log = logging.getLogger(__name__)

PORTABLE = 1
"""CU_MEMHOSTREGISTER_PORTABLE: for all of this process' contexts."""


def lock_pages(memory: NDArray[np.uint8], driver: Any = None) -> bool:
    """Lock memory for transfers, for as long as this process lives; say so where that fails.

    Args:
        memory: of the ring; all of it takes up memory from then on.
        driver: the CUDA driver's library; None loads it. A context must be current.

    Returns:
        whether it is locked.
    """
    try:
        register = (driver or ctypes.CDLL(CUDA_DRIVER)).cuMemHostRegister_v2
        address = ctypes.c_void_p(memory.ctypes.data)
        code = int(register(address, ctypes.c_size_t(memory.nbytes), ctypes.c_uint(PORTABLE)))
    except (OSError, AttributeError) as error:
        log.warning("the ring is not locked for the GPU, its frames are copied: %s", error)
        return False
    if code != 0:
        log.warning(
            "the ring, %.1f GB, is not locked for the GPU, its frames are copied: CUDA error %d; "
            "fewer ring.slots need less",
            memory.nbytes / 1e9,
            code,
        )
    return code == 0
