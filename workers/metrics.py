"""The daemon's state as Prometheus metric families; names carry their units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hitfinder.workers.alarms import ADVICE

COUNTERS = (
    ("hitfinder_messages", "Messages received.", "n_messages"),
    ("hitfinder_received_bytes", "Bytes received.", "n_bytes"),
    ("hitfinder_malformed_messages", "Messages refused.", "n_malformed"),
    ("hitfinder_stale_messages", "Ends of series that were not open.", "n_stale"),
    ("hitfinder_major_faults", "Waits for a page from disk.", "n_major_faults"),
    ("hitfinder_series", "Series closed.", "n_series_closed"),
)
GAUGES = (
    ("hitfinder_connected", "Detector endpoints that are connected.", "connected"),
    ("hitfinder_series_open", "Series that are open.", "n_series_open"),
    ("hitfinder_ring_slots", "Slots of the ring.", "ring_slots"),
    ("hitfinder_ring_slots_used", "Slots that hold a frame.", "ring_slots_used"),
    ("hitfinder_hot_pixels", "Pixels found hot, latest series.", "n_hot_pixels"),
    ("hitfinder_uptime_seconds", "Since the daemon started.", "uptime_s"),
)
OF_SERIES = (
    ("photon_energy_eV", "Photon energy from the pixels.", "photon_energy_eV"),
    ("photon_energy_sigma_eV", "Its standard deviation.", "photon_energy_sigma_eV"),
    ("clen_meters", "Camera length from the pixels.", "clen_m"),
    ("clen_sigma_meters", "Its standard deviation.", "clen_sigma_m"),
    ("posterior_frames", "Frames in these.", "n_frames"),
    ("header_mismatch", "1 if the header contradicts them.", "header_mismatch"),
)


class StateCollector(Collector):
    """The daemon's state, read anew at each scrape."""

    def __init__(self, state: Callable[[], dict[str, Any]]) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        state = self._state()
        frames = CounterMetricFamily(
            "hitfinder_frames", "Frames with a verdict.", labels=["outcome"]
        )
        for outcome, n in state["counts"].items():
            frames.add_metric([outcome], n)
        yield frames
        for name, help_text, key in COUNTERS:
            yield CounterMetricFamily(name, help_text, value=state[key])
        for name, help_text, key in GAUGES:
            yield GaugeMetricFamily(name, help_text, value=state[key])
        latency = GaugeMetricFamily(
            "hitfinder_latency_seconds", "Reception to publication.", labels=["quantile"]
        )
        for quantile, key in (("0.5", "latency_p50_s"), ("0.99", "latency_p99_s")):
            if state[key] is not None:
                latency.add_metric([quantile], state[key])
        yield latency
        yield from _of_series(state["series_open"])
        yield from _of_children(state["children"])
        up = {alarm["name"] for alarm in state["alarms"]}
        alarms = GaugeMetricFamily("hitfinder_alarm", "1 while it holds.", labels=["alarm"])
        for name in ADVICE:
            alarms.add_metric([name], float(name in up))
        yield alarms


def _of_series(series_open: list[dict[str, Any]]) -> Iterator[Metric]:
    """Yield what the frames of each open series say of energy and camera length."""
    for name, help_text, key in OF_SERIES:
        family = GaugeMetricFamily(f"hitfinder_series_{name}", help_text, labels=["series"])
        for series in series_open:
            said = series["posterior"]
            if said is not None and said[key] is not None:
                family.add_metric([str(series["series"])], float(said[key]))
        yield family


def _of_children(children: list[dict[str, Any]]) -> Iterator[Metric]:
    labels = ["child", "index"]
    starts = CounterMetricFamily("hitfinder_child_starts", "Starts of each child.", labels=labels)
    up = GaugeMetricFamily("hitfinder_child_up", "1 while it is at work.", labels=labels)
    for i, child in enumerate(children):
        starts.add_metric([child["name"], str(i)], child["starts"])
        up.add_metric([child["name"], str(i)], float(child["ready"]))
    yield starts
    yield up
