"""Claims for the demo: it finds what was sent, shows it, and fails where frames go missing."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hitfinder.stream.results import Outcome, Record
from hitfinder.workers.config import ConfigError
from hitfinder.workers.demo import DemoOptions, demo
from hitfinder.workers.demo_summary import Frame, Series, unaccounted

FRAMES = 3


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, str]:
    """Return a short demo's exit status, folder and words."""
    out, said = tmp_path_factory.mktemp("demo") / "demo-out", io.StringIO()
    options = DemoOptions(out, frames=FRAMES, rate_Hz=30.0, hit_fraction=0.7)
    status = demo(options, Console(file=said, width=100))
    return status, out, said.getvalue()


@pytest.mark.system
def test_demo_finds_hits_and_adds_up(shown: tuple[int, Path, str]) -> None:
    status, out, said = shown
    assert status == 0, said
    truth = [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]
    n_hits = sum(t["is_hit"] for t in truth)
    assert f"{n_hits} of {n_hits} hits found" in said
    assert f"{9 * FRAMES} frames in all" in said


@pytest.mark.system
def test_demo_leaves_a_picture_and_names_the_next_steps(shown: tuple[int, Path, str]) -> None:
    _, out, said = shown
    picture = (out / "demo.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 100_000
    for words in ("indexamajig -i hits.lst -g detector.geom", "replay", "bench", "demo.png"):
        assert words in said
    for name in ("hits.lst", "detector.geom", "ledger.h5", "summary.json"):
        assert len(list(out.glob(f"series_*/{name}"))) == 9


@pytest.mark.system
def test_demo_sees_a_file_that_does_not_add_up(shown: tuple[int, Path, str]) -> None:
    _, out, _ = shown
    copy = out.parent / "copy"
    shutil.copytree(out, copy)
    next(copy.glob("series_*/hits_000001.h5")).unlink()
    assert unaccounted(copy, 0, [], [], {})


def test_demo_leaves_a_folder_alone_that_no_demo_made(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="no demo made it"):
        demo(DemoOptions(tmp_path), Console(file=io.StringIO()))
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def _frames(n: int) -> list[Frame]:
    record = Record(series=1, frame=0, outcome=Outcome.MISS)
    frame = Frame(record, "series_1", is_hit=False, n_spots=0, dataset="02")
    return [
        replace(frame, record=Record(series=1, frame=k, outcome=Outcome.MISS)) for k in range(n)
    ]


def test_a_frame_without_verdict_is_named(tmp_path: Path) -> None:
    frames = _frames(3)
    series = [Series.of({"series": 1, "balanced": True, "announced": 4}, frames)]
    problems = unaccounted(tmp_path, 4, frames, series, {"the daemon": 0})
    assert any("4 frames sent, 3 verdicts" in p for p in problems)
    assert any("does not balance" in p for p in problems)


def test_a_frame_with_two_verdicts_is_named(tmp_path: Path) -> None:
    frames = [*_frames(2), _frames(1)[0]]
    assert any("3 frames sent" in p for p in unaccounted(tmp_path, 3, frames, [], {}))


def test_a_failed_process_is_named(tmp_path: Path) -> None:
    assert "the daemon ended with status 1" in unaccounted(tmp_path, 0, [], [], {"the daemon": 1})
