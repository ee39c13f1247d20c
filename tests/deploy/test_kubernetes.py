"""The Kubernetes files: one daemon, its configuration ours, its probes pages that there are."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml

from hitfinder.workers.config import read_config
from hitfinder.workers.host import CHILDREN_BYTES
from hitfinder.workers.supervisor import READY_TIMEOUT_S


@pytest.fixture
def objects(deploy) -> dict[str, dict[str, Any]]:
    """Return kind -> object of all that the kustomization names."""
    folder = deploy / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    found = [d for name in listed for d in yaml.safe_load_all((folder / name).read_text())]
    assert len({d["kind"] for d in found}) == len(found)
    return {d["kind"]: d for d in found}


@pytest.fixture
def pod(objects) -> dict[str, Any]:
    """Return the pod's specification."""
    spec: dict[str, Any] = objects["Deployment"]["spec"]["template"]["spec"]
    return spec


def test_the_pod_runs_what_the_program_understands(deploy, pod, parses):
    (container,) = pod["containers"]
    understood = parses(container["args"])
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    assert mounts[str(understood["out"])] == "data"
    assert mounts[str(understood["config"].parent)] == "config"
    generated = yaml.safe_load((deploy / "kubernetes" / "kustomization.yaml").read_text())
    (made,) = generated["configMapGenerator"]
    assert understood["config"].name in made["files"]
    assert {v["name"]: v for v in pod["volumes"]}["config"]["configMap"]["name"] == made["name"]


def test_there_is_never_a_second_daemon_at_the_detector(objects):
    assert objects["Deployment"]["spec"]["replicas"] == 1
    assert objects["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.system
def test_probes_ask_for_pages_that_there_are(pod, beamline):
    (container,) = pod["containers"]
    ports = {p["name"] for p in container["ports"]}
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert beamline.page(container[name]["httpGet"]["path"])  # an error if it says no
        assert container[name]["httpGet"]["port"] in ports
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > READY_TIMEOUT_S


def test_ports_are_those_of_the_configuration(deploy, pod, objects):
    config = read_config(deploy / "kubernetes" / "config.toml")
    (container,) = pod["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert config.sink.results == f"tcp://0.0.0.0:{ports['results']}"
    assert config.http.bind == f"0.0.0.0:{ports['http']}"
    selector = objects["Service"]["spec"]["selector"]
    assert selector.items() <= _labels(objects).items()
    assert {p["targetPort"] for p in objects["Service"]["spec"]["ports"]} == set(ports)


def test_the_daemon_may_reach_the_detector_and_nothing_else(deploy, objects):
    (endpoint,) = read_config(deploy / "kubernetes" / "config.toml").source.endpoints
    host, _, port = endpoint.removeprefix("tcp://").partition(":")
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["podSelector"]["matchLabels"].items() <= _labels(objects).items()
    assert policy["egress"] == [
        {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"port": int(port)}]}
    ]


def test_the_pod_may_do_nothing_but_write_its_volumes(pod):
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_full_ring_and_all_threads_fit(deploy, pod):
    config = read_config(deploy / "kubernetes" / "config.toml")
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    assert limits == container["resources"]["requests"]
    need = config.ring.slots * config.ring.slot_bytes + CHILDREN_BYTES
    assert int(limits["memory"].removesuffix("Gi")) << 30 > need
    (device,) = config.workers.devices
    n_workers = int(device.removeprefix("cpu:"))
    assert n_workers * (1 + config.n_decoders(n_workers)) <= int(limits["cpu"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_takes_the_kustomization(deploy):
    asked = subprocess.run(
        ["kubectl", "kustomize", str(deploy / "kubernetes")], capture_output=True, text=True
    )
    assert (asked.returncode, asked.stderr) == (0, "")
    kinds = {d["kind"] for d in yaml.safe_load_all(asked.stdout)}
    assert "ConfigMap" in kinds


def _labels(objects: dict[str, dict[str, Any]]) -> dict[str, str]:
    labels: dict[str, str] = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    return labels
