"""References beside the gate: what each makes of small frames."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from hitfinder.models.errors import ModelError
from hitfinder.models.geometry import Geometry
from hitfinder.models.references import stored
from hitfinder.models.references.classifiers import CLASSIFIERS
from hitfinder.models.references.fitting import Recipe, fit
from hitfinder.models.references.heatmap import HEATMAP, peak_places
from hitfinder.models.references.linear_heads import (
    LINEAR_HEADS,
    LinearHeads,
    LinearHeadsReference,
)
from hitfinder.models.references.reference import Reference, references
from hitfinder.models.references.trained import TrainedReference, build

SHAPE = (125, 118)
GEOMETRY = Geometry.centred(SHAPE)
VALID = np.ones(SHAPE, np.bool_)
NAMES = (*CLASSIFIERS, HEATMAP)


def blank(seed: int):
    return np.random.default_rng(seed).poisson(0.05, SHAPE).astype(np.uint16)


def with_crystal(seed: int):
    """Return a frame and its noise-free crystal."""
    bragg = np.zeros(SHAPE, np.float32)
    for i, j in ((20, 30), (60, 90), (100, 40), (33, 77)):
        bragg[i - 1 : i + 2, j - 1 : j + 2] = 8
    rng = np.random.default_rng(seed + 1000)
    return blank(seed) + rng.poisson(bragg).astype(np.uint16), bragg


class Made:
    """Frames with and without a crystal, as a network wants them."""

    def __init__(self, name: str, first: int) -> None:
        self.n_channels = 2 if name == "dual_input" else 1
        self.is_heatmap, self.first = name == HEATMAP, first

    def __len__(self) -> int:
        return 4

    def batch(self, chosen):
        images, labels = [], []
        for k in chosen:
            image, bragg = with_crystal(self.first + k)
            if k % 2:
                image, bragg = blank(self.first + k), np.zeros(SHAPE, np.float32)
            images.append(np.stack((image, bragg))[: self.n_channels].astype(np.float32))
            labels.append((bragg > 1) if self.is_heatmap else np.array(k % 2 == 0))
        return tuple(torch.from_numpy(np.stack(a).astype(np.float32)) for a in (images, labels))


def fitted(name: str) -> tuple[torch.nn.Module, list]:
    torch.manual_seed(1)
    net = build(name, SHAPE)
    recipe = Recipe(epochs=2, batch=4, learning_rate=1e-3)
    loss = binary_cross_entropy_with_logits
    return net, fit(net, Made(name, 0), Made(name, 50), loss, recipe, seed=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_learns_is_stored_and_scores_the_same_again(name: str, tmp_path: Path):
    net, epochs = fitted(name)
    assert len(epochs) == 2
    assert all(np.isfinite((e.train_loss, e.test_loss)).all() for e in epochs)
    assert epochs[1].train_loss < epochs[0].train_loss
    stored.save(tmp_path, name, net, {"shape": list(SHAPE)})
    first, again = (TrainedReference(tmp_path, name) for _ in range(2))
    image, bragg = with_crystal(7)
    with pytest.raises(ModelError, match="begin a series"):
        first.score(image, bragg)
    for reference in (first, again):
        reference.begin(GEOMETRY, VALID)
    assert first.score(image, bragg) == again.score(image, bragg)
    assert first.needs_truth == (name == "dual_input")
    with pytest.raises(ModelError, match="trained for frames of"):
        first.begin(Geometry.centred((64, 64)), np.ones((64, 64), np.bool_))


def test_the_same_seed_gives_the_same_weights():
    one, two = (fitted("small_resnet")[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_masked_and_overflowed_pixels_are_zeros_to_a_network(tmp_path: Path):
    stored.save(tmp_path, "gate_cnn", build("gate_cnn", SHAPE), {"shape": list(SHAPE)})
    reference = TrainedReference(tmp_path, "gate_cnn")
    valid = VALID.copy()
    valid[:20] = False
    reference.begin(GEOMETRY, valid)
    dark, marked = blank(3), blank(3)
    dark[:20], dark[60, 60] = 0, 0
    marked[:20], marked[60, 60] = 77, 65535
    assert reference.score(dark, None) == reference.score(marked, None)


def test_only_the_upper_reference_asks_for_the_truth(tmp_path: Path):
    for name in NAMES:
        stored.save(tmp_path, name, build(name, SHAPE), {"shape": list(SHAPE)})
    found = references(tmp_path)
    assert {r.name for r in found if r.needs_truth} == {"dual input"}
    assert {name.replace("_", " ") for name in NAMES} < {r.name for r in found}
    dual = next(r for r in found if r.needs_truth)
    dual.begin(GEOMETRY, VALID)
    with pytest.raises(ModelError, match="noise-free"):
        dual.score(blank(1), None)


@pytest.mark.parametrize("reference", references(None), ids=lambda r: r.name)
def test_untrained_references_rank_a_bright_hit_over_blanks(reference: Reference):
    if reference.name == "probixi":  # learns from a series, not from a frame
        return
    reference.begin(GEOMETRY, VALID)
    assert not reference.needs_truth
    hit = reference.score(with_crystal(5)[0], None)
    assert hit > max(reference.score(blank(seed), None) for seed in range(5))
    assert hit == reference.score(with_crystal(5)[0], None)


def test_a_heatmap_names_its_local_maxima():
    logits = torch.full((40, 50), -3.0)
    logits[10, 20], logits[11, 21], logits[30, 5] = 4.0, 2.0, 1.0
    assert peak_places(logits).tolist() == [[10, 20], [30, 5]]


def test_linear_heads_give_a_matrix_of_probabilities(tmp_path: Path):
    torch.manual_seed(2)
    net = LinearHeads(SHAPE)
    stored.save(tmp_path, LINEAR_HEADS, net, {"shape": list(SHAPE)})
    heads = LinearHeadsReference(tmp_path)
    matrix = heads.matrix(blank(1), VALID)
    assert matrix.shape == (3, 3)
    assert matrix.sum() == pytest.approx(1)
    best = net(torch.from_numpy(blank(1).astype(np.float32))[None, None])[0].argmax(1).tolist()
    assert np.unravel_index(matrix.argmax(), (3, 3)) == tuple(best)
    with pytest.raises(ModelError, match="trained for"):
        heads.matrix(np.zeros((8, 8), np.uint16), np.ones((8, 8), np.bool_))


def test_weights_that_their_card_does_not_vouch_for_are_refused(tmp_path: Path):
    path = stored.save(tmp_path, HEATMAP, build(HEATMAP, SHAPE), {"shape": list(SHAPE)})
    card = path.with_suffix(".json")
    whole = json.loads(card.read_text())
    card.write_text(json.dumps(whole | {"sha256": "0" * 64}))
    with pytest.raises(ModelError, match="restore both"):
        references(tmp_path)
    card.write_text(json.dumps(whole | {"format": "another"}))
    with pytest.raises(ModelError, match="expected"):
        references(tmp_path)
    card.unlink()
    with pytest.raises(
        ModelError, match="train reference .*: python -m hitfinder.workers.train_references"
    ):
        references(tmp_path)
    resnet = stored.save(tmp_path, "small_resnet", build(HEATMAP, SHAPE), {"shape": list(SHAPE)})
    with pytest.raises(ModelError, match="not those of"):
        TrainedReference(resnet.parent, "small_resnet")
