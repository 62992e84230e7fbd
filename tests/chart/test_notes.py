"""NOTES.txt and _warnings.tpl: how to reach it, and what is unsafe."""

from typing import Any

import pytest

from tests.chart.render import CHAT, DOCS, EMBEDDER, notes
from tests.chart.test_ec2nodeclass import SPEC as NODE_CLASS
from tools.kube_apiserver import ApiServer

MODELS: dict[str, Any] = {"chat": CHAT, "embedder": EMBEDDER}
#: Values that give no warning.
QUIET: dict[str, Any] = {"models": MODELS, "security": {"apiKeys": {"existingSecret": "our-keys"}}}


def warnings(values: dict[str, Any]) -> list[str]:
    return [line for line in notes(values).splitlines() if line.startswith("[WARNING]")]


def test_the_notes_say_what_is_served_how_to_wait_and_how_to_call() -> None:
    agent = {"helper": {"model": "chat", "tools": {"sums": {"calculator": {}}, "docs": {"rag": {"pipeline": "docs"}}}}}
    text = notes({**QUIET, "rag": {"docs": DOCS}, "agent": agent})
    assert "chat (generate) from hf://org/chat@main, in worker group l4" in text
    assert "docs (RAG over chat and embedder)" in text
    assert "helper (agent over chat, with docs, sums)" in text
    assert "wait rayservice/llm-serving --for=condition=Ready" in text
    assert "{.status.activeServiceStatus.applicationStatuses}" in text
    assert "helm -n default test llm-serving --timeout 1200s" in text
    assert "port-forward svc/llm-serving-serve-svc 8000" in text
    assert 'curl -H "Authorization: Bearer $KEY" $URL/v1/models' in text


def test_the_notes_name_standalone_models_by_their_deployment() -> None:
    text = notes({**QUIET, "models": {"chat": {**CHAT, "runtime": "standalone"}}})
    assert "chat (generate) from hf://org/chat@main, in Deployment llm-serving-model-chat" in text
    assert warnings({**QUIET, "models": {"chat": {**CHAT, "runtime": "standalone", "source": "hf://org/chat"}}}) == [
        "[WARNING] models.chat.source names no revision: replicas may start with different weights. Add @<commit>."
    ]


def requests(values: dict[str, Any]) -> list[str]:
    """The two lines about what all pods request."""
    return notes(values).partition("request, all together:\n")[2].splitlines()[:2]


def test_the_notes_add_up_what_is_requested() -> None:
    # The head: 4 CPUs, 16 GiB, and half of one each for the autoscaler. The group cpu: 3 and 10. One worker with an
    # L4: 3 and 12.
    assert requests({**QUIET, "models": {"chat": {**CHAT, "replicas": {"min": 1, "max": 3}}}}) == [
        "  at least 10.5 CPUs, 39 GiB of memory, 1 GPUs",
        "  at most 25.5 CPUs, 93 GiB of memory, 3 GPUs",
    ]


def test_a_job_counts_while_it_runs() -> None:
    job = {"model": "chat", "input": "s3://bucket/in", "output": "s3://bucket/out", "replicas": 3}
    models = {"chat": {**CHAT, "replicas": {"min": 0, "max": 1}}}
    values = {**QUIET, "models": models, "workerGroups": {"cpu": {"maxReplicas": 1}}}
    without = requests(values)
    # A head more, which has no autoscaler beside it, and three workers with an L4.
    assert without == ["  at least 7.5 CPUs, 27 GiB of memory, 0 GPUs", "  at most 10.5 CPUs, 39 GiB of memory, 1 GPUs"]
    assert requests({**values, "batch": {"jobs": {"night": job}}}) == [
        without[0],
        "  at most 23.5 CPUs, 91 GiB of memory, 4 GPUs",
    ]


def test_the_notes_say_what_the_nodes_cost_and_which_pods_fit_none_of_the_table() -> None:
    # A head and a worker for pipelines on an m7i.2xlarge and an m7i.xlarge, a g6.xlarge for the model.
    values = {**QUIET, "models": {"chat": CHAT}}
    told = "On AWS, on demand, 1.41 to 2.01 dollars an hour (`make plan` says of what).\n"
    assert told in notes(values)
    large = {"resources": {"requests": {"cpu": "200", "memory": "16Gi"}}}
    assert " dollars an hour, without head, which fit none of its nodes (`make plan`" in notes(
        {**values, "head": large}
    )


