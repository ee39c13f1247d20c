"""What a page that is looked at costs a daemon at a steady rate, and how fresh it is in Chromium.

    python tests/bench/controls_2026-11-23/page_cost.py RATE_HZ SECONDS ROUNDS

Small frames (256 x 288) at RATE_HZ; SECONDS without and with the page open in Chromium, in turn,
ROUNDS times. Core time of each process from /proc. In the page an observer notes each renewal: how
long since the last, and how old the newest figures were then, by the clock of both.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import zmq
from tests.system.frames import wire_series

from hitfinder.workers.browser import Browser
from hitfinder.workers.daemon_process import DaemonProcess

Messages = list[list[bytes]]
N_FRAMES = 500
SETTLE_S = 3.0
OBSERVE = """
    window.seen = [];
    const ask = window.fetch;
    window.fetch = async (...of) => {
        const answer = await ask(...of);
        if (of[0] === "state.json") {
            const t_s = (await answer.clone().json()).history.t_s.at(-1);
            window.seen.push([performance.now() / 1000, Date.now() / 1000 - t_s]);
        }
        return answer;
    };
"""


def send(
    endpoint: str, rate_Hz: float, drawn: list[Messages], over: threading.Event, n_sent: list[int]
) -> None:
    """Send series after series at a steady rate."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.bind(endpoint)
        begun_s = time.monotonic()
        for messages in drawn:
            for message in messages:
                wait_s = begun_s + n_sent[0] / rate_Hz - time.monotonic()
                if over.wait(max(wait_s, 0.0)):
                    return
                push.send_multipart(message)
                n_sent[0] += 1
    raise SystemExit("too few series were drawn")


def main(rate_Hz: float, seconds: float, rounds: int) -> None:
    """Measure."""
    over, n_sent = threading.Event(), [0]
    # A browser takes some seconds to start and to end.
    n_series = round(1 + rate_Hz * 2 * rounds * (seconds + SETTLE_S + 15) / N_FRAMES)
    drawn: list[Messages] = [
        wire_series("v2", k, N_FRAMES, has_spots=k % 4 == 0).messages for k in range(1, n_series)
    ]
    with tempfile.TemporaryDirectory() as made:
        endpoint = f"ipc://{made}/detector"
        sender = threading.Thread(target=send, args=(endpoint, rate_Hz, drawn, over, n_sent))
        with DaemonProcess(endpoint, Path(made) / "run", ("--device", "cpu:1")) as daemon:
            daemon.wait_ready()
            sender.start()
            list(daemon.messages(SETTLE_S))
            rows: list[tuple[str, float, float, float]] = []
            ages, pauses = list[float](), list[float]()
            for _ in range(rounds):
                for kind in ("without", "with"):
                    browser = Browser() if kind == "with" else None
                    if browser is not None:
                        browser.go(f"http://{daemon.http}/")
                        browser.run(OBSERVE)
                    list(daemon.messages(SETTLE_S))
                    before, n_before, begun_s = daemon.spent(), n_sent[0], time.monotonic()
                    list(daemon.messages(seconds))
                    span_s = time.monotonic() - begun_s
                    after = daemon.spent()
                    share = {
                        job: (after[job].core_s - before[job].core_s) / span_s for job in after
                    }
                    rate = (n_sent[0] - n_before) / span_s
                    rows.append((kind, rate, share["supervisor"], sum(share.values())))
                    if browser is not None:
                        seen = browser.run("return window.seen")
                        ages += [age for _, age in seen]
                        pauses += [b[0] - a[0] for a, b in zip(seen, seen[1:], strict=False)]
                        browser.close()
            over.set()
            sender.join()
    print("| page | sent frames/s | supervisor, % of one core | whole daemon, % |")
    print("|---|---|---|---|")
    for kind, rate, supervisor, whole in rows:
        print(f"| {kind} | {rate:.0f} | {100 * supervisor:.1f} | {100 * whole:.1f} |")
    cost = [b[2] - a[2] for a, b in zip(rows[::2], rows[1::2], strict=True)]
    whole = statistics.median(r[3] for r in rows[::2])
    print(
        f"\npage: {100 * statistics.median(cost):.1f} % of one core, median of {rounds}; ", end=""
    )
    print(f"{100 * statistics.median(cost) / whole:.1f} % of what the daemon spends")
    for what, values in (("between renewals", pauses), ("age of the figures", ages)):
        values.sort()
        p95 = values[int(0.95 * (len(values) - 1))]
        print(
            f"{what}: median {statistics.median(values):.2f} s, 95 % {p95:.2f} s, "
            f"longest {values[-1]:.2f} s, of {len(values)}"
        )


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
