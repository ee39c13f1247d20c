"""Batches arrive whole, in order, and one ahead of the judge."""

import numpy as np

from hitfinder.models.frontend import Pooled
from hitfinder.models.uploads import Uploader


def maps(number: int) -> Pooled:
    return Pooled(
        np.full((3, 4), number, np.uint32), np.full((3, 4), 100 + number, np.uint32), 0, 0
    )


def test_each_batch_arrives_as_it_was_and_the_next_is_on_its_way() -> None:
    asked: list[int] = []

    def batches():
        for number in range(0, 6, 2):
            asked.append(number)
            yield [maps(number), maps(number + 1)]

    for k, (sums_BHW, maxima_BHW) in enumerate(Uploader("cpu").ahead(batches())):
        assert sums_BHW.shape == (2, 3, 4)
        assert sums_BHW[:, 0, 0].tolist() == [2 * k, 2 * k + 1]
        assert maxima_BHW[:, 0, 0].tolist() == [100 + 2 * k, 101 + 2 * k]
        assert asked == [0, 2, 4][: k + 2]


def test_no_batch_gives_nothing() -> None:
    assert list(Uploader("cpu").ahead([])) == []
