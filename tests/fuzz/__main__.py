"""`python -m tests.fuzz`: broken inputs by the million, each target in a process of its own.

One rule: a finding is an error that is not the target's own, a crash, a hang, or memory without
bound; its input is kept, and `--replay FILE` tries it again.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import resource
import struct
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
from tests.fuzz.mutate import Parts, mutated
from tests.fuzz.targets import TARGETS

# Longer than `check` and a repair give HDF5, on a machine that has other work.
HANG_S = 120.0
MEMORY_BYTES = 4 << 30
SCRATCH_BYTES = 1 << 20
HEAD = struct.Struct("<QI")  # inputs tried so far, bytes of the one being tried


@dataclass(slots=True)
class Found:
    """What one target's fuzzing came to."""

    n_inputs: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


def fuzz(name: str, seconds: float, seed: int, keep: Path) -> Found:
    """Try one target for a while; after a finding it goes on with the inputs that follow."""
    found, begin_s = Found(), time.monotonic()
    while (left_s := seconds - (time.monotonic() - begin_s)) > 0 and len(found.findings) < 20:
        _one_life(name, left_s, seed + 1000 * len(found.findings), keep, found)
    found.seconds = time.monotonic() - begin_s
    return found


def _one_life(name: str, seconds: float, seed: int, keep: Path, found: Found) -> None:
    scratch = mmap.mmap(-1, SCRATCH_BYTES)
    pid = os.fork()
    if pid == 0:
        os._exit(_child(name, seconds, seed, scratch))
    n_tried, moved_s, is_hung, status = 0, time.monotonic(), False, 0
    while not is_hung:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        now_tried = HEAD.unpack_from(scratch)[0]
        if now_tried != n_tried:
            n_tried, moved_s = now_tried, time.monotonic()
        is_hung = time.monotonic() - moved_s > HANG_S
        time.sleep(0.02)
    n_tried, n_bytes = HEAD.unpack_from(scratch)
    found.n_inputs += n_tried
    if is_hung:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    if not is_hung and status == 0:
        return
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{name}_{seed}_{n_tried}.msgpack"
    path.write_bytes(scratch[HEAD.size : HEAD.size + n_bytes])
    found.findings.append(f"{path.name}: {'hung' if is_hung else 'ended by it'}")


def _child(name: str, seconds: float, seed: int, scratch: mmap.mmap) -> int:
    """Try inputs until the time is up; the one at hand stands in shared memory."""
    if not os.environ.get("ASAN_OPTIONS"):  # its shadow alone takes more
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    target, rng, end_s = TARGETS[name], random.Random(seed), time.monotonic() + seconds
    seeds, n = target.seeds(), 0
    while time.monotonic() < end_s:
        parts = mutated(seeds, rng)
        packed = msgpack.packb(parts)
        scratch[HEAD.size : HEAD.size + len(packed)] = packed
        HEAD.pack_into(scratch, 0, n, len(packed))
        try:
            target.try_one(parts)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            return 1
        n += 1
    HEAD.pack_into(scratch, 0, n, 0)
    return 0


def _replay(path: Path) -> None:
    parts: Parts = msgpack.unpackb(path.read_bytes())
    TARGETS[path.name.split("_")[0]].try_one(parts)
    print(f"{path.name}: taken without complaint")


def main() -> int:
    """Fuzz and print a table; exit status 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="in all, shared by the targets"
    )
    parser.add_argument("--target", choices=sorted(TARGETS), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path, help="try one kept input again")
    asked = parser.parse_args()
    if asked.replay:
        _replay(asked.replay)
        return 0
    names = asked.target or list(TARGETS)
    print("| target | inputs | seconds | findings |\n|---|---|---|---|")
    n_findings = 0
    for name in names:
        found = fuzz(name, asked.seconds / len(names), asked.seed, asked.keep)
        said = "; ".join(found.findings) or "none"
        print(f"| {name} | {found.n_inputs} | {found.seconds:.0f} | {said} |", flush=True)
        n_findings += len(found.findings)
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
