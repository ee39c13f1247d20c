"""`hitfinder-stream set`: changes a running daemon, with its token."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from hitfinder import HitfinderError
from hitfinder.workers.cli_app import app
from hitfinder.workers.config import ConfigError

ANSWER_S = 20.0


class NotChangedError(HitfinderError):
    """The daemon did not do it; the text says why."""


@app.command("set")
def set_command(
    changes: Annotated[
        list[str],
        typer.Argument(
            help="threshold=P or max_false_positive_rate=R; miss_sample_fraction=F.",
            metavar="NAME=VALUE...",
        ),
    ],
    token_file: Annotated[
        Path, typer.Option("--token-file", help="The daemon's http.token_file.")
    ],
    http: Annotated[
        str, typer.Option("--http", help="HOST:PORT of the daemon's page.")
    ] = "127.0.0.1:8080",
) -> None:
    """Change a running daemon; prints from which frame on it holds.

    Example: `hitfinder-stream set threshold=0.95 --token-file /etc/hitfinder-stream/token`
    """
    from hitfinder.workers.control import read_token

    token = read_token(str(token_file)) or b""
    said = change(http, token.decode(errors="replace"), wish_of(changes))
    where = "the next series" if said["series"] is None else f"series {said['series']}"
    held = ", ".join(
        f"{name} {'as configured' if said[name] is None else said[name]}"
        for name in ("threshold", "miss_sample_fraction")
    )
    print(f"from frame {said['frame']} of {where} on: {held}")


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


def change(http: str, token: str, wish: dict[str, float]) -> dict[str, Any]:
    """Ask a daemon for a change; returns what it said.

    Raises:
        NotChangedError: it refused, or nobody answers.
    """
    request = urllib.request.Request(
        f"http://{http}/control",
        data=json.dumps(wish).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            said: dict[str, Any] = json.load(answer)
            return said
    except urllib.error.HTTPError as error:
        raise NotChangedError(
            f"not changed: {error.read(4096).decode(errors='replace')}"
        ) from error
    except (OSError, ValueError) as error:
        raise NotChangedError(f"no daemon answers at {http}: {error}") from error
