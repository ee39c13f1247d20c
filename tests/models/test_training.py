"""Fitting the gate on made-up places."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hitfinder.models.ablation import Evidence, take_away
from hitfinder.models.errors import ModelError
from hitfinder.models.gate import GateNet
from hitfinder.models.labelled_frames import LabelledFrames
from hitfinder.models.places import FEATURES, N_WIDTHS, PLACES
from hitfinder.models.training import FitOptions, Fitted, fit, logits_of, tail_tpr

EVIDENCE = FEATURES.index("evidence")
RADIUS = FEATURES.index("radius_kpx")
QUICK = FitOptions(seed=5, epochs=6, batch=128)


def frames(seed: int, n_pairs: int) -> LabelledFrames:
    """Return pairs whose hits have better places, near the beam: more than the ratio tells."""
    rng = np.random.default_rng(seed)
    n = 2 * n_pairs
    is_hit = np.arange(n) % 2 == 1
    places = np.zeros((n, PLACES, len(FEATURES)), np.float32)
    seen = np.arange(PLACES) < rng.integers(4, 12, n)[:, None]
    is_spot = seen & is_hit[:, None] & (np.arange(PLACES) < 4)
    ratio = rng.gumbel(-1, 1, (n, PLACES)) + np.where(is_spot, rng.uniform(0, 3, (n, 1)), 0)
    places[..., 0] = 1
    places[..., 1 : 1 + N_WIDTHS] = ratio[..., None] + rng.normal(0, 0.1, (*seen.shape, N_WIDTHS))
    places[..., EVIDENCE] = ratio / np.log(10)
    places[..., RADIUS] = np.where(is_spot, 0.2, rng.uniform(0.2, 1.5, (n, PLACES)))
    places[~seen] = 0
    label = np.where(seen, is_spot, -1).astype(np.int8)
    decoys = np.repeat(rng.random(n_pairs) < 0.1, 2)
    return LabelledFrames(places, is_hit, is_hit.copy(), decoys, label, np.arange(n) // 2)


def parameters(fitted: Fitted) -> dict[str, torch.Tensor]:
    """Return what would be shipped."""
    return fitted.net.state_dict()


def assert_equal(one: Fitted, other: Fitted) -> None:
    """Compare networks and curves bit by bit."""
    assert one.epochs == other.epochs
    for (name, a), b in zip(parameters(one).items(), parameters(other).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_training_beats_the_bare_statistic_where_there_is_more_to_see_and_is_repeatable():
    train, test = frames(1, 300), frames(2, 300)
    fitted, again = (fit(train, test, QUICK) for _ in range(2))
    assert fitted.shipped_tpr[0] > fitted.bare_tpr[0]
    assert fitted.shipped_tpr[1] >= fitted.bare_tpr[1]
    assert fitted.epochs[-1].test_loss < fitted.epochs[0].test_loss
    assert "places" in fitted.kept
    assert_equal(fitted, again)


def test_what_does_not_help_is_taken_back_to_the_bare_statistic():
    held_out = frames(3, 40)
    fitted = fit(frames(1, 300), frames(2, 300), replace(QUICK, epochs=1, learning_rate=1e-7))
    assert fitted.kept == ()
    bare = logits_of(GateNet().eval(), held_out)[0]
    np.testing.assert_array_equal(logits_of(fitted.net, held_out)[0], bare)


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path):
    train, test, checkpoint = frames(1, 200), frames(2, 200), tmp_path / "checkpoint.safetensors"
    seen: list[int] = []
    fit(train, test, replace(QUICK, epochs=3), checkpoint=checkpoint)
    resumed = fit(train, test, QUICK, checkpoint=checkpoint, on_epoch=lambda n, _: seen.append(n))
    assert seen == [3, 4, 5]
    assert_equal(resumed, fit(train, test, QUICK))


def test_a_checkpoint_of_other_frames_or_a_broken_one_is_refused(tmp_path: Path):
    train, test, checkpoint = frames(1, 50), frames(2, 50), tmp_path / "checkpoint.safetensors"
    fit(train, test, replace(QUICK, epochs=1), checkpoint=checkpoint)
    with pytest.raises(ModelError, match="other frames or options"):
        fit(frames(3, 50), test, QUICK, checkpoint=checkpoint)
    with pytest.raises(ModelError, match="other frames or options"):
        fit(train, test, replace(QUICK, learning_rate=1e-4), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(ModelError, match="remove it"):
        fit(train, test, QUICK, checkpoint=checkpoint)


def test_unpaired_and_low_precision_trainings_learn_too():
    train, test = frames(1, 300), frames(2, 300)
    for options in (replace(QUICK, is_paired=False), replace(QUICK, precision="bfloat16")):
        losses = [epoch.test_loss for epoch in fit(train, test, options).epochs]
        assert losses[-1] < losses[0]


def test_the_rate_of_learning_shrinks_on_a_plateau():
    options = replace(QUICK, epochs=8, learning_rate=1.0, plateau_epochs=0)
    rates = [epoch.learning_rate for epoch in fit(frames(1, 60), frames(2, 60), options).epochs]
    assert rates[0] == 1.0
    assert rates[-1] < 1.0


def test_an_ablated_gate_sees_nothing_of_what_was_taken_away():
    drawn = frames(1, 20)
    for evidence, columns in (
        (Evidence.SCALES, range(2, 1 + N_WIDTHS)),
        (Evidence.PATCHES, range(1, 1 + N_WIDTHS)),
        (Evidence.SURROUNDINGS, [RADIUS]),
    ):
        net = fit(drawn, drawn, replace(QUICK, epochs=1, without=(evidence,))).net
        take_away(net, [evidence])
        other = drawn.places_BKF.copy()
        other[..., list(columns)] += (other[..., :1] != 0) * np.float32(3)
        logits, _ = logits_of(net, drawn)
        np.testing.assert_array_equal(logits_of(net, replace(drawn, places_BKF=other))[0], logits)


def test_what_the_scan_says_of_a_place_moves_no_verdict():
    drawn = frames(1, 60)
    net = fit(drawn, drawn, replace(QUICK, epochs=2)).net
    other = drawn.places_BKF.copy()
    other[..., [EVIDENCE, FEATURES.index("rest")]] = 60
    again = logits_of(net, replace(drawn, places_BKF=other))
    for said, before in zip(again, logits_of(net, drawn), strict=True):
        np.testing.assert_array_equal(said, before)


def test_the_tail_rate_counts_hits_above_the_highest_blanks():
    blank = np.linspace(0, 1, 1001)
    assert tail_tpr(blank, np.full(10, 2.0)) == 1
    assert tail_tpr(blank, np.full(10, 0.5)) == 0
