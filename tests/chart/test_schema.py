"""values.schema.json: up to date, closed, and its messages name the key."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.render import CHART, CHAT, DOCS, EMBEDDER, RenderRefused, render_chart
from tools.chart import reference, schema


def test_it_is_up_to_date() -> None:
    assert schema.SCHEMA.read_text() == schema.text(), "run `make generate`"


def test_the_page_of_every_value_is_up_to_date() -> None:
    assert reference.PAGE.read_text() == reference.text(), "run `make generate`"


def objects(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object, with where it is."""
    if isinstance(node, dict):
        if "object" in node.get("type", []):
            yield path, node
        for key, child in node.items():
            yield from objects(child, f"{path}/{key}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from objects(child, f"{path}/{index}")


#: Passed on as they are; their owner's schema checks them.
VERBATIM = {
    "annotations",
    "arguments",
    "clients",
    "config",
    "dashboardClients",
    "disruption",
    "egress",
    "env",
    "extra",
    "extraObjects",
    "global",
    "labels",
    "limits",
    "metricsClients",
    "nodeSelector",
    "operators",
    "parameters",
    "parentRefs",
    "podTemplate",
    "policy",
    "pullSecrets",
    "requirements",
    "resources",
    "spec",
    "taints",
    "tls",
    "tolerations",
}


def test_every_object_the_chart_or_an_application_reads_is_closed() -> None:
    for path, node in objects(schema.build()):
        verbatim = VERBATIM & set(path.split("/"))
        named_entries = isinstance(node.get("additionalProperties"), dict)
        assert verbatim or named_entries or node.get("additionalProperties") is False, path


def test_every_key_has_a_meaning() -> None:
    assert [row.path for row in reference.rows() if not row.description] == []


def test_every_default_is_written_out_in_the_order_of_the_schema() -> None:
    written = yaml.safe_load((CHART / "values.yaml").read_text())
    assert list(written) == [key for key in schema.build()["properties"] if key != "global"]


MISSPELT: dict[str, tuple[dict[str, Any], str]] = {
    "top level": ({"gatway": {}}, "at '': additional properties 'gatway' not allowed"),
    "a model's key": (
        {"models": {"chat": {**CHAT, "replcias": {"min": 1}}}},
        "at '/models/chat': additional properties 'replcias' not allowed",
    ),
    "an engine argument": (
        {"models": {"chat": {**CHAT, "engine": {"tensor_paralel_size": 4}}}},
        "at '/models/chat/engine': additional properties 'tensor_paralel_size' not allowed",
    ),
    "an autoscaling key": (
        {"models": {"chat": {**CHAT, "autoscaling": {"max_replica": 4}}}},
        "at '/models/chat/autoscaling': additional properties 'max_replica' not allowed",
    ),
    "a sampling default": (
        {"models": {"chat": {**CHAT, "sampling": {"temprature": 0}}}},
        "at '/models/chat/sampling': additional properties 'temprature' not allowed",
    ),
    "a gateway argument": (
        {"gateway": {"maxConcurrentRequest": 1}},
        "at '/gateway': additional properties 'maxConcurrentRequest' not allowed",
    ),
    "the gateway's auth, which is security's": (
        {"gateway": {"auth": "none"}},
        "at '/gateway': additional properties 'auth' not allowed",
    ),
    "the gateway's Redis, which is the release's": (
        {"gateway": {"redis": "redis://redis:6379"}},
        "at '/gateway': additional properties 'redis' not allowed",
    ),
    "a route's key": (
        {"gateway": {"routes": {"assistant": {"versions": [], "wieght": 1}}}},
        "at '/gateway/routes/assistant': additional properties 'wieght' not allowed",
    ),
    "a limit": (
        {"gateway": {"tenants": {"team-a": {"requestPerMinute": 1}}}},
        "at '/gateway/tenants/team-a': additional properties 'requestPerMinute' not allowed",
    ),
    "a pipeline's key": (
        {"models": {"chat": CHAT, "embedder": EMBEDDER}, "rag": {"docs": {**DOCS, "topk": 3}}},
        "at '/rag/docs': additional properties 'topk' not allowed",
    ),
    "a setting of batches": (
        {"batch": {"concurency": 3}},
        "at '/batch': additional properties 'concurency' not allowed",
    ),
    "an agent's limit": (
        {"agent": {"helper": {"model": "chat", "limits": {"step": 3}}}},
        "at '/agent/helper/limits': additional properties 'step' not allowed",
    ),
    "a tool's key": (
        {"agent": {"helper": {"model": "chat", "tools": {"files": {"mcp": {"url": "https://a.example", "tool": []}}}}}},
        "at '/agent/helper/tools/files/mcp': additional properties 'tool' not allowed",
    ),
    "an override's key": (
        {"overrides": {"models": {"chat": {"sauce": "s3://x"}}}},
        "at '/overrides/models/chat': additional properties 'sauce' not allowed",
    ),
    "a group's key": (
        {"workerGroups": {"l4": {"maxReplica": 1}}},
        "at '/workerGroups/l4': additional properties 'maxReplica' not allowed",
    ),
    "a pool's key": (
        {"nodePools": {"gpu": {"nodeclass": "gpu"}}},
        "at '/nodePools/gpu': additional properties 'nodeclass' not allowed",
    ),
    "a monitor's key": (
        {"monitoring": {"podMonitor": {"enable": True}}},
        "at '/monitoring/podMonitor': additional properties 'enable' not allowed",
    ),
}


@pytest.mark.parametrize(("values", "message"), MISSPELT.values(), ids=list(MISSPELT))
def test_a_misspelt_key_is_refused_with_its_path(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderRefused) as refusal:
        render_chart(values)
    assert message in str(refusal.value)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an accelerator without a type": (
        {"models": {"chat": {**CHAT, "accelerator": {"count": 2}}}},
        "at '/models/chat/accelerator': missing property 'type'",
    ),
    "a route without versions": (
        {"models": {"chat": CHAT}, "gateway": {"routes": {"assistant": {"versions": []}}}},
        "at '/gateway/routes/assistant/versions': minItems: got 0, want 1",
    ),
    "an unknown runtime": (
        {"models": {"chat": {"runtime": "docker", "url": "http://vllm:8000"}}},
        "at '/models/chat/runtime': value must be one of 'ray', 'standalone', 'external'",
    ),
    "an alias with a space": (
        {"models": {"chat": CHAT}, "gateway": {"routes": {"assistant": {"versions": [], "aliases": ["gpt 4"]}}}},
        "at '/gateway/routes/assistant/aliases/0': 'gpt 4' does not match pattern",
    ),
    "a text for a number": (
        {"models": {"chat": {**CHAT, "maxOngoingRequests": "many"}}},
        "at '/models/chat/maxOngoingRequests': got string, want null or integer",
    ),
    "an unknown task": (
        {"models": {"chat": {**CHAT, "task": "rerank"}}},
        "at '/models/chat/task': value must be one of 'generate', 'embed', 'score', 'transcribe'",
    ),
    "no replicas at most": (
        {"models": {"chat": {**CHAT, "replicas": {"max": 0}}}},
        "at '/models/chat/replicas/max': minimum: got 0, want 1",
    ),
    "too much of the GPU": (
        {"models": {"chat": {**CHAT, "engine": {"gpu_memory_utilization": 1.5}}}},
        "at '/models/chat/engine/gpu_memory_utilization': maximum: got 1.5, want 1",
    ),
    "a default that is nulled away": ({"gateway": {"port": None}}, "at '/gateway': missing property 'port'"),
    "idle for less than no time": (
        {"workerGroups": {"l4": {"idleTimeoutSeconds": -1}}},
        "at '/workerGroups/l4/idleTimeoutSeconds': minimum: got -1, want 0",
    ),
    "a drain shorter than Ray's own": (
        {"maxDrainSeconds": 30},
        "at '/maxDrainSeconds': minimum: got 30, want 35",
    ),
    "a cluster that is deleted before the switch": (
        {"rayClusterDeletionDelaySeconds": -1},
        "at '/rayClusterDeletionDelaySeconds': minimum: got -1, want 0",
    ),
    "a Ray version that is none": (
        {"rayVersion": "latest"},
        "at '/rayVersion': 'latest' does not match pattern",
    ),
}


@pytest.mark.parametrize(("values", "message"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_value_is_refused_with_its_path(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderRefused) as refusal:
        render_chart(values)
    assert message in str(refusal.value)


def test_a_parent_charts_globals_are_let_through() -> None:
    assert render_chart({"global": {"team": "search"}})


def test_it_is_plain_json_schema_draft_7() -> None:
    text = json.dumps(schema.build())
    assert '"http://json-schema.org/draft-07/schema#"' in text
    assert not any(word in text for word in ('"$defs"', '"prefixItems"', '"unevaluatedProperties"', '"default"'))
