"""Every recorded stream of the shared vectors through the real daemon, and its pixels back.

What was received is what is kept: with every miss kept, each image is read back from the files
by h5py and compared with the manifest's sha256. The two non-conforming senders are read in
lenient mode only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.daemon import (
    Closed,
    Daemon,
    Detector,
    kept_images,
    pixels_sha256,
    running,
)

pytestmark = pytest.mark.system

FAULTY = ("v1_alba_bslz4_all_headerless", "v1_libertem_mock")
# A 16M image with its compressed bytes, in the stream of the largest detector.
CONFIG = "[sink]\nmiss_sample_fraction = 1.0\n[ring]\nslots = 8\nslot_bytes = 50000000\n"

Stream = dict[str, Any]


class Vectors:
    """The recorded streams by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        manifest = json.loads((folder / "manifest.json").read_text())
        self.streams: dict[str, Stream] = {s["name"]: s for s in manifest["streams"]}

    def send(self, name: str, detector: Detector) -> None:
        """Send a stream's messages as they were captured."""
        for message in self.streams[name]["messages"]:
            detector.send([(self._folder / part).read_bytes() for part in message["parts"]])

    def series(self, name: str) -> int:
        """Return the series number of a stream."""
        last = self.streams[name]["messages"][-1]["expect"]
        return int(last.get("series", last.get("series_id")))

    def sha256(self, name: str) -> dict[int, dict[str, str]]:
        """Return frame -> dataset -> sha256 of its pixels; the first channel is `data`."""
        found = {}
        for message in self.streams[name]["messages"]:
            if message["kind"] == "image":
                said = message["expect"]
                channels = list(said.get("channels", {"data": said}).items())
                channels[0] = ("data", channels[0][1])
                frame = said.get("frame", said.get("image_id"))
                found[int(frame)] = {c: values["array"]["sha256"] for c, values in channels}
        return found


@pytest.fixture(scope="module")
def vectors(shared: Path) -> Vectors:
    return Vectors(shared / "protocol" / "vectors")


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    with Detector() as opened:
        yield opened


@pytest.fixture(scope="module")
def strict(vectors, detector, tmp_path_factory) -> Iterator[tuple[Daemon, dict[str, Closed]]]:
    """Return a daemon that took every stream, one after the other, and how each ended."""
    with running(tmp_path_factory.mktemp("strict"), detector, config=CONFIG) as daemon:
        closed = {name: played(daemon, detector, vectors, name) for name in vectors.streams}
        assert daemon.terminate() == 0, daemon.log
        yield daemon, closed


def played(daemon: Daemon, detector: Detector, vectors: Vectors, name: str) -> Closed:
    n_before = len(daemon.results)
    vectors.send(name, detector)
    return daemon.closed(vectors.series(name), since=n_before)


def assert_all_judged_and_kept(closed: Closed, sha256: dict[int, dict[str, str]]) -> None:
    assert closed.n_judged == closed.end["announced"] == len(sha256)
    kept = {
        frame: {name: pixels_sha256(image) for name, image in images.items()}
        for frame, images in kept_images(closed.folder).items()
    }
    assert kept == sha256


def test_every_conforming_stream_is_judged_and_kept_bit_for_bit(vectors, strict):
    _, closed = strict
    conforming = [name for name in vectors.streams if name not in FAULTY]
    assert len(conforming) == 14
    for name in conforming:
        assert_all_judged_and_kept(closed[name], vectors.sha256(name))


def test_the_two_faulty_senders_are_refused_frame_by_frame(vectors, strict):
    _, closed = strict
    for name in FAULTY:
        refused = vectors.sha256(name)
        assert closed[name].outcomes == dict.fromkeys(refused, "corrupt")
        assert all("lenient" in r["reason"] for r in closed[name].records.values())


def test_what_was_malformed_is_counted_and_named(strict):
    daemon, _ = strict
    # Five refused images, LiberTEM's stray configuration, and two stray parts of the first
    # generation's recording.
    assert daemon.status["n_malformed"] == 8
    assert len(daemon.status["errors"]) == 8


def test_the_daemon_took_it_all_without_losing_a_child(strict):
    daemon, _ = strict
    assert [child["starts"] for child in daemon.status["children"]] == [1, 1, 1]
    assert daemon.runtime_files == []


def test_lenient_mode_reads_the_two_faulty_senders(vectors, detector, tmp_path):
    config = CONFIG + "[source]\nlenient = true\n"
    with running(tmp_path, detector, config=config) as daemon:
        for name in FAULTY:
            assert_all_judged_and_kept(
                played(daemon, detector, vectors, name), vectors.sha256(name)
            )
        assert daemon.terminate() == 0
