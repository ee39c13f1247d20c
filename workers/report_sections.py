"""The sections of a report that show more than counts: charts, images, settings.

One rule: a chart stands where there is something to draw; what is left out is said.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from hitfinder.stream.nexus import RunGeometry
from hitfinder.workers import report_page as html
from hitfinder.workers import report_tables as tables
from hitfinder.workers.report_charts import (
    Order,
    estimate_chart,
    hit_rate_chart,
    level_chart,
    resolution_chart,
    score_chart,
    spots_chart,
)
from hitfinder.workers.report_images import best_hits
from hitfinder.workers.report_run import Run
from hitfinder.workers.report_series import HIT, MISS, StoredSeries
from hitfinder.workers.report_settings import config_lines, next_lines, settings_lines
from hitfinder.workers.report_sums import draw_learned, draw_sums, learned_squares, sum_frames
from hitfinder.workers.terminal import progressed

MAX_SUMS = 3  # geometries whose sums are shown
NONE_SHOWN = "No hit is shown: there is none, or its file cannot be read."


def charts(run: Run) -> list[str]:
    """Return hit rate, scores, spots, resolution, light, energy and camera length."""
    frames, order = run.frames, Order(run.frames)
    hits = frames[frames["outcome"] == HIT]
    figures = []
    if len(order.frames):
        rate = "hit rate over time with its 95 % interval"
        figures.append(html.figure(hit_rate_chart(order), rate))
    if np.isfinite(frames["p_hit"]).any():
        figures.append(html.figure(score_chart(frames), "p_hit of hits and of misses"))
    if (hits["n_peaks"] >= 0).any():
        figures.append(html.figure(spots_chart(hits), "spots found in a hit"))
    n_far = int(np.isfinite(hits["d_min_A"]).sum())
    if n_far:
        words = f"resolution that 95 % of a hit's spots lie within, of {tables.count(n_far)} hits"
        figures.append(html.figure(resolution_chart(hits), words))
    for name, words in (
        ("background_photons_per_px", "background (photons a pixel)"),
        ("flux_scale", "flux over the misses before"),
    ):
        if np.isfinite(order.frames[name]).any():
            chart = level_chart(order, name, words)
            figures.append(html.figure(chart, f"{words} over time: median, 16 to 84 %"))
    blocks = [html.heading("Hits, scores, light"), html.grid(figures)]
    if len(order.frames):
        names = ("photon_energy_eV", "clen_m")
        charts = [estimate_chart(order, run.series, name) for name in names]
        captions = ("photon energy from the pixels alone", "camera length from the pixels alone")
        blocks += [
            html.heading("Energy and camera length"),
            html.paragraph(
                "From the pixels alone: points are single hits, bands what all frames of a series "
                "say together. A series that has not ended has no band. Believe the bands: at "
                "0.25 m and beyond one frame cannot tell energy and camera length apart."
            ),
            html.grid([html.figure(c, w) for c, w in zip(charts, captions, strict=True)]),
        ]
    return blocks


def images(run: Run) -> list[str]:
    """Return single hits, sums of frames, and what was learned of the detector."""
    kept = run.frames[run.frames["file"] >= 0]
    pictures = best_hits(run.series, kept[kept["outcome"] == HIT])
    blocks = [html.heading("Hits")]
    if pictures:
        words = (
            "The part of each image with most spots. Each pixel shows the photons near it (under "
            "a Gaussian of 3 px): 0.4 is black, 40 brightest, gaps are grey."
        )
        blocks += [
            html.paragraph(words),
            html.grid([html.figure(p.png, p.caption) for p in pictures]),
        ]
    else:
        blocks.append(html.paragraph(NONE_SHOWN))
    blocks += _sums(run)
    return blocks + _learned(run)


def _sums(run: Run) -> list[str]:
    """Return the virtual powders of the series with most hits of each geometry."""
    best: dict[tuple[object, ...], StoredSeries] = {}
    for one in sorted(run.series, key=lambda s: -s.counts["hit"]):
        best.setdefault((one.start.shape, *_key(one.geometry)), one)
    shown = [one for one in list(best.values())[:MAX_SUMS] if (one.frames["file"] >= 0).any()]
    blocks = []
    for one in progressed(shown, "sums"):
        kept = one.frames[one.frames["file"] >= 0]
        hits, misses = (sum_frames(one, kept[kept["outcome"] == code]) for code in (HIT, MISS))
        if hits is None and misses is None:
            continue
        pictures = draw_sums(hits, misses, one.geometry)
        geometry = one.geometry
        energy = tables.shown(geometry.photon_energy_eV, ".0f", " eV")
        clen = tables.shown(geometry.clen_m, ".4g", " m")
        name = f"Series {one.start.series}, {energy}, {clen}"
        blocks += [
            html.paragraph(f"{name}; rings of resolution from header or config."),
            html.grid([html.figure(p.png, f"{name}: {p.caption}") for p in pictures]),
        ]
    if not blocks:
        return []
    left = len(best) - MAX_SUMS
    if left > 0:
        more = f"{left} more geometries: see the report of one series' folder."
        blocks.append(html.paragraph(more))
    return [html.heading("Sums of frames"), *blocks]


def _key(geometry: RunGeometry) -> tuple[object, ...]:
    return (
        geometry.photon_energy_eV,
        geometry.clen_m,
        geometry.beam_center_px,
        geometry.pixel_size_m,
    )


def _learned(run: Run) -> list[str]:
    rows = tables.learned_rows(run.series)
    if not rows:
        return []
    head = ("series", "hot", "dead px", "shadowed px", "frames judged before it was known", "flux")
    blocks = [html.heading("What the frames taught of the detector"), html.table(head, rows)]
    by_shape: dict[tuple[int, int], list[StoredSeries]] = defaultdict(list)
    for one in run.series:
        if len(learned_squares(one)) and one.start.shape is not None:
            by_shape[one.start.shape].append(one)
    figures = [draw_learned(mine, shape) for shape, mine in by_shape.items()]
    return [*blocks, html.grid([html.figure(p.png, p.caption) for p in figures])]


def series_table(run: Run) -> list[str]:
    """Return a row a series."""
    blocks = [
        html.heading("Series by series"),
        html.table(tables.SERIES_HEAD, tables.series_rows(run.series), n_text=3),
    ]
    if len(run.series) > tables.MAX_SERIES:
        left = len(run.series) - tables.MAX_SERIES
        blocks.append(html.paragraph(f"... and {left} more series."))
    return blocks


def settings(run: Run) -> list[str]:
    """Return what was in force, and what to do next."""
    return [
        html.heading("Settings"),
        html.listing([*settings_lines(run.series), "", *config_lines(run.series)]),
        html.heading("Next"),
        html.paragraph(
            "CrystFEL and DIALS read the images through the bitshuffle filter: set "
            "HDF5_PLUGIN_PATH to the folder of HDF5 filter plugins first."
        ),
        html.listing(next_lines(run.path, run.series)),
    ]
