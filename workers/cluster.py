"""Ray, as far as this program uses it: to be connected, to know the nodes, to place actors.

One rule: Ray places, restarts and carries; what is dealt and what becomes of it is ours. It is
imported only once `--cluster` was given, and only here and in what runs on the cluster.
"""

from __future__ import annotations

import importlib.util
import logging
import socket
from typing import Any

from hitfinder import HitfinderError
from hitfinder.workers.config import ConfigError

INSTALL = "--cluster needs Ray, which is not installed: pip install 'hitfinder-stream[cluster]'"
NAMESPACE = "hitfinder"
KNOCK_S = 5.0


class ClusterError(HitfinderError):
    """The cluster cannot be reached, or has no room."""


def require_ray() -> None:
    """Look whether Ray is installed, without loading it.

    Raises:
        ConfigError: it is not; the text says what to install.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(INSTALL)


def connect(address: str) -> None:
    """Connect this process to a running cluster; its actors end with it.

    Args:
        address: HOST:PORT of the head; `auto` for the cluster that this machine is a node of.

    Raises:
        ClusterError: nobody answers there.
    """
    import ray

    try:
        if address != "auto":
            _knock(address)
        ray.init(
            address=address,
            namespace=NAMESPACE,
            configure_logging=False,
            logging_level=logging.WARNING,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ClusterError(
            f"cluster {address}: {reason}; is it up, and is this machine one of its nodes "
            "(ray start --address HEAD:PORT --num-cpus 0)?"
        ) from error


def _knock(address: str) -> None:
    """Look whether anybody listens; Ray itself would try for minutes.

    Raises:
        OSError: nobody does.
        ValueError: no HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("expected auto or HOST:PORT")
    socket.create_connection((host, int(port)), KNOCK_S).close()


def disconnect() -> None:
    """Leave the cluster; what this process started there ends."""
    import ray

    ray.shutdown()


def node_names() -> dict[str, str]:
    """Return id -> name of the nodes that are alive; a name is the host's unless one was given."""
    import ray

    return {
        node["NodeID"]: node["NodeName"] or node["NodeManagerHostname"]
        for node in ray.nodes()
        if node["Alive"]
    }


def count(resource: str) -> int:
    """Return how many of `CPU` or `GPU` the living nodes have together."""
    import ray

    return int(ray.cluster_resources().get(resource, 0))


def actor_options(device: str) -> dict[str, Any]:
    """Return what Ray needs to place an actor that judges on a device, and to restart it.

    One CPU also keeps numerical libraries to one thread: Ray sets OMP_NUM_THREADS by it. A task
    is never repeated by Ray itself: who dealt it knows what became of it.
    """
    n_gpus = int(device.startswith("cuda"))
    return {"num_cpus": 1, "num_gpus": n_gpus, "max_restarts": -1, "max_task_retries": 0}
