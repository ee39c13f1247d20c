"""What runbook, tuning and threat notes say of the program is so: commands, words, figures."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from tests.deploy.conftest import Beamline

from hitfinder.stream.connection import RECEIVE_BYTES
from hitfinder.stream.results import OUTCOMES
from hitfinder.workers.config import Config

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("runbook.md", "tuning.md", "threats.md")
FOLDERS = ("stream", "workers", "models")


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its head."""
    table = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(params=DOCUMENTS)
def text(deploy: Path, request: pytest.FixtureRequest) -> str:
    """Return one document after the other."""
    return (deploy / request.param).read_text()


@pytest.fixture
def runbook(deploy: Path) -> str:
    """Return the runbook."""
    return (deploy / "runbook.md").read_text()


def test_every_command_is_one_that_the_program_understands(text, parses):
    lines = re.findall(r"^    hitfinder-stream (.+)$", text, re.M)
    lines += re.findall(r"`hitfinder-stream (.+?)`", text)
    for line in lines:
        parses(shlex.split(line))


def test_every_file_that_is_named_is_there(deploy, text):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    named = [ROOT / name for name in re.findall(r"(?<![\w/])deploy/[\w./-]+", text)]
    named += [ROOT / name for name in re.findall(r"`((?:stream|workers|models)/\w+\.py)`", text)]
    for path in [*named, *(deploy / link for link in links)]:
        assert path.exists(), path


def test_every_setting_that_is_named_is_one_of_ours(text):
    sections = {name: getattr(Config(), name) for name in Config.__struct_fields__}
    for section, key in re.findall(rf"`({'|'.join(sections)})\.(\w+)", text):
        assert key in sections[section].__struct_fields__, f"{section}.{key}"


def test_every_alert_has_its_heading_and_every_heading_its_alert(deploy, runbook):
    rules = yaml.safe_load((deploy / "grafana" / "alerts.yaml").read_text())["groups"][0]["rules"]
    alarms = runbook.partition("## Alarms\n")[2].partition("\n## ")[0]
    assert sorted(r["alert"] for r in rules) == sorted(re.findall(r"^### (\w+)$", alarms, re.M))
    severities = set(re.findall(r"`(\w+)`: ", alarms.partition("###")[0]))
    assert {r["labels"]["severity"] for r in rules} == severities


@pytest.mark.system
def test_the_counters_are_those_of_a_running_daemon(runbook, beamline: Beamline):
    table = rows(runbook, "Counters")
    metrics = [name for row in table for name in code(row[0])]
    declared = re.findall(r"^# TYPE (hitfinder_\w+) ", beamline.page("/metrics"), re.M)
    assert sorted(metrics) == sorted(declared)
    keys = {name for row in table for name in code(row[1])}
    envelope = {"schema", "seq", "t_published_ns"}
    assert keys == set(beamline.daemon.status) - envelope
    (frames,) = (row for row in table if "hitfinder_frames_total" in row[0])
    assert [w for w in code(frames[2]) if w != "outcome"] == [o.value for o in OUTCOMES]


def test_the_log_says_these_words(runbook):
    source = "\n".join(p.read_text() for folder in FOLDERS for p in (ROOT / folder).glob("*.py"))
    # A text goes on in the next line of the source.
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    for row in rows(runbook, "What the log says"):
        (words,) = code(row[0])
        assert words in joined


def test_default_addresses_are_those_of_the_program(runbook):
    table = {row[0].partition(",")[0]: row for row in rows(runbook, "Whom the daemon talks to")}
    assert code(table["results"][2]) == [Config().sink.results]
    assert code(table["status page"][2]) == [Config().http.bind]


def test_the_limits_are_those_in_force(deploy):
    table = rows((deploy / "threats.md").read_text(), "Limits on what comes over the wire")
    assert len(table) > 10
    for what, limit, constant, file in table:
        module = import_module(f"hitfinder.{code(file)[0].removesuffix('.py').replace('/', '.')}")
        stated = int(re.match(r"\d+", limit)[0])
        assert getattr(module, code(constant)[0]) == stated, what


def test_kernel_settings_are_ones_that_this_kernel_has(deploy):
    path = deploy / "host" / "hitfinder-stream.conf"
    lines = [x for x in path.read_text().splitlines() if x and not x.startswith("#")]
    for line in lines:
        name, value = re.fullmatch(r"([a-z_.]+) = (\d+)", line).groups()
        assert int(value) >= 0
        assert (Path("/proc/sys") / name.replace(".", "/")).is_file(), name


def test_the_link_file_names_a_card_and_jumbo_frames(deploy):
    link = ConfigParser(interpolation=None)
    link.read_string((deploy / "host" / "10-detector.link").read_text())
    assert "MACAddress" in link["Match"]
    assert link["Link"]["MTUBytes"] == "9000"


def test_the_kernel_grants_what_the_receiver_asks_for(deploy):
    settings = (deploy / "host" / "hitfinder-stream.conf").read_text()
    granted = int(re.search(r"^net\.core\.rmem_max = (\d+)$", settings, re.M)[1])
    assert granted >= RECEIVE_BYTES
