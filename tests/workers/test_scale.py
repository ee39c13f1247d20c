"""A plan is arithmetic that the simulated queues agree with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hitfinder.workers.config import ConfigError
from hitfinder.workers.scale import (
    FULL,
    MEASURED_PIXELS,
    Detector,
    HostCost,
    Site,
    plan,
    read_cost,
)
from hitfinder.workers.scale_queues import RING_SLOTS, SENT_AHEAD, simulate

COST = HostCost({"receiver": 0.4, "worker": 6.0, "sink": 0.25, "supervisor": 0.15}, 250e3, 0.2)
DETECTOR = Detector("4M at 1 kHz", MEASURED_PIXELS, 1000.0)
N_FRAMES = 6000
# What queues hold at the end was not dropped.
ROOM = 1.5 * (RING_SLOTS + SENT_AHEAD)


def test_cores_bound_small_hosts_and_their_number_leaves_room():
    found = plan(DETECTOR, COST, Site(cores=4))
    assert found.hosts_bound == "cores"
    assert found.limits_Hz["cores"] == pytest.approx(4e3 / 6.8)
    assert found.n_hosts == 3
    assert found.use["cores"] <= FULL < found.use["cores"] * 3 / 2


def test_one_process_bounds_large_hosts():
    found = plan(DETECTOR, COST, Site(cores=128))
    assert (found.hosts_bound, found.n_hosts) == ("receiver", 1)


def test_cost_grows_with_the_pixels():
    found = plan(replace(DETECTOR, pixels=4 * MEASURED_PIXELS), COST, Site(cores=8))
    assert found.limits_Hz["cores"] == pytest.approx(8e3 / (4 * 6.8))
    assert found.use["network card"] == pytest.approx(
        1e3 / found.n_hosts * 1e6 / (25e9 / 8), rel=1e-6
    )


def test_what_all_share_is_shared_by_beamlines():
    alone, ten = plan(DETECTOR, COST, Site()), plan(DETECTOR, COST, Site(n_beamlines=10))
    assert ten.use["disk"] == pytest.approx(10 * alone.use["disk"])
    assert ten.n_hosts == alone.n_hosts


def test_a_detector_that_its_link_cannot_carry_is_beyond_any_number_of_hosts():
    found = plan(DETECTOR, replace(COST, packed_bytes=20e6), Site(detector_Gbit=100))
    assert found.first == "detector link"
    assert found.use["detector link"] > 1


@pytest.mark.parametrize("cores", [4, 32])
def test_the_planned_hosts_drop_nothing_and_are_as_busy_as_planned(cores):
    site = Site(cores=cores)
    found = plan(DETECTOR, COST, site)
    done = simulate(found, site, found.n_hosts, N_FRAMES)
    assert done.n_dropped == 0
    for name in ("receiver", "sink", "supervisor", "collector", "cores"):
        assert done.busy[name] == pytest.approx(found.use[name], rel=0.05)


@pytest.mark.parametrize(
    ("bound", "cost", "cores"),
    [
        ("receiver", COST, 128),
        ("cores", COST, 8),
        ("network card", replace(COST, packed_bytes=2.5e6), 128),
    ],
)
def test_too_few_hosts_drop_what_the_model_says(bound, cost, cores):
    site = Site(cores=cores)
    found = plan(replace(DETECTOR, rate_Hz=4000.0), cost, site)
    assert found.hosts_bound == bound
    done = simulate(found, site, 1, N_FRAMES)
    says = 1 - found.limits_Hz[bound] / 4000.0
    assert done.n_dropped / N_FRAMES == pytest.approx(says, abs=ROOM / N_FRAMES)
    assert done.busy[bound] == pytest.approx(1.0, abs=0.05)


def test_costs_are_read_from_a_bench(tmp_path):
    bench = Path(__file__).parents[1] / "bench" / "bench_cpu_2core_2026-11-23.json"
    found = read_cost(bench)
    said = json.loads(bench.read_text())
    assert sum(found.jobs.values()) == pytest.approx(said["end_to_end"][0]["core_ms"])
    assert found.hit_fraction == said["options"]["mix"]["hit_fraction"]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match="bench --json"):
        read_cost(tmp_path / "other.json")
