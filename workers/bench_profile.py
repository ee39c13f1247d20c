"""Where a frame's core time goes: each process, the stages it consists of, and the rest.

One rule: it is told in memcpys, each figure by the memcpy of its own conditions. A stage is
measured alone and a process beside all others, where a memcpy takes longer, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hitfinder.workers.bench_end_to_end import EndToEnd
from hitfinder.workers.bench_stages import Stage

# Waking up, bookkeeping, the kernel's part, and caches that other processes have filled.
REST = "the rest"


@dataclass(frozen=True, slots=True)
class ProfileLine:
    """One process, or one stage of it.

    Attributes:
        stage: empty for the process as a whole; the lines after it add up to it.
        x_memcpy: core time a frame of the daemon, in memcpys; the rest is below zero where the
            stages take longer alone than in the daemon.
    """

    process: str
    stage: str
    x_memcpy: float


def profile_of(stages: Sequence[Stage], run: EndToEnd) -> list[ProfileLine]:
    """Return the processes of a run, the dearest first, each followed by what it consists of."""
    lines = []
    for whole in sorted(run.processes, key=lambda p: -p.core_ms):
        parts = [
            ProfileLine(whole.process, s.stage, s.x_memcpy * s.share[whole.process])
            for s in stages
            if whole.process in s.share
        ]
        rest = whole.x_memcpy - sum(p.x_memcpy for p in parts)
        lines += [ProfileLine(whole.process, "", whole.x_memcpy), *parts]
        lines.append(ProfileLine(whole.process, REST, rest))
    return lines