def test_the_notes_say_how_long_a_model_of_known_size_takes_to_start() -> None:
    chat = {**CHAT, "source": "s3://models/Qwen2.5-7B-Instruct"}
    told = "s from nothing to the first answer: node 120, image 167, process 40, weights 49"
    assert f"452 {told}, compile 61, graphs 16\n" in notes({**QUIET, "models": {"chat": chat}})
    eager = {**chat, "engine": {"enforce_eager": True}}
    assert f"375 {told}\n" in notes({**QUIET, "models": {"chat": eager}})
    assert "from nothing" not in notes({**QUIET, "models": {"chat": CHAT}})


def test_two_replicas_on_a_worker_are_one_worker_and_standalone_ones_have_their_own_share() -> None:
    half = {"accelerator": {"type": "L40S", "count": 2}, "replicas": {"min": 2, "max": 2}}
    assert requests({**QUIET, "models": {"chat": {**CHAT, **half}}})[0].endswith("4 GPUs")
    assert requests({**QUIET, "models": {"chat": {**CHAT, **half, "runtime": "standalone"}}})[0] == (
        "  at least 19.5 CPUs, 123 GiB of memory, 4 GPUs"
    )


def test_what_finds_no_room_in_a_group_is_counted_for_one_with_like_workers() -> None:
    spot = {"order": 100, "accelerator": {"type": "L4"}, "maxReplicas": 4}
    groups = {"l4": {"minReplicas": 2, "maxReplicas": 2}, "l4-spot": spot}
    chat = {**CHAT, "replicas": {"min": 1, "max": 5}}
    values = {**QUIET, "models": {"chat": chat}, "workerGroups": groups}
    assert [line.rpartition(", ")[2] for line in requests(values)] == ["2 GPUs", "5 GPUs"]
    assert warnings(values) == []
    named = {**values, "models": {"chat": {**chat, "workerGroup": "l4-spot"}}}
    assert [line.rpartition(", ")[2] for line in requests(named)] == ["3 GPUs", "6 GPUs"]
    assert warnings(named) == [
        "[WARNING] workerGroups.l4-spot: its models may grow to 5 x L4, its workers have 4 at most. "
        "Raise maxReplicas or lower the models' replicas.max."
    ]


def test_small_requests_are_read_as_kubernetes_reads_them() -> None:
    small = {"resources": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}}
    redis = {"enabled": True, "resources": {"requests": {"cpu": 0.25, "memory": 536870912}}}
    values = {
        **QUIET,
        "models": {},
        "head": small,
        "workerGroups": {"cpu": {**small, "maxReplicas": 1}},
        "redis": redis,
        "milvus": {"enabled": True, "resources": {"requests": {"cpu": "1", "memory": "4Gi"}}},
    }
    assert requests(values)[0] == "  at least 2.3 CPUs, 6 GiB of memory, 0 GPUs"


def test_the_notes_name_adapters_as_clients_do() -> None:
    lora = {"directory": "s3://bucket/all", "adapters": {"sql": {"source": "s3://bucket/sql"}}}
    text = notes({**QUIET, "models": {**MODELS, "chat": {**CHAT, "lora": lora}}})
    assert "chat:sql (an adapter of it)" in text
    assert "chat:<folder> (adapters of it, in s3://bucket/all)" in text


def test_the_notes_say_how_to_read_the_initial_key() -> None:
    assert "get secret llm-serving-initial-key -o jsonpath='{.data.key}' | base64 -d" in notes()
    assert "llm-serving-initial-key" not in notes(QUIET)


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, "http://llm.example.com"),
        ({"tls": [{"secretName": "tls", "hosts": ["llm.example.com"]}]}, "https://llm.example.com"),
        (
            {"annotations": {"alb.ingress.kubernetes.io/listen-ports": '[{"HTTPS": 443}]'}},
            "https://llm.example.com",
        ),
    ],
)
def test_with_an_ingress_the_notes_give_its_url(more: dict[str, Any], url: str) -> None:
    clients: dict[str, Any] = {"clients": [{"namespaceSelector": {}}]}
    ingress = {"enabled": True, "host": "llm.example.com", **more}
    text = notes({**QUIET, "ingress": ingress, "networkPolicy": clients})
    assert f"  URL={url}\n" in text
    assert "port-forward" not in text


@pytest.mark.parametrize(
    ("network_policy", "told"),
    [({}, True), ({"clients": [{"podSelector": {}}]}, False), ({"enabled": False}, False)],
)
def test_the_notes_say_that_nobody_may_call_yet(network_policy: dict[str, Any], told: bool) -> None:
    assert ("networkPolicy.clients is empty" in notes({**QUIET, "networkPolicy": network_policy})) is told


