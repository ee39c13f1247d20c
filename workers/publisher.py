"""The results topic, and the last step of a frame and of a series.

It lives in the supervisor, the one process that does not die alone: a record is published when
the frame's files are flushed, exactly once, and then its slot is free. One rule: what is
published adds up; `series.end` carries the counts (design section 6).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator

from hitfinder.stream.evidence import Evidence
from hitfinder.stream.intake import drop_headers, header_path
from hitfinder.stream.learned import drop_learned
from hitfinder.stream.messages import unpack_start
from hitfinder.stream.results import OUTCOMES, SCHEMA, Outcome, Record, topic_of
from hitfinder.stream.ring import Bells, Ring, State
from hitfinder.stream.series import SeriesTable
from hitfinder.workers.config import ConfigError, SinkConfig
from hitfinder.workers.curve import guard
from hitfinder.workers.frame_samples import FrameSamples
from hitfinder.workers.geometry import OperatorGeometry
from hitfinder.workers.history import History, Stated

log = logging.getLogger(__name__)

# Records queued for one slow subscriber (about 2 kB each). Beyond, that subscriber loses some and
# sees a gap in `seq`; nobody else waits for it.
SEND_QUEUE = 50_000
# Time for the last records to reach their subscribers when the daemon ends.
LINGER_MS = 3000
# Records of missing or dropped frames published in one turn of the supervisor's loop (0.1 s when
# nothing else happens), so that a subscriber of 20 000 records/s keeps up.
UNSEEN_SLICE = 2000
# A series' end waits so long for the estimate over all its frames; a worker is asked at once, and
# longer means that the last one who could has died.
ESTIMATE_WAIT_NS = 2_000_000_000
# Latencies kept for the percentiles in `status`.
N_LATENCIES = 4096


class Publisher:
    """Publishes stored frames, opens and closes series.

    Args:
        sink: where to bind, e.g. `tcp://127.0.0.1:5557`, and with which keys.
        operator: the operator's geometry, for the frames that are shown.

    Attributes:
        history: rates and levels of what was published.
        samples: frames that can be looked at.

    Raises:
        ConfigError: the endpoint cannot be bound, or the keys cannot be used.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        sink: SinkConfig,
        ring: Ring,
        bells: Bells,
        runtime: Path,
        operator: OperatorGeometry,
    ) -> None:
        self.ring, self.bells, self.runtime = ring, bells, runtime
        self.series = SeriesTable(ring)
        self.evidence = Evidence(ring)
        self.n_released = 0
        self.latencies_s: deque[float] = deque(maxlen=N_LATENCIES)
        self.counts = dict.fromkeys((o.value for o in OUTCOMES), 0)
        self.history = History()
        self._seq = 0
        self._stated: dict[int, Stated] = {}
        self._announced: set[int] = set()
        self._waiting_since_ns: dict[int, int] = {}
        self._unseen: dict[int, Iterator[tuple[int, Outcome, str]]] = {}
        self._encode = msgspec.msgpack.Encoder().encode
        self._socket = context.socket(zmq.PUB)
        self._socket.set(zmq.SNDHWM, SEND_QUEUE)
        self._socket.set(zmq.LINGER, LINGER_MS)
        self._doorman: ThreadAuthenticator | None = None
        self.samples = FrameSamples(runtime, operator)
        try:
            self._bind(context, sink)
        except ConfigError:
            self.close(0)
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def publish_stored(self) -> int:
        """Publish what the sink has stored, oldest first, and free the slots."""
        slots = self.ring.in_state(State.STORED)
        for slot in slots:
            record, key = self.ring.record(slot), int(self.ring.slots["key"][slot])
            entry = self.series.entry_of(key)
            if entry is not None:
                self._announce(entry)
                self.ring.series["counts"][entry, OUTCOMES.index(record.outcome)] += 1
            self._publish(record)
            self._remember(key, slot, record)
            self.ring.release(slot)
        if slots:
            self.bells.ring("receiver")
        return len(slots)

    def step_series(self, *, source_gone: bool) -> None:
        """Move each open series towards its end as far as it can go now.

        Args:
            source_gone: nobody will admit frames any more, so sealing needs no answer.
        """
        e, now_ns = self.ring.series, time.monotonic_ns()
        for entry in self.series.open_entries():
            self._announce(entry)
            if not e["close_requested"][entry]:
                reason = self.series.wants_closing(entry, now_ns)
                if reason is None and source_gone:
                    reason = "stopped"
                if reason is not None:
                    self.series.request_close(entry, reason)
                    self.bells.ring("receiver")
            if e["close_requested"][entry] and source_gone:
                e["sealed"][entry] = 1
            key = int(e["key"][entry])
            sealed = e["sealed"][entry] and not e["drained"][entry]
            if sealed and not self.ring.busy(key) and self._publish_unseen(entry):
                if not self._is_estimated(entry, now_ns):
                    continue
                e["drained"][entry] = 1
                self.bells.ring("sink")
            if e["finalised"][entry]:
                self._end(entry, now_ns)

    def status(self, message: dict[str, Any]) -> None:
        """Publish the daemon's state of health."""
        self._send(b"status", message)

    def open_series(self) -> list[dict[str, Any]]:
        """Return the open series: how far they are, what their frames say of energy and clen.

        A missing or dropped frame has its verdict when the series closes, and is counted here
        before.
        """
        return [self._progress(entry) for entry in self.series.open_entries()]

    def latency_s(self) -> tuple[float | None, float | None]:
        """Return p50 and p99 of the time from reception to publication, lately."""
        if not self.latencies_s:
            return None, None
        p50, p99 = np.percentile(np.array(self.latencies_s), (50, 99))
        return float(p50), float(p99)

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Close the socket; its context lingers until the last records are out."""
        self.samples.close()
        self._socket.close(linger_ms)
        if self._doorman is not None:
            self._doorman.stop()

    # ------------------------------------------------------------------------------------

    def _bind(self, context: zmq.Context[zmq.Socket[bytes]], sink: SinkConfig) -> None:
        if sink.results_key_file is not None:
            clients = None if sink.results_clients is None else Path(sink.results_clients)
            self._doorman = guard(context, self._socket, Path(sink.results_key_file), clients)
        try:
            self._socket.bind(sink.results)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"results endpoint {sink.results}: {error}; is another daemon running? "
                "give another with --results"
            ) from error

    def _publish(self, record: Record) -> None:
        self._seq += 1
        record.seq, record.t_published_ns = self._seq, time.time_ns()
        if record.t_received_ns is not None:
            self.latencies_s.append((record.t_published_ns - record.t_received_ns) * 1e-9)
        self.counts[record.outcome.value] += 1
        self._socket.send_multipart([topic_of(record.outcome), self._encode(record)])

    def _remember(self, key: int, slot: int, record: Record) -> None:
        """Keep of a stored frame what the page shows, before its slot is freed."""
        stored_bytes = 0
        if record.file is not None:
            stored_bytes = int(self.ring.slots["blobs"]["n_bytes"][slot].sum())
        self.history.count(record, stored_bytes)
        if record.header_photon_energy_eV is not None or record.header_clen_m is not None:
            self._stated[key] = record.header_photon_energy_eV, record.header_clen_m
        # Of a frame that a cluster judged the bytes may have stayed where it was.
        if self.samples.wants(record.outcome) and (blobs := self.ring.blobs(slot)):
            self.samples.take(key, record, blobs[0])

    def _send(self, topic: bytes, message: dict[str, Any]) -> None:
        self._seq += 1
        stamped = {"schema": SCHEMA, "seq": self._seq, "t_published_ns": time.time_ns(), **message}
        self._socket.send_multipart([topic, self._encode(stamped)])

    def _progress(self, entry: int) -> dict[str, Any]:
        e = self.ring.series[entry]
        energy_eV, clen_m = self._stated.get(int(e["key"]), (None, None))
        return {
            **self._names(entry),
            "announced": int(e["expected"]) if e["expected"] >= 0 else None,
            **self.series.so_far(entry),
            "counts": {o.value: int(e["counts"][i]) for i, o in enumerate(OUTCOMES)},
            "header_photon_energy_eV": energy_eV,
            "header_clen_m": clen_m,
            "posterior": self.evidence.said(entry),
        }

    def _names(self, entry: int) -> dict[str, Any]:
        e = self.ring.series[entry]
        uid = e["uid"].decode(errors="replace") or None
        return {"series": int(e["series"]), "series_uid": uid}

    def _announce(self, entry: int) -> None:
        """Publish `series.start`, once, as soon as the series is known."""
        key = int(self.ring.series["key"][entry])
        if key in self._announced:
            return
        path = header_path(self.runtime, key)
        if not path.exists():
            return
        self._announced.add(key)
        start = unpack_start(path.read_bytes())
        self._send(
            b"series.start",
            {
                **self._names(entry),
                "n_frames": start.n_frames,
                "shape": start.shape,
                "header_photon_energy_eV": start.photon_energy_eV,
                "header_clen_m": start.clen_m,
                "warnings": start.warnings,
            },
        )

    def _publish_unseen(self, entry: int) -> bool:
        """Give frames that never reached a slot their verdicts, a slice at a time; True if done.

        A header may announce millions of frames that never come: publishing them all at once
        would overrun the subscribers' queues and keep the children unwatched.
        """
        key = int(self.ring.series["key"][entry])
        if key in self._waiting_since_ns:
            return True
        if key not in self._unseen:
            missing, dropped = self.series.unseen(entry)
            self._unseen[key] = chain(
                ((int(f), Outcome.MISSING, "announced, not received") for f in missing),
                ((int(f), Outcome.DROPPED, "ring full") for f in dropped),
            )
        turn = list(islice(self._unseen[key], UNSEEN_SLICE))
        for frame, outcome, reason in turn:
            self._publish(
                Record(**self._names(entry), frame=frame, outcome=outcome, reason=reason)
            )
            self.ring.series["counts"][entry, OUTCOMES.index(outcome)] += 1
        if len(turn) == UNSEEN_SLICE:
            return False
        del self._unseen[key]
        return True

    def _is_estimated(self, entry: int, now_ns: int) -> bool:
        """Say whether the series' estimate holds all its frames, or is not to be waited for."""
        key = int(self.ring.series["key"][entry])
        since_ns = self._waiting_since_ns.setdefault(key, now_ns)
        if not self.evidence.is_settled(entry):
            if now_ns - since_ns < ESTIMATE_WAIT_NS:
                self.bells.ring("worker")
                return False
            log.warning("a series ends without the estimate of its last frames")
        del self._waiting_since_ns[key]
        return True

    def _end(self, entry: int, now_ns: int) -> None:
        e = self.ring.series[entry]
        counts = {o.value: int(e["counts"][i]) for i, o in enumerate(OUTCOMES)}
        announced = self.series.announced(entry)
        balanced = sum(counts.values()) == announced
        message = {
            **self._names(entry),
            "announced": announced,
            **counts,
            "balanced": balanced,
            "duplicate": int(e["n_duplicate"]),
            "late": int(e["n_late"]),
            "reason": e["reason"].decode(),
            "folder": e["folder"].decode(),
            "posterior": self.evidence.said(entry),
        }
        self._send(b"series.end", message)
        energy_eV, clen_m = self._stated.pop(int(e["key"]), (None, None))
        stated = {"header_photon_energy_eV": energy_eV, "header_clen_m": clen_m}
        self.history.series.append({**message, **stated, "t_ended_s": time.time()})
        log.info(
            "series %d closed (%s): %d frames = %s",
            message["series"],
            message["reason"],
            announced,
            " + ".join(f"{n} {name}" for name, n in counts.items()),
        )
        if not balanced:
            log.error("series %d: %d frames announced, %s", e["series"], announced, counts)
        self._announced.discard(int(e["key"]))
        drop_headers(self.runtime, [int(e["key"])])
        drop_learned(self.runtime, int(e["key"]))
        e["t_released_ns"] = now_ns
        e["released"] = 1
        self.n_released += 1
