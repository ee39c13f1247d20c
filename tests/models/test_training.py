"""Fitting and calibrating the gate, on made-up evidence."""

import numpy as np
import pytest

from hitfinder.models.gate import N_FEATURES, GateMode, GateNet, sigmoid
from hitfinder.models.training import LabelledFrames, calibrate, logits_of, tail_tpr, train


def frames(seed: int, n: int) -> LabelledFrames:
    """Return frames whose hits differ in more than the best place."""
    rng = np.random.default_rng(seed)
    is_hit = np.arange(n) % 2 == 0
    features = rng.gumbel(-1, 0.4, (n, N_FEATURES)).astype(np.float32)
    features[is_hit] += rng.uniform(0, 3, (int(is_hit.sum()), 1)).astype(np.float32)
    for first in range(0, N_FEATURES, 8):
        features[:, first : first + 8] = -np.sort(-features[:, first : first + 8], axis=1)
    return LabelledFrames(features, is_hit, is_hit, rng.random(n) < 0.2)


def test_an_untrained_network_is_the_scan():
    drawn = frames(1, 50)
    logits = logits_of(GateNet(), drawn)
    np.testing.assert_allclose(logits[:, 0], drawn.features[:, 32] * np.log(10), rtol=1e-5)
    np.testing.assert_allclose(logits[:, 1], drawn.features[:, 42] * np.log(10), rtol=1e-5)


def test_training_beats_the_scan_where_there_is_more_to_see_and_is_repeatable():
    (net, curves), (again, _) = (train(frames(1, 1500), frames(2, 1500), 5) for _ in range(2))
    assert curves.network_tpr[0] > curves.scan_tpr[0]
    assert curves.validation_loss[-1] < curves.validation_loss[0]
    held_out = frames(3, 200)
    np.testing.assert_array_equal(logits_of(net, held_out), logits_of(again, held_out))


def test_calibrated_probabilities_and_rates_hold_on_frames_not_seen():
    net, _ = train(frames(1, 1500), frames(2, 800), 5)
    blanks = frames(4, 6000)
    blanks = LabelledFrames(*(getattr(blanks, f)[1::2] for f in LabelledFrames.__slots__))
    rng = np.random.default_rng(6)
    terms = np.stack((np.ones(400), rng.normal(0, 3, 400), np.zeros(400), np.zeros(400)), axis=1)
    calibration = calibrate(net, frames(5, 2000), blanks, terms, terms[:, 1] > 1)
    unseen = frames(7, 6000)
    p = sigmoid(calibration.scores(logits_of(net, unseen)))
    clean = ~unseen.has_hot_pixels
    sure = (p[clean, 0] > 0.6) & (p[clean, 0] < 0.9)
    assert unseen.is_hit[clean][sure].mean() == pytest.approx(p[clean, 0][sure].mean(), abs=0.1)
    threshold = calibration.threshold(GateMode.ANY, 0.01)
    assert (p[clean & ~unseen.is_hit, 0] > threshold).mean() < 0.025
    spot = calibration.spot_probability(*(np.array(v, "f4") for v in ([9, -4], [0, 0], [1, 1])))
    assert spot[0] > 0.9
    assert spot[1] < 0.1


def test_the_tail_rate_counts_hits_above_the_highest_blanks():
    blank = np.linspace(0, 1, 1001)
    assert tail_tpr(blank, np.full(10, 2.0)) == 1
    assert tail_tpr(blank, np.full(10, 0.5)) == 0
