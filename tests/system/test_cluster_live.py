"""A run over three Ray nodes: as one daemon, and exact about what a dead host had."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.system.daemon import Daemon, Detector, command, kept_images, running, wait_for
from tests.system.frames import wire_series
from tests.system.ray_nodes import NAMES

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

KEEP_ALL = "[sink]\nmiss_sample_fraction = 1.0\n"
N_FRAMES = 30


class Run(Daemon):
    """`run --cluster` as its users meet it."""

    def __init__(
        self,
        folder: Path,
        address: str,
        detector: Detector,
        n_hosts: int = 3,
        out: Path | None = None,
    ) -> None:
        self._n_hosts = n_hosts
        words = ["run", "--source", detector.endpoint]
        words += ["--cluster", address, "--hosts", str(n_hosts)]
        super().__init__(folder, *words, config=KEEP_ALL, has_page=False, out=out)

    def wait_connected(self) -> None:
        """Return once all hosts live and are dealt frames."""
        n = self._n_hosts
        wait_for(lambda: self.n_alive() == n or not self.is_alive, f"{n} hosts", 150.0)
        self.wait_status(lambda s: s["connected"] == n, f"{n} connections")

    def n_alive(self) -> int:
        return sum(host["alive"] for host in self.status["hosts"])

    def host_on(self, node: str) -> str:
        """Return the name of the host on a node."""
        (name,) = [h["name"] for h in self.status["hosts"] if h["node"] == node and h["alive"]]
        return str(name)

    def processes_of(self, host: str) -> dict[str, int]:
        """Return job -> process id of a host's daemon and its children."""
        found = {}
        for pid, words in commands():
            if str(self.out / "hosts" / host) in words:
                found["shell" if words[1] == "-c" else "supervisor"] = pid
        for pid, words in commands():
            if "hitfinder.workers.child" in words and _parent(pid) == found["supervisor"]:
                found[words[words.index("hitfinder.workers.child") + 1]] = pid
        return found


def commands() -> list[tuple[int, list[str]]]:
    """Return process id and command line of every process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            found.append((int(entry.name), words))
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_three_hosts_are_as_one_and_a_dead_ones_losses_are_exact(tmp_path, ray_nodes):
    sent = {
        1: wire_series("v2", 1, N_FRAMES, has_spots=True),
        2: wire_series("v1", 2, N_FRAMES, has_spots=True),
    }
    with Detector() as detector:
        with Run(tmp_path / "cluster", ray_nodes.address, detector) as run:
            run.wait_ready()
            run.wait_connected()
            joined = {}
            for number, series in sent.items():
                detector.send(*series.messages)
                joined[number] = run.closed(number)
                assert len(joined[number].end["hosts"]) == 3
                assert all(sum(n.values()) for n in joined[number].end["hosts"].values())

            lose_a_host(run, detector, ray_nodes)

            again = wire_series("v2", 4, N_FRAMES)
            detector.send(*again.messages)
            closed = run.closed(4)
            assert (closed.n_judged, len(closed.end["hosts"])) == (N_FRAMES, 3)
            assert run.terminate() == 0, run.log
            checked = command("check", str(run.out), "--rejudge", limit_s=100)
            assert checked.returncode == 0, checked.stdout
            assert "4 series checked: adds up" in checked.stdout

        with running(tmp_path / "alone", detector, config=KEEP_ALL) as alone:
            for number, series in sent.items():
                detector.send(*series.messages)
                closed = alone.closed(number)
                assert closed.outcomes == joined[number].outcomes
                images, others = kept_images(closed.folder), kept_images(joined[number].folder)
                assert images.keys() == others.keys()
                assert all((images[f]["data"] == others[f]["data"]).all() for f in images)


def lose_a_host(run: Run, detector: Detector, ray_nodes) -> None:
    """Kill a node in a series, when its host has frames that are not judged; start another."""
    series = wire_series("v2", 3, 2 * N_FRAMES)
    since = len(run.results)

    def judged() -> set[int]:
        found = run.results[since:]
        return {m["frame"] for t, m in found if t.startswith("result.")}

    detector.send(series.start, *series.images[:30])
    wait_for(lambda: len(judged()) == 30, "the first frames")
    # Not the head, nor where the run's own process is: that would be the collector's death.
    node = next(n for n in NAMES[1:] if f"collector={n}" not in run.log)
    victim = run.host_on(node)
    processes = run.processes_of(victim)
    os.kill(processes["worker"], signal.SIGSTOP)
    detector.send(*series.images[30:45])
    wait_for(lambda: len(judged()) == 40, "the frames of the others")
    known = judged()
    for pid in processes.values():
        os.kill(pid, signal.SIGKILL)
    ray_nodes.kill(node)
    wait_for(lambda: run.n_alive() == 2, "the death to be noticed")
    detector.send(*series.images[45:], series.end)
    closed = run.closed(3, since)
    assert closed.end["balanced"]
    lost = {f: r["reason"] for f, r in closed.records.items() if r["outcome"] == "lost"}
    assert set(lost) == set(range(45)) - known
    assert set(lost.values()) == {f"{victim} on {node} died"}
    assert closed.counts == {"miss": 55, "lost": 5}
    ray_nodes.start(node)
    run.wait_connected()
    assert run.host_on(node) != victim


def restart_a_daemon(run: Run) -> None:
    """Kill a host's daemon; Ray starts another on the same node, under a name of its own."""
    victim = next(host for host in run.status["hosts"] if host["alive"])
    for pid in run.processes_of(victim["name"]).values():
        os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        alive = [h for h in run.status["hosts"] if h["alive"] and h["node"] == victim["node"]]
        return any(host["name"] != victim["name"] for host in alive)

    wait_for(is_back, "another daemon on the node", 150.0)
    run.wait_connected()


