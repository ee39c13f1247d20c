"""The heads' accuracy study runs, counts what it says it counts, and can be drawn."""

import numpy as np
import pytest

from hitfinder.models.pipeline import Pipeline
from hitfinder.models.references.linear_heads import LinearHeadsReference
from hitfinder.workers.evaluate_heads import HeadsPlan, study_heads
from hitfinder.workers.evaluate_heads_plot import draw_heads, lines_of


class SaysSet02(LinearHeadsReference):
    """7 keV and 0.15 m whatever it is shown."""

    def __init__(self):
        pass

    def matrix(self, image, valid):
        matrix = np.zeros((3, 3), np.float32)
        matrix[1, 0] = 1
        return matrix


@pytest.fixture(scope="module")
def study():
    plan = HeadsPlan(n_drawn=6, n_judged=2, n_per_set=1, n_series=1)
    return study_heads(Pipeline(), plan, SaysSet02())


def test_the_reports_linear_heads_are_counted_on_the_same_frames(study):
    assert study.linear_named == {f"{n:02d}": float(n == 2) for n in range(1, 10)}
    assert "linear heads on the same frames: 01 0.00, 02 1.00" in "\n".join(lines_of(study))


def test_series_converge_on_the_truth(study):
    for (name, n_frames), figures in study.series.items():
        if n_frames == 10_000:
            assert figures.error[:, 0].max() < 100, name
            assert figures.error[:, 1].max() < 6e-3, name


def test_right_headers_pass_and_a_wrong_one_is_found(study):
    assert (study.n_alarms, study.n_honest) == (0, 9)
    assert 0 < study.wrong_after <= 16


def test_it_is_told_in_lines_and_a_picture(study, tmp_path):
    text = "\n".join(lines_of(study))
    assert "| 09 |" in text
    draw_heads(study, tmp_path / "heads.png")
    assert (tmp_path / "heads.png").stat().st_size > 1000
