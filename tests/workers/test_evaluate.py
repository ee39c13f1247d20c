"""Claims for `evaluate`: its series are a function of the seed, its counts are right, and an
evaluation that goes on where it was stopped says the same."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from hitfinder.models import weights
from hitfinder.models.calibration import Calibration
from hitfinder.models.gate import GateNet
from hitfinder.models.spots import Spots as Peaks
from hitfinder.sim.frame_settings import FrameSettings
from hitfinder.sim.patterns import Spots, shipped_patterns
from hitfinder.sim.physics import Detector
from hitfinder.workers.evaluate import evaluate
from hitfinder.workers.evaluate_frames import SeriesFrames
from hitfinder.workers.evaluate_options import EvaluateOptions, options_of
from hitfinder.workers.evaluate_plans import BLANK, Subset, blank_plans, gate_plans
from hitfinder.workers.evaluate_positions import PositionCounter, summarise

SHAPE = (512, 512)
PARTS = ("gate", "positions", "comparison", "blanks", "calibration")


def options(out: Path) -> EvaluateOptions:
    """Return a tiny evaluation of weights that nobody trained."""
    calibration = Calibration(
        slope=np.ones(2),
        offset=np.full(2, -15.0),
        blank_scores=(np.linspace(-9, 0, 1999, dtype=np.float32),) * 2,
        spot=np.array([-5.0, 1.0]),
    )
    path = out / "bare.safetensors"
    if not path.exists():
        torch.manual_seed(1)
        weights.save(path, GateNet().arrays(), calibration, weights.load_water(), {"name": "bare"})
    return EvaluateOptions(
        out,
        path,
        parts=PARTS,
        n_head_frames=8,
        n_head_series=1,
        n_blanks=2,
        strengths=(0.05, 1.0),
        n_patterns=1,
        repeats=1,
        subset=Subset(1, ("05",)),
        n_chance=6,
        processes=1,
        datasets=("05",),
        detector_shape=(256, 256),
    )


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of a tiny evaluation and what was printed."""
    out, said = tmp_path_factory.mktemp("evaluation"), io.StringIO()
    evaluate(options(out), Console(file=said, width=200))
    return out, said.getvalue()


@pytest.mark.system
def test_report_and_results_hold_the_tables(evaluated: tuple[Path, str]) -> None:
    out, said = evaluated
    report = (out / "report.md").read_text()
    for words in (
        "## Asked and found",
        "too few",
        "## Hits found",
        "## Positions",
        "## Beside others",
        "## Blanks",
        "ECE",
    ):
        assert words in report
    assert "series model off" in report
    assert "written to" in said
    for name in ("gate.png", "comparison.png", "reliability.png"):
        assert f"({name})" in report
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    results = json.loads((out / "results.json").read_text())
    full = [p for p in results["gate"]["points"] if p["strength"] == 1 and p["cut"] == "shipped"]
    assert {(p["output"], p["width_mrad"], p["n_photons"]) for p in full} == {
        (o, w, n) for o in ("any", "spots3") for w in (0, 2) for n in (3e8, 3e7, 1e7)
    }
    assert {p["rate"]["n"] for p in full} == {4, 2}
    kinds = {r["kind"] for r in results["blanks"]["rates"]}
    assert kinds >= {"ideal", "jitter", "rings", "hot", "salt", "streak"}
    assert {r["rate"]["n"] for r in results["blanks"]["rates"]} == {2}
    assert sum(results["calibration"]["any"]["n"]) == 6


@pytest.mark.system
def test_a_stopped_evaluation_goes_on_and_says_the_same(evaluated: tuple[Path, str]) -> None:
    out, _ = evaluated
    scores = sorted((out / "scores").glob("*.npz"))
    before = json.loads((out / "results.json").read_text())["gate"]
    lost = next(path for path in scores if path.name.startswith("gate-05-0mrad-3e7"))
    lost.unlink()
    times = {path: path.stat().st_mtime_ns for path in scores if path != lost}
    evaluate(replace(options(out), parts=("gate",)), Console(file=io.StringIO()))
    assert json.loads((out / "results.json").read_text())["gate"] == before
    assert lost.exists()
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_plan_is_a_function_of_the_seed_and_its_hits_are_scattered() -> None:
    plans = gate_plans({"01": 3, "09": 2}, 2, 7)
    assert plans == gate_plans({"01": 3, "09": 2}, 2, 7)
    assert plans[:6] == gate_plans({"01": 3}, 2, 7)
    assert {p.seed for p in plans}.isdisjoint(p.seed for p in gate_plans({"01": 3}, 2, 8))
    assert len({p.seed for p in plans}) == len(plans) == 12
    frames = plans[0].frames
    assert sum(f.pattern == BLANK for f in frames) == len(frames) / 2
    assert any(f.pattern == BLANK for f in frames[:10])
    assert any(f.pattern != BLANK for f in frames[:10])
    full = [f for f in frames if f.strength == 1]
    assert len(full) == len(set(full)) == 3 * 8


