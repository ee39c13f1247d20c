"""Claims for the sub-commands: each shows an example, and wrong usage exits with 2."""

from pathlib import Path

import pytest

from hitfinder.workers.cli import main

COMMANDS = ("run", "replay", "simulate", "subscribe", "bench", "capture", "check", "train")
COMMANDS += ("dataset", "evaluate", "report", "export")


def _exit_of(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_of([command, "--help"]) == 0
    assert f"Example: hitfinder-stream {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["simulate", "--rate", "0"], "--rate"),
        (["simulate", "--rate", "quick"], "max"),
        (["simulate", "--dataset", "12"], "12"),
        (["simulate", "--faults", "gremlins:1"], "gremlins"),
        (["simulate", "--dtype", "int64"], "int64"),
        (["bench", "--frames", "0"], "--frames"),
        (["bench", "--device", "abacus"], "abacus"),
        (["bench", "--sweep", "dtype", "--soak-frames", "100"], "--soak-frames"),
        (["dataset", "x", "--datasets", "03..12"], "03..12"),
        (["dataset", "x", "--photons", "0"], "--photons"),
        (["dataset", "x", "--quick"], "--check"),
        (["dataset", "x", "--patterns", "shiped"], "shipped"),
        (["dataset", "x", "--patterns", "shipped", "--crystal-um", "5"], "crystal_um"),
        (["train", "--out", "weights.pickle"], ".safetensors"),
        (["export", ".", "--out", "run.h5"], ".cxi"),
        (["export", "absent", "--out", "run.cxi"], "absent"),
        (["evaluate", "--parts", "gate,luck"], "luck"),
        (["evaluate", "--subset", "02,11"], "11"),
        (["evaluate", "--ablation", "no scales"], "NAME=WEIGHTS"),
    ],
)
def test_wrong_usage_is_named(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_of(arguments) == 2
    assert word in capsys.readouterr().err


def test_a_truth_file_that_cannot_be_written_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tmp_path / "absent" / "truth.jsonl"
    arguments = ["simulate", "--bind", "tcp://127.0.0.1:*", "--truth", str(truth)]
    assert _exit_of(arguments) in (1, 2)
    assert "truth.jsonl" in capsys.readouterr().err
