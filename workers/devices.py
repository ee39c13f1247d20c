"""Which devices judge, and memory that a GPU can copy from without the CPU.

`auto` takes every CUDA device there is, else the CPU.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from hitfinder.stream.ring import Ring
from hitfinder.workers.config import ConfigError

log = logging.getLogger(__name__)


def resolve(devices: list[str]) -> tuple[str, ...]:
    """Return the devices to use, one worker each; the same one may be named several times.

    Raises:
        ConfigError: an unknown name, or a CUDA device that is not there.
    """
    found: list[str] = []
    n_cuda = torch.cuda.device_count()
    for device in devices:
        kind, _, number = device.partition(":")
        if device == "auto":
            found += [f"cuda:{i}" for i in range(n_cuda)] or ["cpu"]
        elif device == "cpu":
            found.append("cpu")
        elif kind == "cuda" and (not number or number.isdigit()):
            index = int(number or 0)
            if index >= n_cuda:
                raise ConfigError(
                    f"device {device}: this machine has {n_cuda} CUDA devices; use cpu or auto"
                )
            found.append(f"cuda:{index}")
        else:
            raise ConfigError(f"device {device!r}: expected auto, cpu or cuda[:N]")
    return tuple(found)


def pin(ring: Ring) -> bool:
    """Register the ring with CUDA, so that uploads from slots overlap with computing.

    Without it (a driver that refuses) copies still work, only slower; that is logged.
    """
    memory = np.frombuffer(ring.memory, np.uint8)
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    status = int(runtime.cudaHostRegister(memory.ctypes.data, memory.nbytes, 0))
    if status != 0:
        log.warning("cannot pin the ring (CUDA error %d); uploads will be slower", status)
        return False
    return True
