"""Three Ray nodes on this machine: each its own processes, joined over loopback.

One rule: a node is killed as a host dies, without a word; a test that kills one starts another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ray.cluster_utils import Cluster

NAMES = ("one", "two", "three")
OBJECT_STORE_BYTES = 100_000_000
# Nothing is sent home, and one that dies is noticed before a test's deadline.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}


class RayNodes:
    """Node processes with one CPU each; the first holds the cluster's head.

    Attributes:
        address: for `--cluster`.
    """

    def __init__(self, folder: str) -> None:
        self._cluster = Cluster()
        self._nodes = {
            name: self._cluster.add_node(
                node_name=name,
                num_cpus=1,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                wait=False,
                **({"temp_dir": folder} if name == NAMES[0] else {}),
            )
            for name in NAMES
        }
        self._cluster.wait_for_nodes()
        self.address: str = self._cluster.address

    def kill(self, name: str) -> None:
        """Kill a node's processes, its actors' with them."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def start(self, name: str) -> None:
        """Start a node, e.g. in the place of one that was killed."""
        self._nodes[name] = self._cluster.add_node(
            node_name=name, num_cpus=1, object_store_memory=OBJECT_STORE_BYTES
        )

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


@contextmanager
def three_nodes() -> Iterator[RayNodes]:
    """Yield the nodes; whatever they started is gone afterwards."""
    # Short: the path of a socket in it may have 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    nodes = RayNodes(folder)
    try:
        yield nodes
    finally:
        nodes.close()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
