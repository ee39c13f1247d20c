"""An evaluation's sections, put together: `report.md` for people, `results.json` for programs.

One rule: both hold the same figures, what they were made with and by which command. Infinite
figures ("not reached") are null in JSON, which has no word for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Section:
    """One part's outcome.

    Attributes:
        title: headline.
        text: Markdown, its tables in it.
        figures: what the tables are made of, plain JSON.
        pictures: file names beside the report.
    """

    title: str
    text: str
    figures: dict[str, Any]
    pictures: list[str] = field(default_factory=list)


def kept(path: Path, make: Callable[[], Section]) -> Section:
    """Return the section kept at `path`; if there is none, make it and keep it."""
    if path.exists():
        return Section(**json.loads(path.read_text()))
    section = make()
    half = path.with_suffix(".part")
    half.write_text(json.dumps(plain(section)))
    half.replace(path)
    return section


def write_report(
    out: Path, headline: str, made: Mapping[str, Any], sections: Mapping[str, Section]
) -> Path:
    """Write both files and return the report's path.

    Args:
        out: folder, which holds the pictures already.
        headline: first line.
        made: what it was made with: command, weights, machine, counts.
        sections: part -> outcome, in the report's order.
    """
    lines = [f"# {headline}", ""]
    lines += [f"* {name}: {_words(value)}" for name, value in made.items()] + [""]
    for section in sections.values():
        lines += [f"## {section.title}", "", section.text.rstrip(), ""]
        lines += [f"![{section.title}]({name})\n" for name in section.pictures]
    report = out / "report.md"
    report.write_text("\n".join(lines).rstrip() + "\n")
    results = {"made": dict(made), **{part: s.figures for part, s in sections.items()}}
    text = json.dumps(plain(results), indent=1, allow_nan=False)
    (out / "results.json").write_text(text + "\n")
    return report


def plain(value: Any) -> Any:
    """Return dataclasses, arrays and tuples as what JSON has; keys as text, no number as null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else f"{k:g}": plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
