"""Claims for `train --calibrate`: thresholds follow an operator's blanks; too few are refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from hitfinder.models import weights
from hitfinder.models.calibration import Calibration, GateMode
from hitfinder.models.errors import ModelError
from hitfinder.models.gate import GateNet
from hitfinder.workers.recalibration import RecalibrateOptions, recalibrate

SHAPE = (96, 128)
N = 60


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return untrained weights whose blanks were darker than any."""
    torch.manual_seed(1)
    table = np.linspace(-40, -30, 2000, dtype=np.float32)
    calibration = Calibration(np.ones(2), np.zeros(2), (table, table), np.array([0.0, 1.0]))
    path = tmp_path_factory.mktemp("old") / "old.safetensors"
    return weights.save(
        path, GateNet().arrays(), calibration, weights.load_water(), {"name": "old"}
    )


@pytest.fixture(scope="module")
def blanks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording of Poisson frames."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("blanks") / "blanks.h5"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = rng.poisson(0.02, (N, *SHAPE)).astype(np.uint16)
    return path


def test_thresholds_become_those_of_the_blanks_and_probabilities_stay(
    old: Path, blanks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.safetensors"
    done = recalibrate(RecalibrateOptions(out, (blanks,), old, max_false_positive_rate=0.05))
    before, after = weights.load(old), weights.load(out)
    assert done.n_blanks == N
    assert len(after.calibration.blank_scores[0]) == N
    np.testing.assert_array_equal(after.calibration.slope, before.calibration.slope)
    for mode in GateMode:
        assert after.calibration.threshold(mode, 0.05) > before.calibration.threshold(mode, 0.05)
    said = after.card["recalibrated"]
    assert said["from_model"] == before.model_id
    assert said["sources"] == [{"name": "blanks.h5", "frames": N}]
    assert after.card["name"] == "new"
    assert any("above the old any threshold" in w for w in done.warnings)


def test_the_same_blanks_again_pass_at_the_rate_and_warn_of_nothing(
    old: Path, blanks: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    asked = 1 / (N + 1)
    recalibrate(RecalibrateOptions(first, (blanks,), old, max_false_positive_rate=asked))
    again = recalibrate(
        RecalibrateOptions(second, (blanks,), first, max_false_positive_rate=asked)
    )
    assert again.warnings == ()
    assert first.read_bytes() == second.read_bytes()


def test_too_few_blanks_are_refused_with_the_number_needed(
    old: Path, blanks: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.safetensors"
    with pytest.raises(ModelError, match=f"{N} blanks.* at least 999"):
        recalibrate(RecalibrateOptions(out, (blanks,), old))
    assert not out.exists()


def test_misses_of_a_run_do_not_lower_its_threshold(
    old: Path, blanks: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run" / "series_1_x"
    run.mkdir(parents=True)
    with h5py.File(blanks) as source, h5py.File(run / "misses_000001.h5", "w") as file:
        file["entry/data/data"] = source["entry/data/data"][()]
        group = file.create_group("entry/hitfinder")
        group["threshold"] = np.full(N, 0.9)
        group["p_any"] = group["p_hit"] = np.linspace(0.1, 0.2, N)
        group["p_spots3"] = np.zeros(N)
    out = tmp_path / "new.safetensors"
    done = recalibrate(RecalibrateOptions(out, (tmp_path / "run",), old, "cpu", 0.05))
    assert weights.load(out).calibration.threshold(GateMode.ANY, 0.05) == pytest.approx(0.9)
    assert any("misses only" in warning for warning in done.warnings)


def test_hits_that_the_recording_names_are_left_out(old: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.h5"
    rng = np.random.default_rng(6)
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = rng.poisson(0.02, (40, *SHAPE)).astype(np.uint16)
        file["entry/data/kind"] = np.arange(40) % 4 == 0
    out = tmp_path / "new.safetensors"
    done = recalibrate(RecalibrateOptions(out, (path,), old, max_false_positive_rate=0.05))
    assert done.n_blanks == 30
    assert any("10 frames are hits" in warning for warning in done.warnings)