def test_blanks_are_dealt_to_data_sets_and_fluxes() -> None:
    kinds = {"ideal": FrameSettings(), "hot": FrameSettings(n_hot_pixels=5)}
    plans = blank_plans(kinds, ("01", "02"), 2000, 0)
    ideal, hot = ([p for p in plans if p.kind == kind] for kind in kinds)
    assert [len(p.frames) for p in hot] == [1000, 1000]
    assert sum(len(p.frames) for p in ideal) == 2000
    assert {(p.dataset, p.n_photons) for p in ideal} == {
        (d, n) for d in ("01", "02") for n in (3e8, 3e7, 1e7)
    }


def test_a_frame_is_the_same_whichever_others_are_drawn() -> None:
    plan = gate_plans({"05": 2}, 1, 3)[0]
    detector, patterns = Detector(shape=SHAPE), shipped_patterns("05")
    hits = [k for k, f in enumerate(plan.frames) if f.strength == 1][:2]
    frames, lone = (SeriesFrames(plan, patterns, detector) for _ in range(2))
    drawn = [frames.draw(k) for k in range(hits[1] + 1)]
    np.testing.assert_array_equal(drawn[hits[1]].image, lone.draw(hits[1]).image)
    assert [e.is_hit for e in drawn] == [f.pattern != BLANK for f in plan.frames[: len(drawn)]]


def _spots(*rows: tuple[float, float, float]) -> Spots:
    fs, ss, photons = np.array(rows, np.float32).reshape(-1, 3).T
    n = len(fs)
    return Spots(fs, ss, photons, np.zeros((n, 3), np.int16), np.zeros(n, np.float32))


def _peaks(*rows: tuple[float, float, float, float]) -> Peaks:
    fs, ss, intensity, p = np.array(rows, np.float32).reshape(-1, 4).T
    return Peaks(fs, ss, intensity, np.ones(len(fs), np.float32), p)


def test_positions_are_counted_by_the_stated_rules() -> None:
    counter = PositionCounter(Detector(shape=SHAPE), 0.0)
    faint = _spots((300, 300, 1.0))
    # A lone bright one, two that run together, one at the edge.
    spots = _spots((50, 60, 40), (200, 200, 20), (203, 200, 20), (1, 100, 20))
    every = Spots(*(np.concatenate(c) for c in zip(_columns(spots), _columns(faint), strict=True)))
    peaks = _peaks((51, 60, 44, 0.9), (300, 300, 12, 0.9), (400, 400, 9, 0.8), (200, 200, 20, 0.1))
    figures = summarise(*([table] for table in counter.count(spots, every, peaks)), 0.0)
    assert (figures.recall.k, figures.recall.n) == (1, 4)
    assert (figures.clear_recall.k, figures.clear_recall.n) == (1, 1)
    assert (figures.precision.k, figures.precision.n) == (2, 3)
    assert figures.rms_px == pytest.approx(np.sqrt(0.5))
    assert figures.intensity_ratio == pytest.approx(1.1)
    missed = counter.count(spots, every, _peaks())
    assert summarise([missed[0]], [missed[1]], 0.0).recall.k == 0


def _columns(spots: Spots) -> list[np.ndarray]:
    return [spots.fs, spots.ss, spots.photons, spots.hkl, spots.d_A]


def test_words_become_options() -> None:
    given: dict[str, Any] = {"out": Path("x"), "weights": None, "data": [], "n_blanks": 7}
    rest = {"n_patterns": 32, "repeats": 2, "processes": 1, "seed": 0}
    words = options_of(
        parts="blanks, gate",
        ablation=["no pairs=a.safetensors"],
        subset="01, 09",
        is_quick=True,
        **given,
        **rest,
    )
    assert words.parts == ("blanks", "gate")
    assert words.ablation == {"no pairs": Path("a.safetensors")}
    assert (words.n_blanks, words.repeats) == (7, 1)
    assert words.subset == Subset(2, ("01", "09"))