def test_a_daemon_is_started_anew_and_what_a_killed_run_leaves_is_joined(tmp_path, ray_nodes):
    series = wire_series("v2", 1, N_FRAMES)
    with Detector() as detector:
        with Run(tmp_path / "first", ray_nodes.address, detector, n_hosts=2) as run:
            run.wait_ready()
            run.wait_connected()
            restart_a_daemon(run)
            detector.send(series.start, *series.images[:20])
            wait_for(lambda: len(run.records) == 20, "the first frames")
            run.process.kill()
            wait_for(lambda: not run.is_alive, "its end")
        with Run(tmp_path / "second", ray_nodes.address, detector, 2, run.out) as run:
            run.wait_ready()
            folder = run.out / "series_1_UID1"
            wait_for((folder / "summary.json").exists, "the join", 60.0)
            assert run.terminate() == 0, run.log
    checked = command("check", str(run.out), limit_s=100)
    assert checked.returncode == 0, checked.stdout
    assert "1 series checked: adds up" in checked.stdout
    counts = json.loads((folder / "summary.json").read_text())["counts"]
    assert {name: n for name, n in counts.items() if n} == {"miss": 20, "missing": 10}


def test_more_hosts_than_nodes_and_a_daemon_that_cannot_start_are_refused(tmp_path, ray_nodes):
    (tmp_path / "config.toml").write_text('[gate]\nmodel = "/no/such.safetensors"\n')
    words = ["run", "--source", "tcp://127.0.0.1:9", "--results", "tcp://127.0.0.1:*"]
    words += ["--device", "cpu:1", "--cluster", ray_nodes.address, "--out"]
    # Side by side: the first waits for a node to come, which takes no room from the second.
    with ThreadPoolExecutor() as both:
        too_many = both.submit(command, *words, f"{tmp_path / '4'}", "--hosts", "4", limit_s=150)
        config = ("--config", f"{tmp_path / 'config.toml'}")
        broken = command(*words, f"{tmp_path / '2'}", "--hosts", "2", *config, limit_s=150)
        refused = too_many.result()
    assert refused.returncode == broken.returncode == 1
    assert re.search(r"--hosts 4: the cluster has 3 nodes", refused.stderr), refused.stderr
    assert "its daemon did not start" in broken.stderr, broken.stderr
    assert "name a weights file" in broken.stderr, broken.stderr
