"""Claims for the frames to train from: twins, decoys, truth of places, splits by orientation."""

import numpy as np
import pytest

from hitfinder.models.training import tail_tpr
from hitfinder.sim.patterns import Pattern, shipped_patterns
from hitfinder.sim.physics import Detector, SimulationError
from hitfinder.workers.training_frames import Part, TrainingFrames, split_patterns
from hitfinder.workers.training_settings import Kind

SMALL = Detector(shape=(514, 514))


@pytest.fixture(scope="module")
def drawn() -> TrainingFrames:
    return TrainingFrames(3, detector=SMALL, n_made_up=1)


def test_a_pair_is_a_hit_and_its_twin_and_only_the_hit_has_spots(drawn: TrainingFrames) -> None:
    pairs = [drawn.pair(Part.CALIBRATE, n) for n in range(30)]
    for pair in pairs:
        assert pair.is_hit.tolist() == [True, False]
        assert pair.pair[0] == pair.pair[1]
        assert (pair.spot_label_BK[1] <= 0).all()
    found = [p for p in pairs if (p.spot_label_BK[0] == 1).any()]
    assert len(found) > 4
    ratio = np.array([p.places_BKF[:, :, 1:6].max(axis=(1, 2)) for p in found])
    assert tail_tpr(ratio[:, 1], ratio[:, 0]) > 0.5


def test_a_frame_is_a_function_of_seed_part_and_number(drawn: TrainingFrames) -> None:
    again = TrainingFrames(3, detector=SMALL, n_made_up=1)
    for one, other in (
        (drawn.pair(Part.TEST, 4), again.pair(Part.TEST, 4)),
        (drawn.blank(Kind.SALT, 2), again.blank(Kind.SALT, 2)),
        (drawn.hot_series(0, 3), again.hot_series(0, 3)),
    ):
        assert one.sha256() == other.sha256()
    assert drawn.pair(Part.TRAIN, 4).sha256() != drawn.pair(Part.TEST, 4).sha256()


def test_blanks_hold_no_crystal_and_salt_is_said(drawn: TrainingFrames) -> None:
    for kind in set(Kind) - {Kind.HOT}:
        blank = drawn.blank(kind, 0)
        assert not blank.is_hit.any()
        assert blank.has_decoys.tolist() == [kind is Kind.SALT]


def test_hot_pixels_alone_make_no_hit_from_the_first_frame_of_their_series_on(
    drawn: TrainingFrames,
) -> None:
    hot = drawn.hot_series(0, 40)
    assert not hot.is_hit.any()
    assert not hot.has_decoys.any()
    best = hot.places_BKF[:, :, 1:6].max(axis=(1, 2))
    others = [drawn.blank(Kind.IDEAL, n).places_BKF[:, :, 1:6].max() for n in range(12)]
    assert best[0] < max(others) + 5
    assert np.median(best) < max(others)


def test_patterns_of_one_part_are_in_no_other_but_those_that_judge() -> None:
    sets = {"02": shipped_patterns("02"), "05": shipped_patterns("05")}
    parts = split_patterns(sets, seed=1)
    for name, patterns in sets.items():
        train, test = (_ids(parts[part][name]) for part in (Part.TRAIN, Part.TEST))
        assert not train & test
        assert train | test == _ids(patterns)
        assert len(train) == int(0.8 * len(patterns))
        assert _ids(parts[Part.CALIBRATE][name]) == test
    with pytest.raises(SimulationError, match="4 patterns"):
        split_patterns({"02": sets["02"][:4]}, seed=1)


def _ids(patterns: object) -> set[int]:
    assert isinstance(patterns, list | tuple)
    return {id(p) for p in patterns if isinstance(p, Pattern)}
