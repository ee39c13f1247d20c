"""What a person reads of a data set tree's check: counts by data set, then every fault."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from hitfinder.workers.dataset_check import TreeReport
from hitfinder.workers.dataset_faults import Fault
from hitfinder.workers.dataset_names import Folder

MOST_LINES = 200  # a tree with more faults than this has one reason for most of them


def print_report(report: TreeReport, console: Console, *, repaired: bool) -> None:
    """Print the counts, the faults with what mends each, and a closing line.

    Args:
        repaired: it was checked after a repair, so what is left needs a person.
    """
    faults = [fault for fault in report.faults if not fault.is_note]
    notes = [fault for fault in report.faults if fault.is_note]
    console.print(_counts(report, faults))
    for fault in [*faults[:MOST_LINES], *notes]:
        _print_fault(fault, console)
    if len(faults) > MOST_LINES:
        console.print(f"... and {len(faults) - MOST_LINES} faults more")
    n_mendable = sum(fault.mend is not None for fault in faults)
    hint = f"; --repair mends {n_mendable}" if n_mendable and not repaired else ""
    console.print(f"{report.n_frames} frames, {len(faults)} faults{hint}", highlight=False)


def _counts(report: TreeReport, faults: list[Fault]) -> Table:
    table = Table("data set", *Folder, "faults", title=str(report.images))
    n_faults = Counter(next((p for p in f.path.parts if p.isdigit()), "?") for f in faults)
    for dataset in sorted({name for name, _ in report.counts} | set(n_faults)):
        counts = [str(report.counts[dataset, folder]) for folder in Folder]
        table.add_row(dataset, *counts, str(n_faults[dataset]))
    return table


def _print_fault(fault: Fault, console: Console) -> None:
    said = "note: " if fault.is_note else ""
    mend = f" -> {fault.mend}" if fault.mend is not None else ""
    console.print(f"{said}{fault.path}: {fault.text}{mend}", markup=False, highlight=False)
