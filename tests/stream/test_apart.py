"""Work on damaged files: done, refused, hung or deadly, the caller gets a sentence and goes on."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from hitfinder.stream import apart as module
from hitfinder.stream.apart import apart
from hitfinder.stream.errors import StoreError


def test_what_the_child_says_comes_back(tmp_path: Path) -> None:
    long = "ä" * 100_000  # more than a pipe holds
    assert apart(tmp_path, lambda: ["one", long, str(os.getpid())])[:2] == ["one", long]


def test_it_is_a_process_of_its_own(tmp_path: Path) -> None:
    assert apart(tmp_path, lambda: [str(os.getpid())]) != [str(os.getpid())]


def test_its_refusal_is_ours(tmp_path: Path) -> None:
    def refuse() -> NoReturn:
        raise StoreError("series_1: no ledger")

    with pytest.raises(StoreError, match="^series_1: no ledger$"):
        apart(tmp_path, refuse)


def test_a_loop_without_end_is_ended_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)

    def loop() -> NoReturn:
        while True:
            pass

    with pytest.raises(StoreError, match="HDF5 has not come back"):
        apart(tmp_path, loop)


def test_a_death_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError, match=r"ended a process \(-9\)"):
        apart(tmp_path, lambda: [str(os.kill(os.getpid(), 9))])
    with pytest.raises(StoreError, match=r"ended a process \(1\)"):
        apart(tmp_path, lambda: [str(1 / 0)])
    assert "ZeroDivisionError" in capfd.readouterr().err