def test_the_notes_name_routes_and_models_that_run_elsewhere() -> None:
    text = notes({**QUIET, **released()})
    assert "provider (generate) at https://api.example.com, external" in text
    assert "assistant (a route to chat at weight 90, provider at weight 10)" in text


def test_the_notes_say_whose_tokens_count() -> None:
    jwt = {"issuer": "https://login.example.com", "audience": "llm"}
    text = notes({**QUIET, "security": {"auth": "jwt", "jwt": jwt}})
    assert "TOKEN=…    # a JWT of https://login.example.com for llm" in text
    assert warnings({**QUIET, "security": {"auth": "jwt", "jwt": jwt}}) == []


def released(tenants: dict[str, Any] | None = None, price: float | None = None, **route: Any) -> dict[str, Any]:
    """A route with two versions."""
    provider = {"runtime": "external", "url": "https://api.example.com"}
    versions = [{"model": "chat", "weight": 90}, {"model": "provider", "weight": 10}]
    chat = {**CHAT, "price": {"prompt": price}} if price else CHAT
    return {
        "models": {**MODELS, "chat": chat, "provider": provider},
        "gateway": {"routes": {"assistant": {"versions": versions, **route}}, "tenants": tenants or {}},
    }


def node_class(**more: Any) -> dict[str, Any]:
    return {"nodeClasses": {"gpu": {"spec": {**NODE_CLASS, **more}}}}


WARNINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no authentication": (
        {"security": {"auth": "none"}},
        "[WARNING] security.auth is none: everyone who reaches the gateway may use it. For laptops only; set apiKeys.",
    ),
    "a key the chart made": (
        {"security": {}},
        "[WARNING] security.apiKeys.existingSecret is empty: the chart made the key `admin`. Note it, then delete the "
        "Secret llm-serving-initial-key; the gateway keeps only its hash.",
    ),
    "no models": (
        {"models": {}},
        "[WARNING] models is empty: the gateway answers, and knows no model. Start from a preset in values/.",
    ),
    "code that comes with the weights": (
        {"models": {"chat": {**CHAT, "engine": {"trust_remote_code": True}}}},
        "[WARNING] models.chat.engine.trust_remote_code runs code that comes with the weights.",
    ),
    "weights without a revision": (
        {"models": {"chat": {**CHAT, "source": "hf://org/chat"}}},
        "[WARNING] models.chat.source names no revision: replicas may start with different weights. Add @<commit>.",
    ),
    "models that may outgrow their group": (
        {"models": {"chat": {**CHAT, "replicas": {"max": 9}}}},
        "[WARNING] workerGroups.l4: its models may grow to 9 x L4, its workers have 8 at most. "
        "Raise maxReplicas or lower the models' replicas.max.",
    ),
    "weights that are no percentages": (
        released(versions=[{"model": "chat", "weight": 9}, {"model": "provider", "weight": 1}]),
        "[WARNING] gateway.routes.assistant.versions: the weights add up to 10, not 100; each counts relative to that "
        "sum.",
    ),
    "a canary that every gateway judges for itself": (
        released(canary={"maxErrorRate": 0.05}),
        "[WARNING] gateway.routes.assistant.canary: without a Redis each of up to 4 gateways judges by what it saw "
        "itself. Set redis, or gateway.replicas.max to 1.",
    ),
    "a budget that nothing is charged to": (
        {**released({"team-a": {"monthlyBudget": 500}}), "redis": {"address": "redis:6379"}},
        "[WARNING] gateway.tenants.team-a.monthlyBudget: no model has a price, so nothing is ever spent. "
        "Set models.<name>.price.",
    ),
    "a budget that is forgotten": (
        released({"team-a": {"monthlyBudget": 500}}, price=1),
        "[WARNING] gateway.tenants.team-a.monthlyBudget: without a Redis a gateway that restarts forgets what was "
        "spent. Set redis.",
    ),
    "a volume that may not be encrypted": (
        node_class(blockDeviceMappings=[{"deviceName": "/dev/xvda", "ebs": {"volumeSize": "500Gi"}}]),
        "[WARNING] nodeClasses.gpu.spec.blockDeviceMappings: /dev/xvda is not encrypted unless the account does so by "
        "itself. Set ebs.encrypted to true.",
    ),
    "a node's credentials for everybody": (
        node_class(metadataOptions={"httpTokens": "optional"}),
        "[WARNING] nodeClasses.gpu.spec.metadataOptions.httpTokens: without tokens a pod may be tricked into telling "
        "its node's credentials. Set required.",
    ),
    "batches in a pod": (
        {"batch": {"enabled": True, "storage": "file:///tmp/batches"}},
        "[WARNING] batch.storage is a folder in the pod: files and batches go with the pod. Use a bucket or "
        "pvc://claim/path for what must stay.",
    ),
    "documents in a pod": (
        {
            "rag": {"docs": {**DOCS, "vectorStore": {"uri": "docs.db"}}},
            "pipelines": {"replicas": {"max": 1}},
        },
        "[WARNING] rag.docs.vectorStore.uri is a file in the pod: its documents go with the pod. "
        "Use a Milvus server for what must stay, or set pipelines.dataClaim.",
    ),
    "a Milvus for nobody": (
        {"rag": {"docs": DOCS}, "milvus": {"enabled": True}},
        "[WARNING] milvus.enabled: no pipeline uses it. Set it to false, or leave out a pipeline's vectorStore.uri.",
    ),
}


