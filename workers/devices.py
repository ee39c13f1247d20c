"""Which devices judge: one worker process each.

`auto` takes every CUDA device there is, else the CPU. The supervisor asks this, so it asks the
driver itself instead of loading torch (CUDA driver API, section "Device management").
"""

from __future__ import annotations

import ctypes
import os

from hitfinder.workers.config import ConfigError
from hitfinder.workers.session import MAX_WORKERS

CUDA_DRIVER = "libcuda.so.1"


def count_cuda() -> int:
    """Return the number of CUDA devices that this process may use; 0 without a driver."""
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def cpu_workers() -> int:
    """Return how many workers judge on the CPU: half of the cores, the rest move frames."""
    return max(1, min(MAX_WORKERS, len(os.sched_getaffinity(0)) // 2))


def resolve(devices: list[str], n_cuda: int | None = None) -> tuple[str, ...]:
    """Return the device of each worker.

    Args:
        devices: `auto`, `cpu` (a worker for every second core), `cpu:N` (N workers), `cuda` (the
            first), `cuda:N` (number N); the same device may be named several times.
        n_cuda: CUDA devices there are; None asks the driver.

    Raises:
        ConfigError: an unknown name, or a CUDA device that is not there.
    """
    n_cuda = count_cuda() if n_cuda is None else n_cuda
    found: list[str] = []
    for device in devices:
        kind, colon, number = device.partition(":")
        if kind not in ("auto", "cpu", "cuda") or (colon and not number.isdigit()):
            raise ConfigError(f"device {device!r}: expected auto, cpu[:N] or cuda[:N]")
        if kind == "auto" and n_cuda:
            found += [f"cuda:{i}" for i in range(n_cuda)]
        elif kind == "cuda":
            if int(number or 0) >= n_cuda:
                raise ConfigError(
                    f"device {device}: this machine has {n_cuda} CUDA devices; use cpu or auto"
                )
            found.append(f"cuda:{int(number or 0)}")
        else:
            found += ["cpu"] * (int(number) if number else cpu_workers())
    return tuple(found)
