"""`check` without a run: can this host run the daemon, and if not, what is to be done.

One rule: one line a question, "ok" with what was found or "wrong" with how to fix it. Nothing is
left behind: ports are bound and let go, no memory is taken.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from hitfinder import HitfinderError, __version__
from hitfinder.workers.config import Config

FILTERS = {32008: "bitshuffle-LZ4", 32004: "LZ4"}
# A packed 4M frame of two photons a pixel: what a slot in use takes of memory.
SLOT_4M_BYTES = 2 << 20
# The interpreter and libraries of the children.
CHILDREN_BYTES = 1 << 30
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question.

    Attributes:
        ok: the daemon can run as far as this goes.
        said: what was found, or what is wrong and how to fix it.
    """

    ok: bool
    said: str


def check_host(say: Callable[[str], None], config: Config | None = None) -> int:
    """Answer every question; returns 0 if the daemon can run here, else 1.

    Args:
        say: told one line a question.
        config: what would be run; the defaults if not given.
    """
    config = config or Config()
    all_ok = True
    for question in (_python, _kernels, _torch, _weights, _filters, _ports, _memory):
        for answer in question(config):
            say(f"{'ok   ' if answer.ok else 'wrong'} {answer.said}")
            all_ok &= answer.ok
    return 0 if all_ok else 1


def _python(config: Config) -> Iterator[Answer]:
    system = f"{platform.system()} {platform.machine()}"
    python = f"Python {platform.python_version()}"
    yield Answer(True, f"hitfinder-stream {__version__}, {python}, {system}")


def _kernels(config: Config) -> Iterator[Answer]:
    for module in (
        "hitfinder.stream._kernels",
        "hitfinder.models._cells",
        "hitfinder.models._gate",
        "hitfinder.models._lit",
        "hitfinder.models._places",
        "hitfinder.models._posterior",
        "hitfinder.models._spots",
    ):
        try:
            compiled = import_module(module)
        except ImportError as error:
            yield Answer(False, f"kernels: {error}; a C compiler and `pip install -e .` make them")
            continue
        yield Answer(True, f"kernels: compiled, {Path(compiled.__file__ or '').name}")


def _torch(config: Config) -> Iterator[Answer]:
    import torch

    yield Answer(True, f"torch {torch.__version__}")
    n = torch.cuda.device_count()
    if n == 0:
        yield Answer(True, "devices: cpu; no CUDA device is visible, so the CPU judges")
    for i in range(n):
        memory = torch.cuda.get_device_properties(i).total_memory
        yield Answer(True, f"device cuda:{i}: {torch.cuda.get_device_name(i)}, {memory >> 30} GiB")


def _weights(config: Config) -> Iterator[Answer]:
    from hitfinder.models.pipeline import Pipeline

    gate = config.gate
    try:
        pipeline = Pipeline(
            Path(gate.model) if gate.model else None,
            mode=gate.mode,
            max_false_positive_rate=gate.max_false_positive_rate,
            threshold=gate.threshold,
        )
    except HitfinderError as error:
        yield Answer(False, f"weights: {error}")
        return
    name = gate.model or "shipped"
    yield Answer(
        True,
        f"weights: {name}, {pipeline.gate.model_id} as its card says; "
        f"threshold {pipeline.threshold:.4g} ({gate.mode})",
    )


def _filters(config: Config) -> Iterator[Answer]:
    import h5py

    missing = [n for n in FILTERS if not h5py.h5z.filter_avail(n)]
    if missing:
        import hdf5plugin  # noqa: F401  (its import registers the filters)
    for number, name in FILTERS.items():
        if h5py.h5z.filter_avail(number):
            yield Answer(True, f"HDF5 filter {number} ({name})")
        else:
            yield Answer(False, f"HDF5 filter {number} ({name}) is missing; reinstall hdf5plugin")


def _ports(config: Config) -> Iterator[Answer]:
    for key, option, address in (
        ("sink.results", "--results", config.sink.results.removeprefix("tcp://")),
        ("http.bind", "--http", config.http.bind),
    ):
        host, _, port = address.rpartition(":")
        if not port.isdigit():
            yield Answer(True, f"{key}: {address}, bound at the start")
            continue
        try:
            with socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, int(port)))
        except OSError as error:
            yield Answer(
                False, f"{key}: {address}: {error.strerror or error}; free it or give {option}"
            )
        else:
            yield Answer(True, f"{key}: {address} is free")


def _memory(config: Config) -> Iterator[Answer]:
    slot_bytes = min(SLOT_4M_BYTES, config.ring.slot_bytes)
    need = config.ring.slots * slot_bytes + CHILDREN_BYTES
    free = _free_bytes()
    said = f"memory: {free >> 20} MiB free, {need >> 20} MiB for {config.ring.slots} slots of 4M"
    if free >= need:
        yield Answer(True, said)
    else:
        yield Answer(False, f"{said}; lower ring.slots")


def _free_bytes() -> int:
    """Return what is free on the host, and no more than this control group may have."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) << 10
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text().strip()).isdigit():
        free = min(free, int(limit))
    return free
