"""The command line's root, and what its sub-commands share."""

from __future__ import annotations

import typer

from hitfinder.workers.config import ConfigError

app = typer.Typer(
    name="hitfinder-stream",
    help="Online hit finder for serial crystallography on DECTRIS Eiger streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def check_endpoint(endpoint: str) -> None:
    """Refuse what is no ZMQ address to connect to.

    Raises:
        ConfigError: what was got and what was expected.
    """
    transport, _, address = endpoint.partition("://")
    port = address.rpartition(":")[2]
    if transport == "tcp" and port.isdigit() and 0 < int(port) < 65536 and ":" in address:
        return
    if transport == "ipc" and address:
        return
    raise ConfigError(f"endpoint {endpoint!r}: expected tcp://HOST:PORT (or ipc://PATH)")
