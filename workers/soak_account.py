"""The account of a soak: sent against published against stored, frame by frame.

One rule: a frame that left whole must be judged, and whatever is announced must have one verdict;
both are counted here from the two ends, and each exception is named by its cause.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from hitfinder.stream.check import check_run
from hitfinder.stream.ledger import read_ledger
from hitfinder.workers.soak_beam import Sent
from hitfinder.workers.soak_watch import Topic, outcomes

LEAST_JUDGED = 0.99
JUDGED = ("hit", "miss")
# Growth that is no leak: an allocator's arenas fill within the first minutes.
FLAT_MIB, FLAT_HANDLES = 40.0, 8
SETTLED_S = 60.0
# A life is told in so many parts, so that a growth that ends is seen to.
N_PARTS = 10


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9: when, in seconds from the start, and whose."""

    at_s: float
    victim: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process held at a time: MiB of memory of its own, open file handles."""

    at_s: float
    job: str
    pid: int
    memory_MiB: float
    n_handles: int


@dataclass(slots=True)
class Account:
    """All that a soak found; `close` sums it up.

    Attributes:
        problems: what must not be, a sentence each.
        exit_status: of the last daemon.
        recovered: what daemons said at their start of killed predecessors' files.
        n_stored_checked: published hits that were looked up in their files.
        figures: the sums, by name, JSON-like.
    """

    out: Path
    seconds: float = 0.0
    exit_status: int = -1
    beam_failure: str = ""
    kills: list[Kill] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    topics: list[Topic] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)
    n_stored_checked: int = 0
    n_rows: int = 0
    figures: dict[str, Any] = field(default_factory=dict)

    def close(self) -> None:
        """Hold sent, published and stored frames against each other."""
        if self.exit_status != 0:
            self.problems.append(f"the daemon ended with status {self.exit_status}")
        if self.beam_failure:
            self.problems.append(f"the detector gave up: {self.beam_failure}")
        self._hold_topic_against_ledgers()
        of_whole, by_fault = self._hold_sent_against_ledgers()
        self.problems += check_run(self.out).problems
        n_whole, n_judged = sum(of_whole.values()), sum(of_whole[o] for o in JUDGED)
        share = n_judged / n_whole if n_whole else 1.0
        # A killed supervisor takes the ring with it; what it owes is files that are whole.
        if share < LEAST_JUDGED and len(self.topics) == 1:
            self.problems.append(f"{share:.2%} of the frames that left whole were judged")
        self.figures = {
            "seconds": round(self.seconds, 1),
            "series": len(self.sent),
            "images": sum(s.n_produced for s in self.sent),
            "kills": dict(Counter(k.victim for k in self.kills)),
            "verdicts": dict(sum((outcomes(t) for t in self.topics), Counter[str]())),
            "ledger_rows": self.n_rows,
            "hits_looked_up": self.n_stored_checked,
            "left_whole": n_whole,
            "judged_share": share,
            "of_whole": dict(of_whole),
            "by_fault": {kind: dict(found) for kind, found in sorted(by_fault.items())},
            "memory": self._footprints(),
            "recovered": len(self.recovered),
            "exit_status": self.exit_status,
        }

    def _hold_topic_against_ledgers(self) -> None:
        """Compare each series that was heard from start to end with its ledger."""
        n_twice = sum(t.n_twice for t in self.topics)
        if n_twice:
            self.problems.append(f"{n_twice} frames have two verdicts")
        for topic in self.topics:
            for end in topic.ends:
                published = topic.verdicts.get(end["series_uid"], {})
                if end["series_uid"] not in topic.heard:
                    continue
                if not end["balanced"] or len(published) != end["announced"]:
                    self.problems.append(
                        f"{end['folder']}: {end['announced']} frames announced, "
                        f"{len(published)} verdicts on the topic"
                    )
                rows = read_ledger(self.out / end["folder"] / "ledger.h5")
                stored = dict(zip(rows["frame"].tolist(), rows["outcome"].tolist(), strict=True))
                if stored != {f: outcome.encode() for f, outcome in published.items()}:
                    self.problems.append(f"{end['folder']}: ledger and topic differ")

    def _stored_verdicts(self) -> dict[str, dict[int, str]]:
        """Return unique id -> frame -> what all ledgers say of it, a judgement above all."""
        said: dict[str, dict[int, str]] = defaultdict(dict)
        for path in sorted(self.out.glob("series_*/ledger.h5")):
            rows = read_ledger(path)
            self.n_rows += len(rows)
            for row in rows[["series_uid", "frame", "outcome", "reason"]].tolist():
                uid, frame, outcome, reason = row[0].decode(), row[1], row[2].decode(), row[3]
                if outcome in ("missing", "dropped"):
                    outcome = f"{outcome}: {reason.decode()}"
                # What one daemon judged is missing to the other that had the series.
                if said[uid].get(frame) not in JUDGED:
                    said[uid][frame] = outcome
        return said

    def _hold_sent_against_ledgers(self) -> tuple[Counter[str], dict[str, Counter[str]]]:
        """Return the outcomes of whole frames, and those of harmed ones by fault."""
        of_whole: Counter[str] = Counter()
        by_fault: dict[str, Counter[str]] = defaultdict(Counter)
        said = self._stored_verdicts()
        headed = set[str]().union(*(t.with_header for t in self.topics))
        for one in self.sent:
            harmed, verdicts = one.harmed(), said[one.uid]
            # Untaken images are the last: the detector waits for a client until it is stopped.
            for frame in range(one.n_produced - one.n_untaken):
                found = verdicts.get(frame, "no verdict")
                if frame in harmed:
                    by_fault[harmed[frame]][found] += 1
                    continue
                if found == "no verdict":
                    is_known = one.uid in headed
                    found += "" if is_known else ", its series lost header and neighbours"
                of_whole[found] += 1
        if of_whole["no verdict"] and len(self.topics) == 1:
            self.problems.append(f"{of_whole['no verdict']} announced frames have no verdict")
        return of_whole, by_fault

    def _footprints(self) -> dict[str, dict[str, Any]]:
        """Return by job what its longest-lived process held, part by part; name what grew."""
        found = {}
        for job in sorted({s.job for s in self.samples}):
            lives: dict[int, list[Sample]] = defaultdict(list)
            for s in self.samples:
                if s.job == job:
                    lives[s.pid].append(s)
            # A process's growth is told by the one that lived longest.
            longest = max(lives.values(), key=len)
            settled = [s for s in longest if s.at_s - longest[0].at_s >= SETTLED_S]
            if len(settled) < N_PARTS:  # nobody lived long enough to tell
                continue
            parts = [
                settled[k * len(settled) // N_PARTS :][: len(settled) // N_PARTS]
                for k in range(N_PARTS)
            ]
            memory = [median(s.memory_MiB for s in part) for part in parts]
            handles = [median(s.n_handles for s in part) for part in parts]
            if memory[-1] > memory[0] + FLAT_MIB or handles[-1] > handles[0] + FLAT_HANDLES:
                self.problems.append(f"{job} grew: {memory} MiB, {handles} file handles")
            found[job] = {
                "lives": len(lives),
                "longest_s": round(longest[-1].at_s - longest[0].at_s),
                "MiB": [round(part, 1) for part in memory],
                "most_MiB": round(float(np.max([s.memory_MiB for s in longest])), 1),
                "handles": handles,
            }
        return found


def as_markdown(account: Account, command: str) -> str:
    """Return the report that people read."""
    f = account.figures
    verdict = "nothing amiss" if not account.problems else f"{len(account.problems)} problems"
    kills = ", ".join(f"{n} {job}" for job, n in f["kills"].items()) or "none"
    lines = [
        "# Soak",
        "",
        f"`{command}`",
        "",
        f"**{verdict}.** {f['seconds']:.0f} s, {f['series']} series, {f['images']} images; "
        f"kill -9: {kills}; exit status {f['exit_status']}. {f['left_whole']} frames left the "
        f"detector whole, **{f['judged_share']:.2%} of them judged**. {f['hits_looked_up']} "
        f"published hits looked up in the file and row that they name; {f['ledger_rows']} ledger "
        f"rows; {f['recovered']} folders of killed daemons finished by their successors.",
        "",
        *(f"* {p}" for p in account.problems),
        "",
        "| what left the detector | verdicts |",
        "|---|---|",
        f"| whole | {_tally(f['of_whole'])} |",
        *(f"| {kind} | {_tally(found)} |" for kind, found in f["by_fault"].items()),
        "",
        "Memory of its own and file handles of each job's longest-lived process, by tenths of its "
        f"life after {SETTLED_S:.0f} s (medians):",
        "",
        "| job | lives | longest s | MiB | most | handles |",
        "|---|---|---|---|---|---|",
        *(
            f"| {job} | {held['lives']} | {held['longest_s']} | {_row(held['MiB'])} "
            f"| {held['most_MiB']:g} | {_row(held['handles'])} |"
            for job, held in f["memory"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _tally(found: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(found.items(), key=lambda kv: -kv[1]))
