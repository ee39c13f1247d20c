"""Shares of a series become one folder that adds up, whoever died on the way."""

import json
import os
from collections import Counter
from dataclasses import replace

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that readers need)
import numpy as np
import pytest

from hitfinder.stream.check import check_run
from hitfinder.stream.cxi import read_layouts
from hitfinder.stream.joined_estimate import joined_estimate
from hitfinder.stream.joining import Death, join
from hitfinder.stream.ledger import read_ledger
from hitfinder.stream.results import Outcome
from hitfinder.stream.series_folder import SeriesFolder
from hitfinder.stream.shares import grouped, joined_shares, open_shares, read_share

N_FRAMES = 40
NOW_NS = 1_700_000_000_000_000_000


@pytest.fixture
def deal(tmp_path, start, judged):
    """Return a function that writes one host's share; every second frame is a hit."""

    def write(number: int, frames, *, header=start, begin_ns=NOW_NS):
        series = begun(number, header)
        series.write(of_them(frames, begin_ns))
        series.close({}, [], "ended", extra={"n_duplicate": 0, "n_late": 0})
        return series.folder

    def write_and_die(number: int, frames):
        # Packed before the fork: bitshuffle waits for OpenMP threads that no child has.
        made = of_them(frames, NOW_NS)
        pid = os.fork()
        if pid == 0:
            begun(number, start).write(made)
            os._exit(0)
        os.waitpid(pid, 0)

    def of_them(frames, begin_ns: int):
        made = [judged(f, Outcome.HIT if f % 2 else Outcome.MISS) for f in frames]
        for one, frame in zip(made, frames, strict=True):
            one.record.t_received_ns = begin_ns + 1_000_000 * frame
        return made

    def begun(number: int, header):
        return SeriesFolder(
            tmp_path / "hosts" / f"{number:02d}",
            header,
            {"config": "{}"},
            frames_per_file=5,
            miss_sample_fraction=0.5,
            is_share=True,
            first_file=10_000 * number + 1,
        )

    write.killed = write_and_die
    return write


def all_shares(out):
    found = [read_share(f) for f in open_shares(out, joined_shares(out))]
    assert None not in found
    return found


def outcomes(folder):
    rows = read_ledger(folder / "ledger.h5")
    return dict(zip(rows["frame"].tolist(), [o.decode() for o in rows["outcome"]], strict=True))


def test_three_shares_join_to_what_one_host_would_have_written(tmp_path, start, judged, deal):
    for number in (1, 2, 3):
        folder = deal(number, range(number - 1, N_FRAMES, 3))
        assert check_run(folder).ok
    joined = join(tmp_path, all_shares(tmp_path))
    alone = SeriesFolder(tmp_path / "alone", start, {}, miss_sample_fraction=0.5)
    alone.write([judged(f, Outcome.HIT if f % 2 else Outcome.MISS) for f in range(N_FRAMES)])
    summary = alone.close({}, [], "ended")

    assert joined == tmp_path / "series_5_uid-5"
    report = check_run(tmp_path)
    assert report.ok, str(report)
    assert report.folders == (joined.name,)
    assert outcomes(joined) == outcomes(alone.folder)
    said = json.loads((joined / "summary.json").read_text())
    assert said["counts"] == summary.counts
    assert said["n_announced"] == N_FRAMES
    assert said["alarms"] == []
    assert pixels(joined) == pixels(alone.folder)
    assert (joined / "detector.geom").read_text() == (alone.folder / "detector.geom").read_text()
    with h5py.File(joined / "master.h5") as file:
        assert file["entry/data/data"].shape[0] == said["counts"]["hit"]
    assert sum(layout.n_rows for layout in read_layouts([joined])) == said["counts"]["hit"]


def pixels(folder):
    """Return frame -> hash of the pixels of all that is kept."""
    found = {}
    for path in folder.glob("*_*.h5"):
        with h5py.File(path) as file:
            for row, frame in enumerate(file["entry/hitfinder/frame"][:].tolist()):
                found[frame] = hash(file["entry/data/data"][row].tobytes())
    return found


