"""ZMQ CURVE on the results topic: who may read it, and that nobody else can.

One rule: keys are files in pyzmq's certificate format; a secret one that others may read is
refused, as ssh does. Without key files the topic is open to whoever reaches its address.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from hitfinder.workers.config import ConfigError

READABLE_BY_OTHERS = 0o077


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write `NAME.key` (public) and `NAME.key_secret` (mode 0600); return both."""
    folder.mkdir(parents=True, exist_ok=True)
    public, secret = zmq.auth.create_certificates(folder, name)
    Path(secret).chmod(0o600)
    return Path(public), Path(secret)


def guard(
    context: zmq.Context[zmq.Socket[bytes]],
    socket: zmq.Socket[bytes],
    secret_file: Path,
    clients: Path | None,
) -> ThreadAuthenticator:
    """Make a socket that is not bound yet speak to known clients alone.

    Args:
        secret_file: `NAME.key_secret` of this server.
        clients: folder of the public keys of those who may; None for all who have the server's.

    Returns:
        The thread that answers for clients; to be stopped before the context ends.

    Raises:
        ConfigError: a file or folder that cannot serve.
    """
    public, secret = _secret_pair(secret_file, "sink.results_key_file")
    if clients is not None and not any(clients.glob("*.key")):
        raise ConfigError(f"sink.results_clients {clients}: no folder with *.key files")
    doorman = ThreadAuthenticator(context)
    doorman.start()
    known = zmq.auth.CURVE_ALLOW_ANY if clients is None else str(clients)
    doorman.configure_curve(domain="*", location=known)
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_PUBLICKEY, public)
    socket.set(zmq.CURVE_SECRETKEY, secret)
    return doorman


@dataclass(frozen=True, slots=True)
class Keys:
    """Files of who reads an encrypted topic.

    Attributes:
        ours: `NAME.key_secret` of this client.
        server: `NAME.key` of the server.
    """

    ours: Path
    server: Path


def keys_of(ours: Path | None, server: Path | None) -> Keys | None:
    """Return `--key` and `--server-key` together, None if neither is given.

    Raises:
        ConfigError: one without the other.
    """
    if ours is not None and server is not None:
        return Keys(ours, server)
    if ours is not None or server is not None:
        raise ConfigError("--key and --server-key go together")
    return None


def introduce(socket: zmq.Socket[bytes], keys: Keys) -> None:
    """Make a socket that is not connected yet speak to one server, under a name of its own.

    Raises:
        ConfigError: a file that cannot serve.
    """
    public, secret = _secret_pair(keys.ours, "--key")
    try:
        server, _ = zmq.auth.load_certificate(keys.server)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--server-key {keys.server}: {error}") from error
    socket.set(zmq.CURVE_SERVERKEY, server)
    socket.set(zmq.CURVE_PUBLICKEY, public)
    socket.set(zmq.CURVE_SECRETKEY, secret)


def _secret_pair(path: Path, key: str) -> tuple[bytes, bytes]:
    try:
        mode = path.stat().st_mode
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key} {path}: {error}") from error
    if secret is None:
        raise ConfigError(f"{key} {path}: has no secret key; give the *.key_secret file")
    if mode & READABLE_BY_OTHERS:
        raise ConfigError(f"{key} {path}: others may read it; chmod 600 it")
    return public, secret
