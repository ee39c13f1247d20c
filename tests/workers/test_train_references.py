"""The references' training, from drawn frames to weights that score."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hitfinder.models.geometry import Geometry
from hitfinder.models.references.linear_heads import LinearHeadsReference
from hitfinder.models.references.reference import references
from hitfinder.sim.physics import Detector
from hitfinder.workers.reference_frames import Crops, Pairs, ReferenceFrames, WholeFrames
from hitfinder.workers.train_references import NETWORKS, ReferenceOptions, train_references

# A 4M's view of the scattering with few pixels, so that spots fall on it.
DETECTOR = Detector(shape=(135, 130), pixel_size_m=1200e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("references")
    train_references(ReferenceOptions(out, pairs=5, held_out=2, epochs=1), DETECTOR)
    return out


def test_every_network_is_written_with_a_card_that_says_how(trained: Path):
    for name in NETWORKS:
        card = json.loads((trained / f"{name}.json").read_text())
        assert card["options"]["pairs"] == 5
        assert card["recipe"]["reduced"]
        assert card["held_out"]
        assert card["epochs"][0]["learning_rate"] > 0
    assert (trained / "curves.png").stat().st_size > 1000


def test_what_was_trained_scores_frames_of_its_detector(trained: Path):
    valid = ~DETECTOR.gap_mask
    image = np.random.default_rng(1).poisson(1, DETECTOR.shape).astype(np.uint16)
    dark = np.zeros(DETECTOR.shape, np.float32)
    found = references(trained)
    assert len(found) >= len(NETWORKS) - 1
    for reference in found:
        reference.begin(Geometry.centred(DETECTOR.shape), valid)
        assert np.isfinite(reference.score(image, dark)), reference.name
    assert LinearHeadsReference(trained).matrix(image, valid).sum() == pytest.approx(1)


def test_a_pair_is_the_same_water_without_and_with_a_crystal():
    blank, hit = ReferenceFrames(3, DETECTOR).pair(4)
    counts, labels = Pairs((blank, hit), DETECTOR.shape, 2).batch([0])
    assert labels.tolist() == [0, 1]
    added = counts[1, 0] - counts[0, 0]
    assert (added >= 0).all()
    assert added.sum() > 0
    assert counts[0, 1].sum() == 0
    assert float(added.sum()) == pytest.approx(float(counts[1, 1].sum()), rel=0.3)
    again, _ = WholeFrames(ReferenceFrames(3, DETECTOR).pair(4), DETECTOR.shape, 2).batch([0, 1])
    assert torch.equal(again, counts)


def test_cut_outs_hold_the_pixels_that_their_labels_name():
    hit = ReferenceFrames(3, Detector(shape=(300, 280), pixel_size_m=540e-6)).pair(2)[1]
    counts, labels = Crops([hit], (300, 280), seed=1).batch([0])
    assert counts.shape == (4, 1, 256, 256)
    assert labels[1::2].sum() > 0
    on, off = labels > 0, labels == 0
    assert counts[:, 0][on].mean() > 3 * counts[:, 0][off].mean()