def test_what_no_host_has_is_missing_if_nobody_died(tmp_path, deal):
    deal(1, range(0, 30, 2))
    deal(2, range(1, 20, 2))
    joined = join(tmp_path, all_shares(tmp_path))
    found = outcomes(joined)
    assert {f for f, o in found.items() if o == "missing"} == {*range(21, 30, 2), *range(30, 40)}
    assert check_run(tmp_path).ok


def test_frames_of_a_dead_host_are_lost_and_name_it(tmp_path, deal):
    deal(1, range(0, N_FRAMES, 2))
    deal.killed(2, range(1, 11, 2))
    # Noticed when frame 20 had come: what is absent after it was dealt to nobody who died.
    death = Death("02", "node-b", NOW_NS + 20_000_000)
    joined = join(tmp_path, all_shares(tmp_path), [death])
    rows = read_ledger(joined / "ledger.h5")
    lost = rows[rows["outcome"] == b"lost"]
    assert sorted(lost["frame"].tolist()) == [11, 13, 15, 17, 19, 21]
    assert set(lost["reason"].tolist()) == {b"02 on node-b died"}
    missing = rows["frame"][rows["outcome"] == b"missing"]
    assert sorted(missing.tolist()) == list(range(23, N_FRAMES, 2))
    summary = json.loads((joined / "summary.json").read_text())
    assert summary["alarms"] == ["02 on node-b died: 6 frames that no host has are counted lost"]
    assert summary["counts"]["lost"] == 6
    assert check_run(tmp_path).ok


def test_a_killed_share_tells_of_its_death_by_itself(tmp_path, deal):
    deal(1, range(0, N_FRAMES, 2))
    deal.killed(2, range(1, 11, 2))
    joined = join(tmp_path, all_shares(tmp_path))
    rows = read_ledger(joined / "ledger.h5")
    lost = rows[rows["outcome"] == b"lost"]
    assert sorted(lost["frame"].tolist()) == list(range(11, N_FRAMES, 2))
    assert set(lost["reason"].tolist()) == {b"02 died"}


def test_a_host_that_came_back_has_two_shares_in_one_series(tmp_path, deal):
    deal(1, range(0, N_FRAMES, 2))
    deal.killed(2, range(1, 11, 2))
    deal(3, range(21, N_FRAMES, 2))
    (group,) = grouped(all_shares(tmp_path))
    joined = join(tmp_path, group)
    counts = Counter(outcomes(joined).values())
    assert counts == {"hit": 15, "miss": 20, "lost": 5}
    assert check_run(tmp_path).ok


def test_a_frame_that_two_hosts_got_has_one_row_and_is_counted(tmp_path, deal):
    deal(1, range(0, 21))
    deal(2, range(20, N_FRAMES))
    joined = join(tmp_path, all_shares(tmp_path))
    assert len(read_ledger(joined / "ledger.h5")) == N_FRAMES
    assert json.loads((joined / "summary.json").read_text())["extra"]["n_duplicate"] == 1
    deal(4, range(0, 22))
    deal(5, range(21, N_FRAMES))  # a hit: two hosts hold its image
    join(tmp_path, all_shares(tmp_path))
    report = check_run(tmp_path)
    assert report.ok, str(report)


def test_joined_shares_are_not_joined_again_and_a_late_one_stands_alone(tmp_path, deal):
    deal(1, range(0, N_FRAMES, 2))
    first = join(tmp_path, all_shares(tmp_path))
    assert open_shares(tmp_path, joined_shares(tmp_path)) == []
    deal(2, range(1, N_FRAMES, 2))
    (late,) = all_shares(tmp_path)
    second = join(tmp_path, [late])
    assert second.name == f"{first.name}-2"
    assert json.loads((second / "summary.json").read_text())["folder"] == second.name
    assert set(outcomes(second)) == set(range(1, N_FRAMES, 2))
    assert check_run(tmp_path).ok


def test_a_join_that_was_killed_is_made_anew(tmp_path, deal):
    deal(1, range(0, N_FRAMES))
    left = tmp_path / "hosts" / "joining" / "series_5_uid-5"
    left.mkdir(parents=True)
    (left / "ledger.h5").write_bytes(b"half")
    assert check_run(tmp_path).problems == (f"{tmp_path.name}: no series folder in it",)
    join(tmp_path, all_shares(tmp_path))
    assert check_run(tmp_path).ok


