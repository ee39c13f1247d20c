"""What was learned stands in the ledger and in the summary, in numbers that can be counted."""

import msgspec
import numpy as np

from hitfinder.stream.check import check_series
from hitfinder.stream.hitfile import JudgedFrame
from hitfinder.stream.learned import LearnedList, all_learned, save_learned, saved_learned
from hitfinder.stream.ledger import Unjudged, read_ledger
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import SeriesFolder

ENTRY = [("pixel", "<i8"), ("edge_px", "<i4"), ("kind", "S8"), ("frame", "<i8")]
SHAPE = (64, 48)


def entries(*rows):
    return np.array(list(rows), ENTRY)


FIRST = entries((10, 1, b"hot", 8), (-1, 0, b"settled", 8), (62 * 48, 4, b"dead", 20))
SECOND = entries((10, 1, b"hot", 9), (11, 1, b"hot", 13))


def test_lists_are_kept_per_series_worker_and_shape(tmp_path):
    save_learned(tmp_path, 1, LearnedList(0, SHAPE, FIRST[:1]))
    save_learned(tmp_path, 1, LearnedList(0, SHAPE, FIRST))
    save_learned(tmp_path, 1, LearnedList(1, SHAPE, SECOND))
    save_learned(tmp_path, 11, LearnedList(0, SHAPE, SECOND))
    found = all_learned(tmp_path, 1)
    assert [(one.worker, one.shape, len(one.entries)) for one in found] == [
        (0, SHAPE, 3),
        (1, SHAPE, 2),
    ]
    assert np.array_equal(saved_learned(tmp_path, 1, 0, SHAPE), FIRST)
    assert saved_learned(tmp_path, 1, 0, (8, 8)) is None


def test_ledger_and_summary_say_what_was_learned(tmp_path, start, judged):
    series = SeriesFolder(tmp_path, start, {})

    def by(frame, worker, n_learned, flux_scale):
        one = judged(frame, Outcome.MISS)
        said = {"learned_by": worker, "n_learned": n_learned, "flux_scale": flux_scale}
        return JudgedFrame(msgspec.structs.replace(one.record, **said), one.blobs)

    series.write([by(0, 0, 0, 1.0), by(1, 0, 1, 0.9), by(2, 0, 2, 1.1), by(3, 1, 2, 1.0)])
    lists = [LearnedList(0, SHAPE, FIRST), LearnedList(1, SHAPE, SECOND)]
    missing = [Unjudged(np.arange(40), Outcome.MISSING, "never came")]
    summary = series.close({}, missing, "end", learned=[*lists, LearnedList(0, (8, 8), SECOND)])
    learned = summary.learned
    # The dead square begins in the last but one row: half of it is off the detector.
    assert (learned["n_hot"], learned["n_dead_px"], learned["n_shadow_px"]) == (2, 8, 0)
    assert learned["n_judged_before_known"] == 3
    assert learned["flux_scale_mean"] == 1.0
    assert abs(learned["flux_scale_scatter"] - 0.005**0.5) < 1e-9
    assert read_ledger(series.folder / "ledger.h5")["n_learned"][:5].tolist() == [0, 1, 2, 2, -1]
    assert list(check_series(series.folder)) == []
