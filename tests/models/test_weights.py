"""Weights files are used only as their card vouches for them."""

import json
import shutil
from pathlib import Path

import pytest

from hitfinder.models import weights
from hitfinder.models.errors import ModelError
from hitfinder.models.vouched import card_path
from hitfinder.models.weights_file import shipped_path


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shipped = shipped_path()
    for path in (shipped, card_path(shipped)):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / shipped.name


def test_the_shipped_weights_match_their_card_and_give_their_id():
    loaded = weights.load()
    assert loaded.card["sha256"].startswith(loaded.model_id)
    assert len(loaded.model_id) == 12
    assert loaded.card["made_by"] == "hitfinder-stream train"
    assert len(loaded.calibration.blank_scores[0]) > 1000


def test_one_changed_byte_is_refused(copied: Path):
    packed = bytearray(copied.read_bytes())
    packed[-1] ^= 1
    copied.write_bytes(bytes(packed))
    with pytest.raises(ModelError, match="changed or mixed up"):
        weights.load(copied)


def test_missing_files_are_named(copied: Path):
    with pytest.raises(ModelError, match="model card"):
        weights.load(copied.parent / "other.safetensors")
    copied.unlink()
    with pytest.raises(ModelError, match="train one"):
        weights.load(copied)


@pytest.mark.parametrize("card", ["[]", "{", '{"sha256": 5}'])
def test_a_card_that_says_nothing_is_refused(copied: Path, card: str):
    card_path(copied).write_text(card)
    with pytest.raises(ModelError):
        weights.load(copied)


def test_arrays_of_another_network_are_refused(copied: Path):
    import hashlib

    import numpy as np
    import safetensors.numpy

    packed = safetensors.numpy.save({"net.first.weight": np.zeros((2, 2), np.float32)})
    copied.write_bytes(packed)
    card = json.loads(card_path(copied).read_text())
    card["sha256"] = hashlib.sha256(packed).hexdigest()
    card_path(copied).write_text(json.dumps(card))
    with pytest.raises(ModelError, match="not those of"):
        weights.load(copied)


def test_saved_weights_come_back_the_same(tmp_path: Path):
    first = weights.load()
    path = weights.save(
        tmp_path / "again.safetensors", first.net, first.calibration, first.water, {"name": "x"}
    )
    again = weights.load(path)
    assert again.model_id == first.model_id
