"""`subscribe`: the results topic for a person or a pipe.

One rule: what was lost on the way is said. `seq` counts every message of the publisher, so with
all topics subscribed a gap means that this subscriber was too slow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import msgspec
import zmq

from hitfinder.stream.results import Peaks, Record
from hitfinder.workers.curve import Keys, introduce

POLL_MS = 200
# Records queued for us; at 1 kHz a minute, about 100 MB at most.
RECEIVE_QUEUE = 60_000
# Over the rows of frames, again and again: the first scrolls away.
HEAD = (
    f"{'topic':<13} {'series':>6} {'frame':>7}  {'p':>5}  {'spots':>5} {'photons':>9}"
    f"  {'energy (eV)':>12}  {'clen (m)':>13}  {'d (A)':>6}"
)
HEAD_EVERY = 40


def messages(
    endpoint: str, topic: str = "", keys: Keys | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (topic, map) of a results topic for ever; peaks as lists of floats.

    Args:
        endpoint: e.g. `tcp://127.0.0.1:5557`.
        topic: prefix, e.g. `result.hit`; empty for all.
        keys: of an encrypted topic.

    Raises:
        ConfigError: keys that cannot be used.
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, RECEIVE_QUEUE)
    socket.set(zmq.SUBSCRIBE, topic.encode())
    try:
        if keys is not None:
            introduce(socket, keys)
        socket.connect(endpoint)
        while True:
            if socket.poll(POLL_MS):
                name, body = socket.recv_multipart()[:2]
                yield name.decode(), _plain(msgspec.msgpack.decode(body))
    finally:
        socket.close(0)
        context.term()


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    peaks = message.get("peaks")
    if peaks is not None:
        arrays = Peaks(**peaks).arrays()
        message["peaks"] = {name: [float(v) for v in a] for name, a in arrays.items()}
    return message


def subscribe(
    endpoint: str,
    topic: str,
    *,
    as_json: bool,
    count: int | None,
    keys: Keys | None = None,
    to: TextIO = sys.stdout,
) -> int:
    """Print what a results topic says until `count` messages or Ctrl-C; returns how many."""
    n, n_rows, last_seq, n_lost = 0, 0, None, 0
    for name, message in messages(endpoint, topic, keys):
        if not topic:
            seq = message.get("seq")
            if last_seq is not None and seq is not None and seq > last_seq + 1:
                n_lost += seq - last_seq - 1
                print(f"{n_lost} messages lost on the way here so far", file=sys.stderr)
            last_seq = seq
        if not as_json and name.startswith("result.") and n_rows % HEAD_EVERY == 0:
            print(HEAD, file=to)
        n_rows += name.startswith("result.")
        text = json.dumps({"topic": name, **message}) if as_json else line_of(name, message)
        print(text, file=to, flush=True)
        n += 1
        if count is not None and n >= count:
            break
    return n


def line_of(topic: str, message: dict[str, Any]) -> str:
    """Return one message as a line that a person can read; a frame's is a row under `HEAD`."""
    if topic == "status":
        return f"{topic:<13} {status_line(message)}"
    if not topic.startswith("result."):
        shown = ("series", "n_frames", "announced", "hit", "miss", "reason")
        said = [f"{k} {message[k]}" for k in shown if message.get(k) is not None]
        if message.get("posterior") is not None:
            said.append(posterior_line(message["posterior"]))
        return f"{topic:<13} {', '.join(said)}"
    r = msgspec.convert({**message, "peaks": None}, Record)
    row = f"{topic:<13} {r.series:>6} {r.frame:>7}"
    if r.p_hit is None:
        return f"{row}  {r.outcome}: {r.reason}"
    row += f"  {r.p_hit:5.3f}  {r.n_peaks or 0:>5} {r.n_photons or 0:>9}"
    if r.photon_energy_eV is not None and r.clen_m is not None:
        row += (
            f"  {r.photon_energy_eV:5.0f} ± {r.photon_energy_sigma_eV or 0:4.0f}"
            f"  {r.clen_m:5.3f} ± {r.clen_sigma_m or 0:5.3f}"
        )
        row += f"  {'-' if r.d_min_A is None else f'{r.d_min_A:.1f}':>6}"
        row += "" if r.tells_parameters else "  one frame cannot tell"
    return row


def status_line(status: dict[str, Any]) -> str:
    """Return the daemon's state of health, as a person reads it."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in status["counts"].items())
    said = [f"up {status['uptime_s']:.0f} s", counts]
    said.append(f"{status['ring_slots_used']} of {status['ring_slots']} slots")
    for series in status["series_open"]:
        if series["posterior"] is not None:
            said.append(f"series {series['series']}: {posterior_line(series['posterior'])}")
    said += [f"ALARM {alarm['name']}: {alarm['text']}" for alarm in status["alarms"]]
    return "; ".join(said)


def posterior_line(posterior: dict[str, Any]) -> str:
    """Return what a series' frames together say, as a person reads it."""
    p = posterior
    text = (
        f"{p['n_frames']} frames say {p['photon_energy_eV']:.0f} ± "
        f"{p['photon_energy_sigma_eV']:.0f} eV, {p['clen_m']:.4f} ± {p['clen_sigma_m']:.4f} m"
    )
    if not p["tells_parameters"]:
        text += " (too few to tell)"
    return f"{text}, THE HEADER SAYS OTHERWISE" if p["header_mismatch"] else text
