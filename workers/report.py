"""`hitfinder-stream report RUN`: what a scientist wants to see of a run the morning after.

One rule: the page says what the files say, no more: what is not closed, not kept or not known is
named. One HTML file that needs nothing beside it.
"""

from __future__ import annotations

from pathlib import Path

from hitfinder import HitfinderError, __version__
from hitfinder.stream.summary import utc_now
from hitfinder.stream.swmr import replace_file
from hitfinder.workers import report_page as html
from hitfinder.workers import report_sections as sections
from hitfinder.workers import report_tables as tables
from hitfinder.workers.config import ConfigError
from hitfinder.workers.report_run import Run, read_run


def write_report(path: Path, out: Path | None) -> tuple[Path, str]:
    """Write a run's report.

    Args:
        path: a run's folder or one series'.
        out: file to write; None for `report.html` in the folder.

    Returns:
        The file, and a line about what is in it.

    Raises:
        ConfigError: there is no run to report on, or `out` is a folder.
        HitfinderError: the file cannot be written.
    """
    run = read_run(path)
    out = out or path / "report.html"
    if out.is_dir():
        raise ConfigError(f"--out {out}: is a folder; expected a file, e.g. {out}/report.html")
    text = html.page(f"Run {run.name}", _blocks(run))
    try:
        replace_file(out, lambda part: _write(part, text))
    except OSError as error:
        raise HitfinderError(
            f"{out}: cannot be written ({error}); name another file with --out"
        ) from error
    return out, f"{len(run.series)} series, {_headline(run)}"


def _write(part: Path, text: str) -> None:
    part.write_text(text, encoding="utf-8")


def _headline(run: Run) -> str:
    counts = tables.total_counts(run.series)
    n_judged = counts["hit"] + counts["miss"]
    rate = tables.percent(counts["hit"], n_judged)
    return f"{tables.count(counts['hit'])} hits of {tables.count(n_judged)} judged frames: {rate}"


def _blocks(run: Run) -> list[str]:
    series, frames = run.series, run.frames
    blocks = [
        html.paragraph(_headline(run), "lead"),
        html.alarms(tables.alarm_sentences(series, run.unread)),
        html.table((), tables.about_rows(run.path, series, frames), n_text=2),
        html.heading("What became of every frame"),
        html.table(("", "", "frames", "share"), tables.count_rows(series), n_text=2),
    ]
    reasons = tables.reason_rows(series)
    if reasons:
        blocks.append(html.table(("neither hit nor miss", "why", "frames"), reasons, n_text=2))
    if len(frames):
        blocks += sections.charts(run)
        blocks += sections.images(run)
    if series:
        blocks += [*sections.series_table(run), *sections.settings(run)]
    made = f"Made {utc_now()} by hitfinder-stream {__version__} from the files in {run.path}."
    return [*blocks, f"<footer>{html.paragraph(made)}</footer>"]
