"""The dashboard and the alerts ask for what a running daemon says, and the runbook knows them."""

from __future__ import annotations

import json
import re
from itertools import combinations

import pytest
import yaml
from tests.deploy.conftest import Beamline

# A metric's name, and what a selector behind it asks of labels.
METRIC = re.compile(r"\b(hitfinder_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
# Put on by Prometheus, not by the daemon.
PROMETHEUS_LABELS = {"job", "instance"}
SEVERITIES = {"page", "look"}


def panels(deploy):
    return json.loads((deploy / "grafana" / "hitfinder.json").read_text())["panels"]


def rules(deploy):
    return yaml.safe_load((deploy / "grafana" / "alerts.yaml").read_text())["groups"][0]["rules"]


def expressions(deploy) -> list[str]:
    """Return every question that dashboard and alerts ask of Prometheus."""
    dashboard = json.loads((deploy / "grafana" / "hitfinder.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = dashboard["templating"]["list"]
    asked += [v["query"]["query"] for v in variables if v["type"] == "query"]
    return asked + [rule["expr"] for rule in rules(deploy)]


def declared(page: str) -> set[str]:
    """Return the metrics that a daemon's page tells of."""
    return set(re.findall(r"^# TYPE (hitfinder_\w+) ", page, re.M))


@pytest.mark.system
def test_every_metric_and_label_asked_for_is_said_by_a_running_daemon(deploy, beamline: Beamline):
    page = beamline.page("/metrics")
    samples = re.findall(r"^(hitfinder_\w+)(?:\{(.*)\})? \S+$", page, re.M)
    said = [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels))) for name, labels in samples]
    # Declared, and without a value for as long as nothing is known.
    said += [(name, {}) for name in declared(page)]
    asked = [found for expr in expressions(deploy) for found in METRIC.findall(expr)]
    assert len({name for name, _ in asked}) > 10
    for name, selector in asked:
        wanted = {
            label: re.compile(value if how == "=~" else re.escape(value))
            for label, how, value in MATCHER.findall(selector)
            if label not in PROMETHEUS_LABELS
        }
        matching = [
            labels
            for metric, labels in said
            if metric == name
            and all(value.fullmatch(labels.get(k, "")) for k, value in wanted.items())
        ]
        assert matching, f"{name}{{{selector}}}"


@pytest.mark.system
def test_every_metric_of_the_daemon_is_shown(deploy, beamline: Beamline):
    shown = {name for expr in expressions(deploy) for name, _ in METRIC.findall(expr)}
    assert declared(beamline.page("/metrics")) == shown


def test_panels_have_their_own_number_place_and_words(deploy):
    of_all = panels(deploy)
    assert len({p["id"] for p in of_all}) == len(of_all)
    for panel in of_all:
        assert panel["title"]
        assert panel["description"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([p["gridPos"] for p in of_all], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


def test_every_alert_says_whom_it_calls_and_what_it_saw(deploy):
    for rule in rules(deploy):
        assert rule["labels"]["severity"] in SEVERITIES
        assert "$labels.instance" in rule["annotations"]["summary"]


def test_prometheus_reads_the_rules_and_scrapes_the_default_page(deploy):
    config = yaml.safe_load((deploy / "grafana" / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]
    for file in config["rule_files"]:
        assert (deploy / "grafana" / file).is_file()
    # The alert for a daemon that is gone asks for this job by name.
    assert any(f'job="{job["job_name"]}"' in rule["expr"] for rule in rules(deploy))
