"""The same kind of series through the running daemon: from an emulated detector to the ledger.

One rule: what counts is what a user finds on disk: p_any and p_spots3 of the ledger's rows. A
frame without a row is a frame not found. All series share the seed, as a detector's hot pixels
stay where they are from series to series; their frame numbers differ instead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from hitfinder.sim.detector import DetectorConfig
from hitfinder.sim.emulator import Emulator, EmulatorOptions
from hitfinder.sim.encoding import EncodedImage
from hitfinder.sim.patterns import Pattern
from hitfinder.sim.physics import Detector, data_sets
from hitfinder.stream.check import check_run
from hitfinder.stream.ledger import outcome_counts, read_ledger
from hitfinder.workers.daemon_process import DaemonProcess
from hitfinder.workers.evaluate_frames import SeriesFrames
from hitfinder.workers.evaluate_plans import SeriesPlan, gate_plans
from hitfinder.workers.evaluate_scores import Scored, SeriesScores

STRENGTHS = (0.05, 1.0)
FRAMES_APART = 100_000
SEND_TIMEOUT_S = 120.0
SILENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What the daemon made of the series.

    Attributes:
        scored: series beside the ledger's probabilities; NaN where there is no row.
        counts: outcome -> frames, of all ledgers.
        announced: frames that the series said they have.
        problems: what does not add up, sentences.
    """

    scored: tuple[Scored, ...]
    counts: Mapping[str, int]
    announced: int
    problems: tuple[str, ...]

    @property
    def n_rows(self) -> int:
        """Rows of all ledgers."""
        return sum(self.counts.values())


def daemon_plans(n_patterns: Mapping[str, int], seed: int) -> list[SeriesPlan]:
    """Plan few strengths of few patterns, all widths and fluxes, hot pixels in one place."""
    plans = gate_plans(n_patterns, 1, seed, STRENGTHS)
    return [
        replace(plan, part="daemon", seed=seed, first=k * FRAMES_APART)
        for k, plan in enumerate(plans)
    ]


def judge_live(
    plans: Sequence[SeriesPlan],
    patterns: Mapping[str, Sequence[Pattern]],
    detector: Detector,
    weights: Path | None,
    console: Console,
) -> LiveRun:
    """Send the series to a daemon of its own and read its ledgers.

    Raises:
        DaemonError: it did not start, died or fell silent.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, config = Path(folder) / "run", Path(folder) / "evaluate.toml"
        model = f'model = "{weights.resolve()}"\n' if weights else ""
        config.write_text(f"[gate]\n{model}\n[sink]\nmiss_sample_fraction = 0.0\n")
        sender = _Sender(plans, patterns, detector)
        arguments = ["--device", "cpu", "--config", str(config)]
        arguments += ["--max-series", str(len(plans))]
        try:
            with DaemonProcess(sender.emulator.endpoint, out, arguments) as daemon:
                daemon.wait_ready()
                with ThreadPoolExecutor(1, "sender") as thread:
                    sending = thread.submit(sender.send)
                    try:
                        ends = _listen(daemon, sender, console)
                    except BaseException:
                        sender.emulator.interrupt()
                        raise
                    sending.result(SEND_TIMEOUT_S)
                daemon.wait()
        finally:
            sender.emulator.close(0)
        return _found(out, sender, ends)


class _Sender:
    """An emulated detector that sends the plans' series one after the other."""

    def __init__(
        self,
        plans: Sequence[SeriesPlan],
        patterns: Mapping[str, Sequence[Pattern]],
        detector: Detector,
    ) -> None:
        self.plans, self._patterns, self._detector = plans, patterns, detector
        self.scores = [SeriesScores.unscored(np.arange(len(p.frames))) for p in plans]
        config = DetectorConfig(shape=detector.shape, beam_center_px=detector.center_px)
        options = EmulatorOptions(
            bind="tcp://127.0.0.1:0",
            send_timeout_s=SEND_TIMEOUT_S,
            wait_for_client_s=SEND_TIMEOUT_S,
        )
        self.emulator = Emulator(config, self._show, options)
        self._frames: SeriesFrames | None = None

    def send(self) -> None:
        """Send all series."""
        self.emulator.initialize()
        for plan in self.plans:
            setting = data_sets()[plan.dataset]
            self._frames = SeriesFrames(plan, self._patterns[plan.dataset], self._detector)
            self.emulator.configure(
                n_images=len(plan.frames),
                clen_m=setting.clen_m,
                photon_energy_eV=setting.photon_energy_eV,
            )
            self.emulator.arm()
            self.emulator.trigger()

    def _show(self, series: int, frame: int) -> tuple[EncodedImage, None]:
        if self._frames is None:
            raise AssertionError("a series is armed before its frames are shown")
        exposure, scores = self._frames.draw(frame), self.scores[series - 1]
        scores.is_hit[frame], scores.n_spots[frame] = exposure.is_hit, len(exposure.spots)
        return self.emulator.encoder(exposure.image), None


def _listen(daemon: DaemonProcess, sender: _Sender, console: Console) -> list[dict[str, object]]:
    """Return the ends of all series as published."""
    ends: list[dict[str, object]] = []
    with Progress(console=console) as progress:
        total = sum(len(p.frames) for p in sender.plans)
        bar = progress.add_task("through the daemon", total=total)
        while len(ends) < len(sender.plans):
            heard = False
            for topic, message in daemon.messages(SILENCE_S):
                heard = heard or topic != "status"
                if topic.startswith("result."):
                    progress.advance(bar)
                elif topic == "series.end":
                    ends.append(message)
                    break
            if not heard:
                raise daemon.failure(f"silent for {SILENCE_S:.0f} s")
    return ends


def _found(out: Path, sender: _Sender, ends: Sequence[Mapping[str, object]]) -> LiveRun:
    problems = list(check_run(out).problems)
    counts: dict[str, int] = {}
    announced = 0
    for end in ends:
        number = int(str(end["series"]))
        scores, rows = (
            sender.scores[number - 1],
            read_ledger(out / str(end["folder"]) / "ledger.h5"),
        )
        judged = rows[np.isfinite(rows["p_any"])]
        scores.any[judged["frame"]] = judged["p_any"]
        scores.spots3[judged["frame"]] = judged["p_spots3"]
        for outcome, n in outcome_counts(rows).items():
            counts[outcome] = counts.get(outcome, 0) + n
        announced += int(str(end["announced"]))
        if not end["balanced"] or end["announced"] != len(scores.frame):
            problems.append(f"series {number}: {dict(end)}")
    scored = [Scored.of(p, s) for p, s in zip(sender.plans, sender.scores, strict=True)]
    return LiveRun(tuple(scored), counts, announced, tuple(problems))