def test_without_a_unique_id_time_tells_series_of_one_number_apart(tmp_path, start, deal):
    bare = replace(start, series_uid=None)
    deal(1, range(0, N_FRAMES, 2), header=bare)
    deal(2, range(1, N_FRAMES, 2), header=bare)
    later = NOW_NS + 60_000_000_000
    deal(1, range(0, N_FRAMES, 2), header=bare, begin_ns=later)
    deal(2, range(1, N_FRAMES, 2), header=bare, begin_ns=later)
    groups = grouped(all_shares(tmp_path))
    assert [sorted(s.host for s in g) for g in groups] == [["01", "02"], ["01", "02"]]
    for group in groups:
        join(tmp_path, group)
    report = check_run(tmp_path)
    assert report.ok, str(report)
    assert len(report.folders) == 2


def test_a_share_that_is_being_written_is_left_alone(tmp_path, start):
    series = SeriesFolder(tmp_path / "hosts" / "01", start, {}, is_share=True)
    assert read_share(series.folder) is None
    series.close({}, [], "ended")
    assert read_share(series.folder) is not None


def test_a_header_that_reached_one_host_holds_for_the_series(tmp_path, start, deal):
    stand_in = replace(start, n_frames=None, photon_energy_eV=None, clen_m=None)
    deal(1, range(0, 20, 2), header=stand_in)
    deal(2, range(1, 20, 2))
    joined = join(tmp_path, all_shares(tmp_path))
    said = json.loads((joined / "summary.json").read_text())
    assert said["n_announced"] == N_FRAMES
    assert said["counts"]["missing"] == 20
    assert said["geometry"]["clen_m"] == start.clen_m


def estimate(energy_eV, sigma_eV, clen_m, sigma_m, n=100, mismatch=False, dispersion=1.0):
    return {
        "dispersion": dispersion,
        "n_frames": n,
        "n_hits_used": 0,
        "n_misses_used": n,
        "n_photons": 1e6,
        "photon_energy_eV": energy_eV,
        "photon_energy_sigma_eV": sigma_eV,
        "clen_m": clen_m,
        "clen_sigma_m": sigma_m,
        "correlation": 0.8,
        "matrix": [[0.1, 0.1, 0.1], [0.1, 0.2, 0.1], [0.1, 0.1, 0.1]],
        "tells_parameters": False,
        "header_chance": 0.5,
        "header_mismatch": mismatch,
    }


def test_estimates_of_hosts_add_up_as_independent_ones_do():
    one, other = estimate(7000, 600, 0.25, 0.01), estimate(7100, 600, 0.26, 0.01, mismatch=True)
    both = joined_estimate([one, None, other])
    assert both is not None
    assert both["photon_energy_eV"] == pytest.approx(7050)
    assert both["photon_energy_sigma_eV"] == pytest.approx(600 / np.sqrt(2))
    assert both["clen_m"] == pytest.approx(0.255)
    assert both["correlation"] == pytest.approx(0.8)
    assert both["n_frames"] == 200
    assert both["tells_parameters"] is True
    assert both["header_mismatch"] is True
    assert both["matrix"][1][1] == pytest.approx(0.04 / (0.04 + 8 * 0.01))
    assert joined_estimate([None, one]) == one
    assert joined_estimate([None, None]) is None


def test_what_no_number_of_photons_mends_is_not_mended_by_hosts():
    alone = estimate(7000, 600, 0.25, 0.01)
    skewed = [estimate(7000, 600, 0.25, 0.01, dispersion=11.0) for _ in range(2)]
    both = joined_estimate(skewed)
    assert both is not None
    assert both["dispersion"] == pytest.approx(21.0)
    assert both["photon_energy_sigma_eV"] == pytest.approx(600 * np.sqrt(21 / 11 / 2))
    assert both["photon_energy_sigma_eV"] > 0.97 * alone["photon_energy_sigma_eV"]
