"""Ray, as far as this program uses it: to be connected, to know the nodes, to place actors.

One rule: Ray places, restarts and carries; what is dealt and what becomes of it is ours. It is
imported only once `--cluster` was given, and only here and in what runs on the cluster.
"""

from __future__ import annotations

import importlib.util
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
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


class _Hosted:
    """An object of ours on some node."""

    def __init__(self, kind: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._own = kind(*arguments)

    def node(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._own, method)(*arguments)


class DiedError(ClusterError):
    """An actor died, or its node did; whether it was done before is not known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of something that was asked.

    Attributes:
        ticket: as `ask` returned it.
        value: what the method returned; None if it failed.
        error: why it failed, `DiedError` if its actor did; None if it did not.
    """

    ticket: int
    value: Any
    error: Exception | None


class Actors:
    """A pool of actors of one kind, each asked one thing after the other.

    Args:
        kind: makes the object that stands on a node; importable there.
        arguments: of `kind`, the same for all.
        device: what each has to itself.
        n: how many; those for which there is no room wait until there is.
    """

    def __init__(
        self, kind: Callable[..., Any], arguments: tuple[Any, ...], device: str, n: int
    ) -> None:
        import ray

        hosted = ray.remote(_Hosted).options(**actor_options(device))
        self._handles: list[Any] = [hosted.remote(kind, arguments) for _ in range(n)]
        self._asked: dict[Any, int] = {}
        self._n_asked = 0

    def __len__(self) -> int:
        """Return how many there are, alive or not."""
        return len(self._handles)

    def ask(self, actor: int, method: str, *arguments: Any) -> int:
        """Have an actor call a method of its object; return the ticket of the answer."""
        return self._note(self._handles[actor].call.remote(method, *arguments))

    def ask_node(self, actor: int) -> int:
        """Ask for the id of an actor's node; a dead one answers once Ray has started it anew."""
        return self._note(self._handles[actor].node.options(max_task_retries=-1).remote())

    def restart(self, actor: int) -> None:
        """Kill an actor that does not answer; Ray starts it anew."""
        import ray

        ray.kill(self._handles[actor], no_restart=False)

    def answers(self, timeout_s: float) -> list[Answer]:
        """Return what has come, as soon as something has or time is up."""
        import ray

        if not self._asked:
            return []
        done, _ = ray.wait(list(self._asked), num_returns=1, timeout=timeout_s)
        if done:
            done, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        return [self._answer(reference) for reference in done]

    def _note(self, reference: Any) -> int:
        self._n_asked += 1
        self._asked[reference] = self._n_asked
        return self._n_asked

    def _answer(self, reference: Any) -> Answer:
        import ray
        from ray.exceptions import RayError, RayTaskError

        ticket = self._asked.pop(reference)
        try:
            return Answer(ticket, ray.get(reference), None)
        except RayTaskError as error:
            cause = error.cause
            return Answer(ticket, None, cause if isinstance(cause, Exception) else error)
        except RayError as error:
            return Answer(ticket, None, DiedError(_in_short(error)))


def _in_short(error: Exception) -> str:
    """Return what happened, and the last line: why, where an actor could not be made."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else type(error).__name__
