"""`python -m tests.system.faults_table`: every fault with its expected and found verdicts.

One rule: the rows are what the tests themselves held against each other; this only prints them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

MODULES = ("test_daemon_faults.py", "test_daemon_overload.py")
COLUMNS = ("fault", "expected", "found")


def tell(
    record: Callable[[str, object], None],
    fault: str,
    expected: Sequence[str],
    found: Sequence[str],
) -> None:
    """Hand a row on to the table, with pytest's `record_property`."""
    for name, said in zip(COLUMNS, (fault, ", ".join(expected), ", ".join(found)), strict=True):
        record(name, said)


class Rows:
    """A pytest plugin that collects what the tests tell."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a test's row."""
        if report.when == "call" and report.user_properties:
            self.rows.append(dict(report.user_properties))


def main() -> int:
    """Run the tests of faults and overload and print their rows as markdown."""
    told, here = Rows(), Path(__file__).parent
    status = pytest.main([str(here / name) for name in MODULES], plugins=[told])
    print(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in told.rows:
        print("|", " | ".join(f"`{row[name]}`" for name in COLUMNS), "|")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
