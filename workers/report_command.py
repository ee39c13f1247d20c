"""The sub-command `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hitfinder.workers.cli_app import app


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one series' folder in it.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; report.html in RUN if not given.")
    ] = None,
) -> None:
    """Write one HTML page with the plots and numbers of a run, finished or not.

    Example: `hitfinder-stream report /data/run12 --out run12.html`
    """
    from hitfinder.workers.report import write_report

    path, words = write_report(run, out)
    print(f"{path}: {words}")
