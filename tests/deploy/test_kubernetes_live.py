"""The recipe of a live run over several hosts: a collector, and a daemon on each node."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import yaml

from hitfinder.workers.cluster_live import STOP_S
from hitfinder.workers.config import read_config
from hitfinder.workers.host import CHILDREN_BYTES


@pytest.fixture
def objects(deploy) -> dict[str, dict[str, Any]]:
    """Return kind -> object of all that the kustomization names."""
    folder = deploy / "kubernetes" / "live_cluster"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    found = [d for name in listed for d in yaml.safe_load_all((folder / name).read_text())]
    assert len({d["kind"] for d in found}) == len(found)
    return {d["kind"]: d for d in found}


@pytest.fixture
def config(deploy):
    """Return what all daemons have in common."""
    return read_config(deploy / "kubernetes" / "live_cluster" / "config.toml")


def pod(objects, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a pod's specification and its one container."""
    spec = objects[kind]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def started(container: dict[str, Any], program: str) -> list[str]:
    """Return the words of a program's call in a container's shell line."""
    assert container["command"] == ["/bin/sh", "-c"]
    (line,) = container["args"]
    words = shlex.split(line)
    first = words.index(program)
    rest = words[first + 1 :]
    return rest[: rest.index("&&")] if "&&" in rest else rest


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_the_head_runs_what_the_program_understands(objects, parses):
    spec, container = pod(objects, "Deployment")
    understood = parses(started(container, "hitfinder-stream"))
    assert understood["cluster"] == "auto"
    assert understood["hosts"] == objects["StatefulSet"]["spec"]["replicas"]
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert mounts[str(understood["out"])] == "data"
    assert mounts[str(understood["config"].parent)] == "config"
    assert spec["terminationGracePeriodSeconds"] > STOP_S


def test_hosts_join_the_head_and_share_its_folder(objects):
    _, head = pod(objects, "Deployment")
    spec, host = pod(objects, "StatefulSet")
    service = objects["Service"]
    address, _, port = option(started(host, "ray"), "--address").partition(":")
    assert address == service["metadata"]["name"]
    assert port == option(started(head, "ray"), "--port")
    assert int(port) in {p["port"] for p in service["spec"]["ports"]}
    assert host["volumeMounts"] == head["volumeMounts"]
    assert spec["volumes"] == pod(objects, "Deployment")[0]["volumes"]
    assert objects["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert host["image"] == head["image"]


def test_the_head_takes_no_frame_and_no_two_hosts_are_on_one_node(objects):
    _, head = pod(objects, "Deployment")
    assert option(started(head, "ray"), "--num-cpus") == "0"
    spec, host = pod(objects, "StatefulSet")
    assert option(started(host, "ray"), "--num-cpus") == host["resources"]["limits"]["cpu"]
    affinity = spec["affinity"]["podAntiAffinity"]
    (rule,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    labels = objects["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert rule["labelSelector"]["matchLabels"] == labels
    assert rule["topologyKey"] == "kubernetes.io/hostname"


def test_ports_and_detector_are_those_of_the_configuration(objects, config):
    _, head = pod(objects, "Deployment")
    ports = {p["name"]: p["containerPort"] for p in head["ports"]}
    assert config.sink.results == f"tcp://0.0.0.0:{ports['results']}"
    host, _, port = config.source.endpoints[0].removeprefix("tcp://").partition(":")
    allowed = [e for e in objects["NetworkPolicy"]["spec"]["egress"] if "ipBlock" in e["to"][0]]
    assert allowed == [
        {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"port": int(port)}]}
    ]


def test_a_full_ring_and_all_threads_fit_on_a_host(objects, config):
    _, container = pod(objects, "StatefulSet")
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    store = int(option(started(container, "ray"), "--object-store-memory"))
    need = config.ring.slots * config.ring.slot_bytes + CHILDREN_BYTES + store
    assert int(limits["memory"].removesuffix("Gi")) << 30 > need
    (device,) = config.workers.devices
    n_workers = int(device.removeprefix("cpu:"))
    assert n_workers * (1 + config.n_decoders(n_workers)) <= int(limits["cpu"])


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_pod_may_do_nothing_but_write_its_volumes(objects, kind):
    spec, container = pod(objects, kind)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
