from typing import Any

import pytest

from tests.chart.serve_schema import unknown_keys


def config(**deployment: Any) -> dict[str, Any]:
    return {"applications": [{"name": "a", "import_path": "a:b", "deployments": [{"name": "D", **deployment}]}]}


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"proxy_locations": "EveryNode"}, "proxy_locations"),
        ({"http_options": {"prot": 8000}}, "http_options.prot"),
        ({"logging_config": {"encodings": "JSON"}}, "logging_config.encodings"),
        ({"applications": [{"argz": {}}]}, "applications[0].argz"),
        (config(max_concurrent_queries=1), "applications[0].deployments[0].max_concurrent_queries"),
        (
            config(ray_actor_options={"num_cpu": 1}),
            "applications[0].deployments[0].ray_actor_options.num_cpu",
        ),
        (
            config(autoscaling_config={"max_replica": 3}),
            "applications[0].deployments[0].autoscaling_config.max_replica",
        ),
        (
            config(backpressure_config={"status": 429}),
            "applications[0].deployments[0].backpressure_config.status",
        ),
    ],
)
def test_a_misspelt_key_is_found_at_any_depth(data: dict[str, Any], path: str) -> None:
    assert list(unknown_keys(data)) == [path]


def test_what_is_the_applications_own_is_not_looked_into() -> None:
    data = config(user_config={"anything": 1}, autoscaling_config={"max_replicas": 3})
    data["applications"][0]["args"] = {"anything": 1}
    assert list(unknown_keys(data)) == []
