from typing import Any

from tests.chart.pods import pods
from tests.chart.render import environment, of_kind, ray_cluster, render_chart, worker_group

STORE = {"externalSecrets": {"store": {"name": "vault"}}}
#: Every Secret that can be fetched, and the key it has.
FETCHED = {
    "llm-serving-api-keys": "llm/keys",
    "llm-serving-internal": "llm/internal",
    "llm-serving-upstreams": "llm/providers",
    "llm-serving-tools": "llm/tools",
    "llm-serving-hugging-face": "llm/hub",
    "llm-serving-ray-token": "llm/ray",
    "llm-serving-redis-password": "llm/redis",
    "llm-serving-milvus": "llm/milvus",
}
VALUES: dict[str, Any] = {
    "security": {
        **STORE,
        "apiKeys": {"externalKey": "llm/keys"},
        "internal": {"externalKey": "llm/internal"},
        "upstreams": {"externalKey": "llm/providers"},
        "tools": {"externalKey": "llm/tools"},
        "huggingFace": {"externalKey": "llm/hub"},
        "ray": {"externalKey": "llm/ray"},
    },
    "redis": {"address": "redis.example.com:6379", "externalKey": "llm/redis"},
    "milvus": {"enabled": True, "externalKey": "llm/milvus"},
}


def keys(values: dict[str, Any] | None = None) -> dict[str, str]:
    """What is fetched for each Secret."""
    found = of_kind(render_chart(values), "ExternalSecret")
    return {one["spec"]["target"]["name"]: one["spec"]["dataFrom"][0]["extract"]["key"] for one in found.values()}


def test_there_is_none_unless_a_key_is_named() -> None:
    assert keys() == {}


def test_each_is_fetched_from_the_store_under_the_name_that_pods_use() -> None:
    objects = render_chart(VALUES)
    assert keys(VALUES) == FETCHED
    for one in of_kind(objects, "ExternalSecret").values():
        assert one["spec"]["secretStoreRef"] == {"kind": "ClusterSecretStore", "name": "vault"}
        assert one["spec"]["refreshInterval"] == "1h"
    assert used(objects) == set(FETCHED)


def used(objects: list[dict[str, Any]]) -> set[str]:
    """The Secrets of the release that its pods and KubeRay read."""
    cluster = ray_cluster(objects)
    volumes = [volume for pod in pods(objects).values() for volume in pod["spec"]["volumes"] if "secret" in volume]
    hub = environment(worker_group(objects, "l4"))["HF_TOKEN"]["secretKeyRef"]["name"]
    redis = cluster["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
    token = cluster["authOptions"]["secretName"]
    return {hub, redis, token, *(volume["secret"]["secretName"] for volume in volumes)}


def test_the_chart_makes_none_of_them_itself() -> None:
    assert of_kind(render_chart(VALUES), "Secret") == {}


def test_what_is_not_used_is_not_fetched() -> None:
    values = {**VALUES, "security": {**VALUES["security"], "auth": "none"}}
    values["security"]["ray"] = {"auth": "none", "externalKey": "llm/ray"}
    assert set(FETCHED) - set(keys(values)) == {"llm-serving-api-keys", "llm-serving-ray-token"}


def test_the_store_may_be_the_namespaces_own() -> None:
    store = {"store": {"name": "mine", "kind": "SecretStore"}, "refreshInterval": "5m"}
    (one,) = of_kind(
        render_chart({"security": {"externalSecrets": store, "internal": {"externalKey": "llm/internal"}}}),
        "ExternalSecret",
    ).values()
    assert one["spec"]["secretStoreRef"] == {"kind": "SecretStore", "name": "mine"}
    assert one["spec"]["refreshInterval"] == "5m"
