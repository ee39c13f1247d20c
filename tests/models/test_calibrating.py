"""Probabilities and thresholds of a gate, on made-up places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitfinder.models.calibrating import calibrate, envelope
from hitfinder.models.calibration import GateMode, sigmoid
from hitfinder.models.errors import ModelError
from hitfinder.models.gate import GateNet
from hitfinder.models.labelled_frames import LabelledFrames
from hitfinder.models.places import FEATURES, N_WIDTHS, PLACES
from hitfinder.models.training import logits_of


def frames(seed: int, n: int, *, hits: float, excess: float = 0.0) -> LabelledFrames:
    """Return frames of a few places; hits and an `excess` of blanks have better ones."""
    rng = np.random.default_rng(seed)
    is_hit = rng.random(n) < hits
    places = np.zeros((n, PLACES, len(FEATURES)), np.float32)
    ratio = rng.gumbel(-1, 1, (n, 8)) + excess
    ratio[is_hit] += rng.uniform(0, 6, (int(is_hit.sum()), 1))
    places[:, :8, 0] = 1
    places[:, :8, 1 : 1 + N_WIDTHS] = ratio[..., None]
    label = np.full((n, PLACES), -1, np.int8)
    label[:, :8] = is_hit[:, None]
    no = np.zeros(n, np.bool_)
    return LabelledFrames(places, is_hit, is_hit.copy(), no, label, np.arange(n))


def test_calibrated_probabilities_and_rates_hold_on_frames_not_seen():
    net = GateNet().eval()
    blanks = frames(4, 4000, hits=0)
    calibration = calibrate(net, frames(5, 2000, hits=0.5), [blanks])
    unseen = frames(7, 6000, hits=0.5)
    p = sigmoid(calibration.scores(logits_of(net, unseen)[0]))
    unsure = (p[:, 0] > 0.6) & (p[:, 0] < 0.9)
    assert unseen.is_hit[unsure].mean() == pytest.approx(p[unsure, 0].mean(), abs=0.1)
    for k, mode in enumerate(GateMode):
        threshold = calibration.threshold(mode, 0.01)
        assert (p[~unseen.is_hit, k] > threshold).mean() < 0.025


def test_a_rate_holds_for_the_kind_of_blank_that_passes_most():
    net = GateNet().eval()
    plain, lit = frames(4, 1500, hits=0), frames(6, 1500, hits=0, excess=2.0)
    calibration = calibrate(net, frames(5, 1000, hits=0.5), [plain, lit])
    p = sigmoid(calibration.scores(logits_of(net, lit)[0]))
    assert (p[:, 0] > calibration.threshold(GateMode.ANY, 0.05)).mean() <= 0.05


@given(st.lists(st.lists(st.floats(-50, 50, width=32), min_size=1), min_size=1, max_size=4))
def test_no_kind_passes_a_rank_of_the_envelope_more_often_than_the_rank_says(kinds):
    table = envelope([np.array(kind) for kind in kinds])
    n = min(len(kind) for kind in kinds)
    assert len(table) == n
    assert (np.diff(table) >= 0).all()
    for rank in range(1, n + 1):
        for kind in kinds:
            passed = int((np.array(kind) > table[-rank]).sum())
            assert passed / (len(kind) + 1) < rank / (n + 1)


def test_without_blanks_there_is_no_table():
    with pytest.raises(ModelError, match="no blanks"):
        envelope([np.zeros(0)])
