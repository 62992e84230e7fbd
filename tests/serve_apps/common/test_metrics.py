import re
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from serve_apps.common import metrics
from serve_apps.common.metrics import ALL, Metric, create


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_names_follow_prometheus(metric: Metric) -> None:
    assert re.fullmatch(r"llm_[a-z_]+", metric.name)
    assert not metric.name.endswith("_total"), "Ray adds it"
    assert metric.description.endswith(".")
    assert bool(metric.boundaries) == (metric.kind == "Histogram")


def test_every_metric_of_the_module_is_listed() -> None:
    assert {m for m in vars(metrics).values() if isinstance(m, Metric)} == set(ALL)


def test_a_counters_series_ends_in_total() -> None:
    assert Metric("Counter", "llm_x", "X.").series == "ray_llm_x_total"
    assert Metric("Gauge", "llm_x", "X.").series == "ray_llm_x"


def test_a_metric_is_made_by_the_module_that_is_scraped() -> None:
    made: list[dict[str, Any]] = []

    def histogram(name: str, **options: Any) -> SimpleNamespace:
        made.append({"name": name, **options})
        return SimpleNamespace()

    module = ModuleType("serve_metrics")
    vars(module)["Histogram"] = histogram
    create(Metric("Histogram", "llm_x", "X.", ("model",), (1.0, 2.0)), module)
    assert made == [{"name": "llm_x", "description": "X.", "tag_keys": ("model",), "boundaries": [1.0, 2.0]}]
