"""Claims for `train`: what it leaves behind, that it is repeatable and goes on from a stop."""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from hitfinder.models import weights
from hitfinder.models.errors import ModelError
from hitfinder.sim.physics import Detector
from hitfinder.workers.train import TrainOptions, train
from hitfinder.workers.train_config import FitSection, FramesSection, TrainConfig

TINY = TrainConfig(
    train=FitSection(seed=3, epochs=2),
    frames=FramesSection(
        pairs=40,
        test_fraction=0.5,
        calibration_pairs=20,
        blanks=8,
        made_up_crystals=0,
        head_frames=1,
    ),
)


def options(out: Path, *, epochs: int = 2, seed: int = 3, resume: bool = False) -> TrainOptions:
    """Return a training of a minute's hundredth on a small detector."""
    fit = FitSection(seed=seed, epochs=epochs)
    config = msgspec.structs.replace(TINY, train=fit)
    small = Detector(shape=(514, 514))
    return TrainOptions(out, config, is_resumed=resume, processes=1, detector=small)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(options(tmp_path_factory.mktemp("made") / "tiny.safetensors"))


def test_weights_card_and_pictures_are_left_and_can_be_loaded(made: Path) -> None:
    loaded = weights.load(made)
    card = loaded.card
    assert card["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()
    assert card["config"]["train"]["seed"] == 3
    assert card["calibration"]["blanks"]["rings"] == 8
    assert len(loaded.calibration.blank_scores[0]) == 8
    assert set(card["heads"]["coverage"]) == {"photon_energy", "clen"}
    assert str(made.parent) not in json.dumps(card)
    for picture in ("tiny_curves.png", "tiny_confusion.png"):
        assert (made.parent / picture).stat().st_size > 1000


def test_a_training_stopped_after_an_epoch_goes_on_to_the_same_weights(
    made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tiny.safetensors"
    train(options(out, epochs=1))
    drawn = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("frames/*.safetensors")}
    train(options(out, resume=True))
    assert out.read_bytes() == made.read_bytes()
    again = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob("frames/*.safetensors")}
    assert again == drawn
    with pytest.raises(ModelError, match="another seed"):
        train(options(out, seed=4, resume=True))
