"""`feed`: hits for CrystFEL while the run goes on, one for each request.

One rule: it stands beside the daemon and reads what anybody may: the results topic and the hit
files. It can be slow or die, and no frame waits for it. Each indexing process sends `next` over
ZMQ REQ and gets the oldest hit that nobody has had yet, or waits for one; when more than `keep`
hits wait, the oldest are left to the files, and counted. Format: CrystFEL's article on real-time
data processing: one msgpack map, the image as `<i4`, spots as lists of floats. CrystFEL finds a
key by its beginning, so none here begins another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters that the images need)
import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from hitfinder.stream.cxi import HitFileLayout, read_layouts
from hitfinder.stream.errors import StoreError
from hitfinder.stream.lists import Places, write_geom
from hitfinder.stream.results import Record
from hitfinder.stream.series_folder import folders_of
from hitfinder.workers.config import ConfigError
from hitfinder.workers.curve import Keys, introduce

REQUEST = b"next"
POLL_MS = 100
# Hits heard of and not looked at yet: half a minute at 1 kHz and 20 % hits.
RECEIVE_QUEUE = 6000
WIRE = Places(images="image", peaks="peaks", is_streamed=True)
GEOM_NAME = "live.geom"
_MASK = "entry/instrument/detector/pixel_mask"


@dataclass(slots=True)
class FeedCounts:
    """What became of the hits heard of, and how many processes wait for one."""

    fed: int = 0
    waiting: int = 0
    passed_over: int = 0
    unreadable: int = 0
    asking: int = 0


class Feed:
    """The two sockets and the hits between them."""

    def __init__(
        self, run: Path, results: str, bind: str, keep: int, keys: Keys | None = None
    ) -> None:
        """Connect and bind.

        Args:
            run: folder that the daemon writes to.
            results: the daemon's results endpoint.
            bind: where requests come in.
            keep: hits that may wait for a request.
            keys: of an encrypted results topic.

        Raises:
            ConfigError: keys that cannot be used.
            zmq.ZMQError: `bind` is taken or no address of this host.
        """
        self._run = run
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._heard = self._context.socket(zmq.SUB)
        self._heard.set(zmq.RCVHWM, RECEIVE_QUEUE)
        self._heard.set(zmq.SUBSCRIBE, b"result.hit")
        self._asked = self._context.socket(zmq.ROUTER)
        try:
            if keys is not None:
                introduce(self._heard, keys)
            self._heard.connect(results)
            self._asked.bind(bind)
        except (zmq.ZMQError, ConfigError):
            self.close()
            raise
        self.endpoint = self._asked.get_string(zmq.LAST_ENDPOINT)
        self._hits: deque[Record] = deque()
        self._askers: deque[bytes] = deque()
        self._keep = keep
        self._image = _Images(run)
        self.counts = FeedCounts()

    def close(self) -> None:
        """Close both sockets; who still waits is not answered."""
        for socket in (self._heard, self._asked):
            socket.close(0)
        self._context.term()

    def serve(
        self, stopping: Callable[[], bool], progress: Callable[[FeedCounts], None] = lambda _: None
    ) -> FeedCounts:
        """Answer requests until told to stop; returns the counts."""
        poller = zmq.Poller()
        poller.register(self._heard, zmq.POLLIN)
        poller.register(self._asked, zmq.POLLIN)
        while not stopping():
            ready = dict(poller.poll(POLL_MS))
            if self._heard in ready:
                self._hear()
            if self._asked in ready:
                self._take_requests()
            while self._hits and self._askers:
                self._answer()
            self.counts.waiting, self.counts.asking = len(self._hits), len(self._askers)
            progress(self.counts)
        return self.counts

    def _hear(self) -> None:
        while self._heard.poll(0):
            _, body = self._heard.recv_multipart()[:2]
            self._hits.append(msgspec.msgpack.decode(body, type=Record))
            if len(self._hits) > self._keep:
                self._hits.popleft()
                self.counts.passed_over += 1

    def _take_requests(self) -> None:
        while self._asked.poll(0):
            asker, *_, request = self._asked.recv_multipart()
            if request == REQUEST:
                self._askers.append(asker)
            else:
                text = f"got {request[:40]!r}, expected {REQUEST!r}"
                self._send(asker, {"error": text})

    def _answer(self) -> None:
        record = self._hits.popleft()
        try:
            image = self._image.of(record)
        except (OSError, KeyError, IndexError, StoreError):
            self.counts.unreadable += 1
            return
        self._send(self._askers.popleft(), message_of(record, image))
        self.counts.fed += 1

    def _send(self, asker: bytes, message: dict[str, Any]) -> None:
        # To a process that is gone ZMQ drops it: the hit is in the files.
        self._asked.send_multipart([asker, b"", msgspec.msgpack.encode(message)])


def message_of(record: Record, image: NDArray[np.int32]) -> dict[str, Any]:
    """Return what CrystFEL is sent of one hit.

    Args:
        image: (ss, fs) counts, -1 where there is none.
    """
    spots = record.peaks.arrays() if record.peaks is not None else {}
    data = image.astype("<i4").tobytes()
    message: dict[str, Any] = {
        "image": {"type": "<i4", "shape": list(image.shape), "data": data},
        "peaks": {k: spots[k].tolist() if k in spots else [] for k in ("fs", "ss", "intensity")},
        "series": record.series,
        "uid": record.series_uid,
        "number": record.frame,
        "hit_file": record.file,
        "row": record.row,
    }
    for name in ("header_photon_energy_eV", "header_clen_m"):
        if (value := getattr(record, name)) is not None:
            message[name.removeprefix("header_")] = float(value)
    return message


class _Images:
    """Images of hits, out of the files that the daemon is writing."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._folder: tuple[int, str | None] | None = None
        self._path = run
        self._bad: NDArray[np.bool_] | None = None

    def of(self, record: Record) -> NDArray[np.int32]:
        """Return a hit's image, -1 where nothing was counted.

        Raises:
            OSError, KeyError, IndexError, StoreError: it cannot be read (any more).
        """
        if self._folder != (record.series, record.series_uid):
            self._enter(record)
        with h5py.File(self._path / (record.file or ""), "r", libver="latest", swmr=True) as file:
            raw = file["entry/data/data"][record.row]
        # The highest values mark what was not counted; real counts come nowhere near 2**31.
        counts: NDArray[np.int32] = raw.astype(np.int32)
        counts[raw >= np.iinfo(raw.dtype).max - 1] = -1
        if self._bad is not None and self._bad.shape == counts.shape:
            counts[self._bad] = -1
        return counts

    def _enter(self, record: Record) -> None:
        """Go to the newest folder of a series; leave a .geom for its hits in the run's."""
        folders = folders_of(self._run, record.series, record.series_uid)
        if not folders:
            raise StoreError(f"{self._run}: no folder of series {record.series}")
        self._path, self._bad = folders[-1], None
        layouts = read_layouts([self._path])
        if (self._path / "master.h5").exists():
            with h5py.File(self._path / "master.h5", "r") as file:
                self._bad = file[_MASK][:] != 0 if _MASK in file else None
        if layouts:
            self._write_geom(layouts[0], record)
        self._folder = (record.series, record.series_uid)

    def _write_geom(self, layout: HitFileLayout, record: Record) -> None:
        # A value of the message where there is one: it may be another in the next series.
        places = replace(
            WIRE,
            photon_energy=None
            if record.header_photon_energy_eV is None
            else "photon_energy_eV eV",
            clen=None if record.header_clen_m is None else "clen_m m",
        )
        write_geom(self._run / GEOM_NAME, layout.geometry, layout.shape, "int32", None, places)
