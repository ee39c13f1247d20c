"""Alarms: what somebody on shift should look at now, told from the daemon's state alone.

One rule: an alarm is a function of the state, so status topic, metrics and page say the same, and
a test can say what raises it. Each has a name, what was seen in figures, and what to do. Limits
stand here with their reasons; what a minute cannot tell from chance is not an alarm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

State = Mapping[str, Any]

ADVICE = {
    "header_mismatch": "Check monochromator and detector distance, or state them in [geometry].",
    "hit_rate_collapse": "Look at jet, sample and beam position.",
    "background_drift": "Look at jet thickness, beam stop and beam intensity.",
    "saturation": "Attenuate the beam, or look for ice and salt; full pixels count as nothing.",
    "eight_bit_wrap": "8-bit counters wrap silently at 256: lower the frame rate or attenuate.",
    "hot_pixels": "They are masked already; tell the detector's keeper if they go on.",
    "frames_lost": "See HitfinderFramesLost in the runbook.",
    "ring_filling": "Disk, cores or too bright frames: see HitfinderRingFull in the runbook.",
    "child_restarting": "The log says why it died; frames go to its successor.",
    "bad_bytes": "Wrong stream format, or a proxy in between? `errors` names the latest.",
    "detector_buffer": "We, or the network, are too slow: see HitfinderRingFull in the runbook.",
    "detector_silent": "Its REST interface does not answer: is source.rest right?",
    "no_source": "Detector off, stream disabled, wrong address or firewall.",
}
# "page": frames are being lost, or nothing comes; "look": the results may be wrong.
URGENT = ("frames_lost", "ring_filling", "child_restarting", "detector_buffer", "no_source")
# Hits now against before: half, with 95 % intervals that are that far apart.
COLLAPSE = 0.5
# Background now over before, either way: jets breathe by tens of per cent.
DRIFT = 1.5
# Misses from which on a mean background is known to a per cent or so.
MIN_MISSES = 200
# Pixels that turned hot since a minute ago, in number and as a share of those known.
NEW_HOT, NEW_HOT_SHARE = 20, 0.1
# Frames after which what was hot from the start has been learned.
MIN_SETTLED = 1000
# Sampled frames with full pixels that are not learned to be hot: one may be a cosmic ray.
MIN_SATURATED = 3
# An 8-bit counter that reaches this in the typical sampled frame overflows in the bright ones.
NEAR_WRAP = 128
# Share of the ring's slots, or of the detector's buffer: a healthy run uses little.
FILLING = 0.5
# The source connects within this of the start.
CONNECT_S = 10.0


def alarms_of(state: State) -> list[dict[str, Any]]:
    """Return the alarms that hold now.

    Args:
        state: as `status` has it.

    Returns:
        maps of `name`, `urgency` (`page` or `look`), `text`, `advice`; the urgent ones first.
    """
    found = [
        {
            "name": name,
            "urgency": "page" if name in URGENT else "look",
            "text": text,
            "advice": ADVICE[name],
        }
        for name, text in _found(state)
    ]
    return sorted(found, key=lambda alarm: alarm["urgency"] != "page")


def _found(state: State) -> Iterator[tuple[str, str]]:
    yield from _of_series(state["series_open"])
    yield from _of_the_last_minute(state["lately"])
    yield from _of_levels(state["lately"]["now"], state["lately"]["before"])
    yield from _of_full_pixels(state["brightest"])
    # A replay waits for room; only a detector does not.
    is_live = state["children"][0]["name"] == "receiver"
    if is_live and state["lately"]["ring_used"] > FILLING:
        text = f"{state['ring_slots_used']} of {state['ring_slots']} slots hold a frame"
        yield "ring_filling", text
    for child in state["children"]:
        if child["last_exit"] and not child["alive"] and not child["done"]:
            yield "child_restarting", f"{child['name']} is down: {child['last_exit']}"
    yield from _of_the_detector(state["detector"])
    if is_live and not state["connected"] and state["uptime_s"] > CONNECT_S:
        yield "no_source", "no detector endpoint is connected"


def _of_the_detector(detector: State | None) -> Iterator[tuple[str, str]]:
    if detector is None:
        return
    if not detector["answers"]:
        yield "detector_silent", detector["error"]
        return
    if detector["n_dropped"]:
        text = f"the detector dropped {detector['n_dropped']} images since it was armed"
        yield "detector_buffer", text
    used = detector["buffer_used"]
    if used is not None and used > FILLING:
        yield "detector_buffer", f"{used:.0%} of the detector's buffer are used"


def _of_series(series_open: Sequence[State]) -> Iterator[tuple[str, str]]:
    for series in series_open:
        p = series["posterior"]
        if p is not None and p["header_mismatch"]:
            yield (
                "header_mismatch",
                f"series {series['series']}: the pixels of {p['n_frames']} frames say "
                f"{p['photon_energy_eV']:.0f} ± {p['photon_energy_sigma_eV']:.0f} eV, "
                f"{p['clen_m']:.4f} ± {p['clen_sigma_m']:.4f} m; the header says "
                f"{_said(series['header_photon_energy_eV'], '.0f')} eV, "
                f"{_said(series['header_clen_m'], '.4f')} m",
            )
        if series["n_dropped"]:
            text = f"series {series['series']}: {series['n_dropped']} frames dropped, ring full"
            yield "frames_lost", text


def _of_the_last_minute(lately: State) -> Iterator[tuple[str, str]]:
    if lately["failed"]:
        yield "frames_lost", f"{lately['failed']} frames without a judgement in the last minute"
    if lately["restarts"]:
        yield "child_restarting", f"{lately['restarts']} restarts in the last minute"
    if lately["malformed"]:
        yield "bad_bytes", f"{lately['malformed']} malformed messages in the last minute"


def _of_levels(now: State, before: State) -> Iterator[tuple[str, str]]:
    rate, was = now["hit_rate"], before["hit_rate"]
    if rate["high"] < COLLAPSE * was["low"]:
        yield (
            "hit_rate_collapse",
            f"{rate['value']:.1%} hits in the last minute, {was['value']:.1%} before",
        )
    n = [level["hit_rate"]["judged"] - level["hit_rate"]["hits"] for level in (now, before)]
    if min(n) >= MIN_MISSES:
        level, used = now["background_photons_per_px"], before["background_photons_per_px"]
        if used > 0 and not 1 / DRIFT <= level / used <= DRIFT:
            yield (
                "background_drift",
                f"{level:.3g} photons per pixel in misses of the last minute, {used:.3g} before",
            )
    if min(level["hit_rate"]["judged"] for level in (now, before)) >= MIN_SETTLED:
        fresh = now["n_hot_pixels"] - before["n_hot_pixels"]
        if fresh >= max(NEW_HOT, NEW_HOT_SHARE * before["n_hot_pixels"]):
            yield "hot_pixels", f"{fresh} pixels turned hot in the last minute"


def _of_full_pixels(brightest: State) -> Iterator[tuple[str, str]]:
    n, full = brightest["n_frames"], brightest["n_saturated_frames"]
    if full >= MIN_SATURATED:
        yield "saturation", f"{full} of the latest {n} sampled frames have full pixels"
    typical = brightest["most_counts_median"]
    if brightest["dtype"] == "uint8" and typical is not None and typical >= NEAR_WRAP:
        yield (
            "eight_bit_wrap",
            f"the brightest pixel of a typical frame counts {typical} of 255 in 8 bits",
        )


def _said(value: float | None, how: str) -> str:
    return "nothing of" if value is None else format(value, how)
