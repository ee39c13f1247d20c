"""Follow a running daemon with typed records: hits as they come, and the hit rate so far.

    python live_hits.py tcp://127.0.0.1:5557 --hits 100

One rule: what this program was too slow for is said. `seq` counts all that the daemon publishes,
so whoever subscribes to everything sees a gap. Paste `follow` into a notebook to go on from there.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import msgspec
import zmq

from hitfinder.stream.results import Outcome, Record

# Messages kept for us while we are busy; beyond, we lose some. A minute at 1 kHz, some 100 MB.
RECEIVE_QUEUE = 60_000


def follow(endpoint: str) -> Iterator[Record]:
    """Yield the verdict of every frame, for ever.

    Args:
        endpoint: of the results, e.g. `tcp://127.0.0.1:5557`.
    """
    last_seq = None
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.set(zmq.RCVHWM, RECEIVE_QUEUE)
        socket.set(zmq.LINGER, 0)
        socket.subscribe("")
        socket.connect(endpoint)
        while True:
            topic, body = socket.recv_multipart()
            seq = msgspec.msgpack.decode(body, type=dict)["seq"]
            if last_seq is not None and seq != last_seq + 1:
                print(f"{seq - last_seq - 1} messages lost on the way here, or a new daemon")
            last_seq = seq
            if topic.startswith(b"result."):
                yield msgspec.msgpack.decode(body, type=Record)


def line_of(hit: Record) -> str:
    """Return where a hit is kept, and its brightest spot."""
    text = f"series {hit.series} frame {hit.frame}: {hit.n_peaks} spots"
    if hit.peaks is not None and hit.n_peaks:
        spots = hit.peaks.arrays()
        k = spots["intensity"].argmax()
        text += (
            f", brightest {spots['intensity'][k]:.0f} photons"
            f" at fs {spots['fs'][k]:.1f} ss {spots['ss'][k]:.1f}"
        )
    return f"{text}, {hit.file} row {hit.row}"


def main() -> None:
    """Print hits until there are enough."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("endpoint")
    parser.add_argument("--hits", type=int, default=100, help="stop after so many")
    wanted = parser.parse_args()
    counts: Counter[Outcome] = Counter()
    for record in follow(wanted.endpoint):
        counts[record.outcome] += 1
        if record.outcome is Outcome.HIT:
            judged = counts[Outcome.HIT] + counts[Outcome.MISS]
            print(f"{line_of(record)}; hit rate {counts[Outcome.HIT] / judged:.1%}", flush=True)
        if counts[Outcome.HIT] >= wanted.hits:
            return


if __name__ == "__main__":
    main()
