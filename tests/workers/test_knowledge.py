"""What a worker learned outlives the worker and, where it lasts, the series."""

from pathlib import Path

import numpy as np

from hitfinder.models.learned import Kind, entries, is_settled
from hitfinder.stream.learned import all_learned, drop_learned
from hitfinder.workers.knowledge import Knowledge

VALID = np.ones((64, 48), np.bool_)
TAUGHT = np.concatenate(
    [
        entries(Kind.HOT, [5, 70], 1, 9),
        entries(Kind.DEAD, [0], 16, 11),
        entries(Kind.SETTLED, [-1], 0, 12),
    ]
)


def test_a_successor_goes_on_with_the_whole_list(tmp_path: Path) -> None:
    Knowledge(tmp_path, 0, is_live=True).keep(3, VALID, TAUGHT)
    assert np.array_equal(Knowledge(tmp_path, 0, is_live=True).of_series(3, VALID), TAUGHT)
    assert not len(Knowledge(tmp_path, 1, is_live=True).of_series(3, VALID))


def test_the_next_series_starts_from_the_hot_pixels_of_the_same_detector(tmp_path: Path) -> None:
    knowledge = Knowledge(tmp_path, 0, is_live=True)
    knowledge.keep(3, VALID, TAUGHT)
    drop_learned(tmp_path, 3)
    assert all_learned(tmp_path, 3) == []
    begun = knowledge.of_series(4, VALID)
    assert begun["pixel"][begun["kind"] == b"hot"].tolist() == [5, 70]
    assert is_settled(begun)
    assert set(begun["kind"]) == {b"hot", b"settled"}
    assert (begun["frame"] == -1).all()
    other = VALID.copy()
    other[3, 3] = False
    assert not len(knowledge.of_series(4, other))


def test_a_recorded_series_begins_with_nothing(tmp_path: Path) -> None:
    recorded = Knowledge(tmp_path, 0, is_live=False)
    recorded.keep(3, VALID, TAUGHT)
    assert np.array_equal(recorded.of_series(3, VALID), TAUGHT)
    assert not len(recorded.of_series(4, VALID))
