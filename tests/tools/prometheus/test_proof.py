"""A real Prometheus on a real exporter: what has series is told from what has none."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from tools.prometheus import proof
from tools.prometheus.expressions import Selector
from tools.prometheus.plot import amount, draw, legend, stretches
from tools.prometheus.proof import NEEDS, Need, needs, without_data
from tools.prometheus.scrape import static
from tools.prometheus.server import DidNotStart, Line, Prometheus, prometheus

#: A busy machine takes its time for two scrapes.
PATIENCE_S = 60
GROUP = {
    "name": "test",
    "rules": [
        {"alert": "Failing", "expr": 'rate(asked_total{status="500"}[1m]) > 100'},
        {"alert": "Gone", "expr": "absent_series > 1"},
    ],
}


def until(look: Callable[[], Any]) -> None:
    """Wait until ``look`` sees something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, and an exporter that it has scraped more than once."""
    registry = CollectorRegistry()
    asked = Counter("asked", "Requests.", ["status"], registry=registry)
    for status in ("200", "500"):
        asked.labels(status).inc()
    Gauge("DCGM_FI_DEV_FAN_SPEED", "Never set: no sample.", ["gpu"], registry=registry)
    Histogram("late_seconds", "Nothing observed.", registry=registry)
    exporter, thread = start_http_server(0, "127.0.0.1", registry)
    configs = [static("test", [f"127.0.0.1:{exporter.server_port}"], {"ray_io_cluster": "here"}, "1s")]
    with prometheus(tmp_path_factory.mktemp("prometheus"), configs, [GROUP], "1s") as running:
        until(lambda: running.values("count_over_time(asked_total[1m]) > 1"))
        yield running
    exporter.shutdown()
    exporter.server_close()
    thread.join()


def rendered(*expressions: str, rules: bool = False) -> list[dict[str, Any]]:
    """A dashboard with a panel for each expression, and the rules if asked for."""
    target = {"legendFormat": "{{status}}"}
    panels = [
        {
            "type": "timeseries",
            "title": f"panel {number}",
            "gridPos": {"x": 0, "y": 8 * number, "w": 12, "h": 8},
            "fieldConfig": {"defaults": {"unit": "reqps"}},
            "targets": [{**target, "expr": expression}],
        }
        for number, expression in enumerate(expressions)
    ]
    dashboard = {
        "uid": "test",
        "title": "test",
        "templating": {"list": [{"name": "cluster", "allValue": ".*"}]},
        "panels": panels,
    }
    rule = {"kind": "PrometheusRule", "spec": {"groups": [GROUP]}}
    return [{"kind": "ConfigMap", "data": {"test.json": json.dumps(dashboard)}}, *([rule] if rules else [])]


def test_what_is_scraped_has_data(server: Prometheus) -> None:
    objects = rendered('sum by (status) (rate(asked_total{ray_io_cluster=~"$cluster"}[$__rate_interval]))', "1 + 1")
    assert without_data(server, objects, []) == []


def test_a_panel_without_series_is_told_with_its_selector(server: Prometheus) -> None:
    objects = rendered('sum(rate(asked_total{status="429"}[1m]))', "asked_total")
    assert without_data(server, objects, []) == ['test: panel 0: no series of asked_total{status="429"}']


def test_a_panel_whose_series_give_no_number_is_told(server: Prometheus) -> None:
    nothing = "histogram_quantile(0.9, rate(late_seconds_bucket[1m]))"
    joined = "asked_total / on (status) late_seconds_count"
    assert without_data(server, rendered(nothing, joined), []) == [
        f"test: panel 0: its series give no number: {nothing}",
        f"test: panel 1: its series give no number: {joined}",
    ]


def test_only_what_is_lacking_here_is_excused(server: Prometheus) -> None:
    objects = rendered("avg(DCGM_FI_DEV_FAN_SPEED)")
    assert without_data(server, objects, ["gpu", "karpenter"]) == []
    assert without_data(server, objects, ["karpenter"]) == ["test: panel 0: no series of DCGM_FI_DEV_FAN_SPEED"]
    mixed = rendered("avg(DCGM_FI_DEV_FAN_SPEED) + nobodys")
    assert without_data(server, mixed, ["gpu"]) == ["test: panel 0: no series of DCGM_FI_DEV_FAN_SPEED, nobodys"]


def test_series_of_what_is_lacking_may_stand_still(server: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "needs", lambda: {"late": Need("whoever is late", ("late_seconds_.*",))})
    quantile = "histogram_quantile(0.9, rate(late_seconds_bucket[1m]))"
    assert without_data(server, rendered(quantile), ["late"]) == []
    mixed = f"{quantile} + sum(asked_total)"
    assert without_data(server, rendered(mixed), ["late"]) == [f"test: panel 0: its series give no number: {mixed}"]


def test_an_alert_that_is_silent_needs_series_all_the_same(server: Prometheus) -> None:
    assert without_data(server, rendered(rules=True), []) == ["Gone: no series of absent_series"]


def test_its_rules_are_evaluated_and_its_targets_scraped(server: Prometheus) -> None:
    until(lambda: {rule["health"] for rule in server.rules()} == {"ok"})
    assert [(one["health"], one["labels"]["ray_io_cluster"]) for one in server.targets()] == [("up", "here")]


def test_an_expression_that_is_none_is_told_in_prometheus_words(server: Prometheus) -> None:
    with pytest.raises(ValueError, match=r"sum\(: .*parse error"):
        server.values("sum(")


def test_a_refused_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match="no_such_key"), prometheus(tmp_path, [{"no_such_key": 1}]):
        pass


def test_panels_are_drawn(server: Prometheus, tmp_path: Path) -> None:
    (dashboard,) = [json.loads(rendered("asked_total", "nobodys")[0]["data"]["test.json"])]
    (file,) = draw(server, [dashboard], tmp_path, 60)
    texts = [text.text for text in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]
    assert "200: 1" in texts
    assert texts[-1] == "no data"


def test_a_curve_has_a_gap_where_nothing_was() -> None:
    assert stretches([(0, 1), (1, 2), (5, 3)], 1.5) == [[(0, 1), (1, 2)], [(5, 3)]]


def test_numbers_and_legends_are_short() -> None:
    assert [amount(value) for value in (0, 0.45, 12_345, 7, 2.5e9)] == ["0", "450m", "12.3k", "7", "2.5G"]
    assert legend("{{model}} {{ kind }}: {{none}}", Line({"model": "chat", "kind": "prompt"}, [])) == "chat prompt: "


def test_every_need_says_who_exports_its_series() -> None:
    assert {"gpu", "karpenter"} <= needs().keys()
    assert all(need.exporter and need.series for need in needs().values())
    assert NEEDS.read_text().startswith("#")


def test_a_need_has_names_as_patterns_and_whole_selectors() -> None:
    need = Need("somebody", ("a_.*", 'b{c="d"}'))
    assert need.has(Selector("a_total", "a_total"))
    assert need.has(Selector("b", 'b{c="d"}'))
    assert not need.has(Selector("b", 'b{c="e"}'))
