"""`hitfinder-stream set`: changes a running daemon, with its token."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from hitfinder import HitfinderError
from hitfinder.workers.cli_app import app
from hitfinder.workers.config import ConfigError

ANSWER_S = 20.0
# Reading a mask and loading a model in every worker, at the longest.
PREPARED_S = 200.0


class NotChangedError(HitfinderError):
    """The daemon did not do it; the text says why."""


@app.command("set")
def set_command(
    token_file: Annotated[
        Path, typer.Option("--token-file", help="The daemon's http.token_file.")
    ],
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            help="threshold=P or max_false_positive_rate=R; miss_sample_fraction=F.",
            metavar="[NAME=VALUE...]",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Weights with their card, or `configured`.")
    ] = None,
    mask: Annotated[
        str | None, typer.Option("--mask", help="Operator's mask, or `configured`.")
    ] = None,
    shadow_frames: Annotated[
        int, typer.Option("--shadow-frames", min=0, help="Judged by both models first; 0 none.")
    ] = 200,
    shadow_s: Annotated[
        float, typer.Option("--shadow-s", min=0, help="Less frames will do after this time.")
    ] = 60.0,
    compare_only: Annotated[
        bool, typer.Option("--compare-only", help="Tell the disagreement, change nothing.")
    ] = False,
    http: Annotated[
        str, typer.Option("--http", help="HOST:PORT of the daemon's page.")
    ] = "127.0.0.1:8080",
) -> None:
    """Change a running daemon; prints from which frame on it holds.

    A model is first compared: it judges the frames that come beside the one in force, and on how
    many they disagree is printed. Files lie on the daemon's machine.

    Example: `hitfinder-stream set threshold=0.95 --token-file /etc/hitfinder-stream/token`

    Example: `hitfinder-stream set --model new.safetensors --shadow-frames 1000
    --token-file /etc/hitfinder-stream/token`
    """
    from hitfinder.workers.control import read_token

    token = read_token(str(token_file)) or b""
    wish: dict[str, Any] = {**wish_of(changes or [])}
    for name, file in (("model", model), ("mask", mask)):
        if file is not None:
            wish[name] = file if file == "configured" else str(Path(file).absolute())
    if model is not None:
        wish |= {"shadow_frames": shadow_frames, "shadow_s": shadow_s}
        wish["compare_only"] = compare_only
    answer_s = ANSWER_S if model is None and mask is None else shadow_s + PREPARED_S
    for line in lines_of(change(http, token.decode(errors="replace"), wish, answer_s)):
        print(line)


def lines_of(said: dict[str, Any]) -> Iterator[str]:
    """Yield what a daemon answered, as a person reads it."""
    compared = said["compared"]
    if compared is not None and compared["n_wanted"]:
        yield (
            f"model {compared['model']}: {compared['n_frames']} frames judged by both: "
            f"{compared['hits_of_both']} hits of both, {compared['hits_now_only']} of the model "
            f"in force only, {compared['hits_of_candidate_only']} of the new one only"
        )
    if "frame" not in said:
        yield "nothing changed"
        return
    where = "the next series" if said["series"] is None else f"series {said['series']}"
    held = ", ".join(
        f"{name} {'as configured' if said[name] is None else said[name]}"
        for name in ("threshold", "miss_sample_fraction", "model", "mask")
    )
    yield f"from frame {said['frame']} of {where} on: {held}"


def wish_of(changes: list[str]) -> dict[str, float]:
    """Return NAME=VALUE words as a map.

    Raises:
        ConfigError: a word is not of that form; the daemon judges the names.
    """
    wish = {}
    for word in changes:
        name, _, value = word.partition("=")
        try:
            wish[name] = float(value)
        except ValueError:
            raise ConfigError(f"{word!r}: expected NAME=NUMBER, e.g. threshold=0.95") from None
    return wish


def change(http: str, token: str, wish: dict[str, Any], answer_s: float) -> dict[str, Any]:
    """Ask a daemon for a change; returns what it said.

    Args:
        answer_s: how long to wait for it.

    Raises:
        NotChangedError: it refused, or nobody answers.
    """
    request = urllib.request.Request(
        f"http://{http}/control",
        data=json.dumps(wish).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=answer_s) as answer:
            said: dict[str, Any] = json.load(answer)
            return said
    except urllib.error.HTTPError as error:
        raise NotChangedError(
            f"not changed: {error.read(4096).decode(errors='replace')}"
        ) from error
    except (OSError, ValueError) as error:
        raise NotChangedError(f"no daemon answers at {http}: {error}") from error
