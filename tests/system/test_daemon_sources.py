"""Several endpoints read by one daemon: sockets of one detector, or two detectors at once."""

from __future__ import annotations

from tests.system.daemon import Daemon, Detector, wait_for
from tests.system.frames import wire_series


def test_frames_dealt_over_two_sockets_make_one_series_and_two_protocols_go_together(tmp_path):
    config = "[sink]\nmiss_sample_fraction = 1.0\n"
    with Detector() as first, Detector() as second:
        sources = ("--source", first.endpoint, "--source", second.endpoint)
        with Daemon(tmp_path, "run", *sources, config=config) as daemon:
            daemon.wait_ready()
            # As a detector deals its messages round: header and end reach only one socket each.
            dealt = wire_series("v2", 1, 12)
            first.send(dealt.start, *dealt.images[0::2])
            second.send(*dealt.images[1::2], dealt.end)
            closed = daemon.closed(1)
            assert (closed.n_judged, closed.end["announced"]) == (12, 12)
            other = wire_series("v1", 2, 3)
            second.send(*other.messages)
            assert daemon.closed(2).n_judged == 3
            assert daemon.terminate() == 0, daemon.log


def test_an_endpoint_given_twice_is_connected_to_twice_and_makes_one_series(tmp_path):
    with Detector() as detector:
        sources = ("--source", detector.endpoint, "--source", detector.endpoint)
        with Daemon(tmp_path, "run", *sources) as daemon:
            daemon.wait_ready()
            wait_for(lambda: daemon.status["connected"] == 2, "two connections")
            dealt = wire_series("v2", 1, 40)
            detector.send(*dealt.messages)
            closed = daemon.closed(1)
            assert (closed.n_judged, closed.end["announced"]) == (40, 40)
            assert daemon.terminate() == 0, daemon.log