def test_a_milvus_that_pipelines_use_is_usual() -> None:
    docs = {key: value for key, value in DOCS.items() if key != "vectorStore"}
    assert warnings({**QUIET, "rag": {"docs": docs}, "milvus": {"enabled": True}}) == []


@pytest.mark.parametrize(("values", "warning"), WARNINGS.values(), ids=list(WARNINGS))
def test_what_is_unusual_is_warned_about(values: dict[str, Any], warning: str) -> None:
    assert warnings({**QUIET, **values}) == [warning]


@pytest.mark.parametrize(
    ("storage", "claim"), [("pvc://batches", ""), ("s3://bucket", ""), ("file:///var/lib/llm-serving/batches", "data")]
)
def test_batches_in_a_bucket_or_on_a_claim_are_usual(storage: str, claim: str) -> None:
    values = {**QUIET, "batch": {"enabled": True, "storage": storage}, "pipelines": {"dataClaim": claim}}
    assert warnings(values) == []
    assert f"batches (/v1/files and /v1/batches, in {storage})" in notes(values)


def test_encrypted_volumes_and_tokens_are_usual() -> None:
    mappings = [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": "500Gi", "encrypted": True}}]
    values = node_class(blockDeviceMappings=mappings, metadataOptions={"httpTokens": "required"})
    assert warnings({**QUIET, **values}) == []


def test_documents_on_a_claim_are_usual() -> None:
    pipelines = {"replicas": {"max": 1}, "dataClaim": "vectors"}
    rag = {"docs": {**DOCS, "vectorStore": {"uri": "docs.db"}}}
    assert warnings({**QUIET, "rag": rag, "pipelines": pipelines}) == []


def test_a_release_with_a_canary_and_budgets_beside_a_redis_is_usual() -> None:
    values = released({"team-a": {"monthlyBudget": 500}}, price=1, canary={"maxErrorRate": 0.05})
    assert warnings({**QUIET, **values, "redis": {"address": "redis:6379"}}) == []


def test_one_gateway_judges_a_canary_alone() -> None:
    values = released(canary={"maxErrorRate": 0.05})
    values["gateway"]["replicas"] = {"min": 1, "max": 1}
    assert warnings({**QUIET, **values}) == []


def test_a_plain_upgrade_is_enough() -> None:
    assert "--force-conflicts" not in notes(QUIET)


def test_usual_values_give_no_warning() -> None:
    models = {"chat": {**CHAT, "replicas": {"max": 7}}, "embedder": EMBEDDER}
    assert warnings({**QUIET, "models": models, "rag": {"docs": DOCS}}) == []


def test_image_volumes_are_told_to_be_off_by_default_before_1_35(kube_apiserver: ApiServer) -> None:
    """The API server is a 1.34; Helm imagines a newer one."""
    on_image = {**CHAT, "source": "oci://registry/chat:1"}
    values = {
        **QUIET,
        "models": {**MODELS, "chat": on_image},
        "workerGroups": {"l4": {"modelImages": ["registry/chat:1"]}},
    }
    assert warnings(values) == []
    told = notes(values, kubeconfig=kube_apiserver.kubeconfig("default"))
    assert [line for line in told.splitlines() if line.startswith("[WARNING]")] == [
        "[WARNING] workerGroups.l4.modelImages: Kubernetes 1.34 drops image volumes without a word unless its feature "
        "gate ImageVolume is on. Turn it on, for the API server and the kubelets, or upgrade to 1.35."
    ]
