"""_serve-config.tpl: the document Ray Serve gets."""

from typing import Any

import pytest
import yaml

from serve_apps.batch.config import BatchSettings
from serve_apps.gateway import app as gateway_app
from serve_apps.gateway.config import GatewayArgs, LogicalModel, Queue, RoutingTable, Tenant, Upstream
from serve_apps.rag import reading
from serve_apps.rag.config import RagPipelines
from tests.chart.render import CHART, CHAT, DOCS, EMBEDDER, application, render_chart, serve_config

RAG: dict[str, Any] = {"models": {"chat": CHAT, "embedder": EMBEDDER}, "rag": {"docs": DOCS}}


def test_one_application_per_model_the_gateway_and_the_pipelines() -> None:
    applications = serve_config(render_chart(RAG))["applications"]
    assert {app["name"]: (app["route_prefix"], app["import_path"]) for app in applications} == {
        "gateway": ("/", "serve_apps.gateway.app:build_app"),
        "chat": ("/internal/chat", "serve_apps.llm.app:build_app"),
        "embedder": ("/internal/embedder", "serve_apps.llm.app:build_app"),
        "rag": ("/internal/rag", "serve_apps.rag.app:build_app"),
    }


def test_without_pipelines_there_is_no_rag_application() -> None:
    objects = render_chart({**RAG, "rag": {"docs": {**DOCS, "enabled": False}}})
    assert "rag" not in [app["name"] for app in serve_config(objects)["applications"]]


def test_the_gateways_table_names_every_model_and_pipeline() -> None:
    (deployment,) = application(render_chart(RAG), "gateway")["deployments"]
    assert deployment["user_config"] == {
        "models": {
            "chat": {
                "url": "http://127.0.0.1:8000/internal/chat",
                "task": "generate",
                "queue": {"maxConcurrent": 64},
            },
            "embedder": {
                "url": "http://127.0.0.1:8000/internal/embedder",
                "task": "embed",
                "queue": {"maxConcurrent": 64},
            },
            "docs": {"url": "http://127.0.0.1:8000/internal/rag", "task": "pipeline"},
        },
        "replicas": 4,
    }


def test_agents_are_one_application_and_models_to_clients() -> None:
    helper = {"model": "chat", "tools": {"calculate": {"calculator": {}}}}
    objects = render_chart({**RAG, "agent": {"helper": helper, "off": {**helper, "enabled": False}}})
    app = application(objects, "agent")
    assert (app["route_prefix"], app["import_path"]) == ("/internal/agent", "serve_apps.agent.app:build_app")
    assert app["args"] == {"gatewayUrl": "http://127.0.0.1:8000", "modelTimeoutS": 900}
    assert app["deployments"][0]["user_config"] == {"agents": {"helper": helper}}
    models = application(objects, "gateway")["deployments"][0]["user_config"]["models"]
    assert models["helper"] == {"url": "http://127.0.0.1:8000/internal/agent", "task": "agent"}
    assert "off" not in models


def test_without_agents_there_is_no_agent_application() -> None:
    assert "agent" not in [app["name"] for app in serve_config(render_chart(RAG))["applications"]]


def test_an_environment_changes_an_agent_that_the_preset_has() -> None:
    values = {
        **RAG,
        "agent": {"helper": {"model": "chat"}},
        "overrides": {"agent": {"helper": {"maxTokens": 99}, "none": {"maxTokens": 1}}},
    }
    table = application(render_chart(values), "agent")["deployments"][0]["user_config"]["agents"]
    assert table == {"helper": {"model": "chat", "maxTokens": 99}}


def test_batches_are_one_application_that_the_gateway_knows() -> None:
    batch = {"enabled": True, "storage": "s3://bucket/batches", "concurrency": 32}
    pipelines = {"cpus": 0.2, "replicas": {"min": 2}, "autoscaling": {"target_ongoing_requests": 9}}
    objects = render_chart({**RAG, "batch": batch, "pipelines": pipelines})
    app = application(objects, "batch")
    assert (app["route_prefix"], app["import_path"]) == ("/internal/batch", "serve_apps.batch.app:build_app")
    assert app["args"] == {
        "gatewayUrl": "http://127.0.0.1:8000",
        "modelTimeoutS": 900,
        "storage": "s3://bucket/batches",
        "labelSelector": {"llm-serving/role": "pipelines"},
    }
    (deployment,) = app["deployments"]
    assert deployment["user_config"] == {**BatchSettings().model_dump(by_alias=True), "concurrency": 32}
    # Its size is that of pipelines, but for the number of replicas.
    assert deployment["ray_actor_options"]["num_cpus"] == 0.2
    # Ray Data's processes are where the replicas are.
    assert deployment["ray_actor_options"]["label_selector"] == app["args"]["labelSelector"]
    assert deployment["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 1, "target_ongoing_requests": 96}
    table = application(objects, "gateway")["deployments"][0]["user_config"]
    assert table["batch"] == "http://127.0.0.1:8000/internal/batch"
    assert "batch" not in table["models"]


def test_batches_are_off_unless_they_are_wished() -> None:
    objects = render_chart({**RAG, "batch": {"storage": "s3://bucket/batches"}})
    assert "batch" not in [app["name"] for app in serve_config(objects)["applications"]]
    assert "batch" not in application(objects, "gateway")["deployments"][0]["user_config"]


def test_several_replicas_of_batches_agree_where_the_gateway_counts() -> None:
    batch = {"enabled": True, "storage": "s3://bucket/batches", "replicas": 3}
    app = application(render_chart({**RAG, "batch": batch, "redis": {"address": "redis:6379"}}), "batch")
    assert app["args"]["redis"] == "redis://redis:6379/1"
    assert app["deployments"][0]["autoscaling_config"].items() >= {"min_replicas": 3, "max_replicas": 3}.items()


@pytest.mark.parametrize(
    ("storage", "folder"),
    [
        ("pvc://claim", "file:///mnt/batch"),
        ("pvc://claim/", "file:///mnt/batch"),
        ("pvc://claim/a/b/", "file:///mnt/batch/a/b"),
    ],
)
def test_a_claim_of_batches_is_a_folder_to_the_application(storage: str, folder: str) -> None:
    objects = render_chart({**RAG, "batch": {"enabled": True, "storage": storage}})
    assert application(objects, "batch")["args"]["storage"] == folder


def test_agents_keep_their_runs_where_the_gateway_counts() -> None:
    values = {**RAG, "agent": {"helper": {"model": "chat"}}, "redis": {"address": "redis:6379"}}
    assert application(render_chart(values), "agent")["args"]["redis"] == "redis://redis:6379/1"


def test_agents_know_what_tokens_cost_by_whom_they_ask() -> None:
    models = {
        "chat": {**CHAT, "price": {"prompt": 1, "completion": 2}},
        "large": {**CHAT, "price": {"prompt": 0.5, "completion": 8}},
        "embedder": EMBEDDER,
    }
    routes = {"assistant": {"versions": [{"model": "chat"}], "fallback": ["large"]}}
    values = {"models": models, "rag": {"docs": DOCS}, "agent": {"helper": {"model": "assistant"}}}
    objects = render_chart({**values, "gateway": {"routes": routes}})
    assert application(objects, "agent")["deployments"][0]["user_config"]["prices"] == {
        "chat": {"prompt": 1, "completion": 2},
        "large": {"prompt": 0.5, "completion": 8},
        "assistant": {"prompt": 1, "completion": 8},
        "docs": {"prompt": 1, "completion": 2},
    }


def test_the_port_reaches_all_who_need_it() -> None:
    objects = render_chart({**RAG, "gateway": {"port": 9000}})
    assert serve_config(objects)["http_options"] == {"host": "0.0.0.0", "port": 9000}
    assert application(objects, "rag")["args"]["gatewayUrl"] == "http://127.0.0.1:9000"
    table = application(objects, "gateway")["deployments"][0]["user_config"]["models"]
    assert {entry["url"][:22] for entry in table.values()} == {"http://127.0.0.1:9000/"}


def table(models: dict[str, Any], **gateway: Any) -> RoutingTable:
    """The routing table the gateway gets."""
    (deployment,) = application(render_chart({"models": models, "gateway": gateway}), "gateway")["deployments"]
    return RoutingTable.model_validate(deployment["user_config"])


def test_a_model_that_runs_elsewhere_is_an_upstream_and_nothing_else() -> None:
    provider = {
        "runtime": "external",
        "url": "https://api.example.com",
        "servedModel": "big",
        "credential": "provider",
        "price": {"prompt": 0.4, "completion": 1.2},
        "queue": {"maxConcurrent": 20, "timeoutS": 5},
    }
    bench = {"runtime": "standalone", "url": "http://vllm:8000", "takesPriority": True, "task": "embed"}
    models = {"chat": CHAT, "provider": provider, "bench": bench}
    assert [app["name"] for app in serve_config(render_chart({"models": models}))["applications"]] == [
        "gateway",
        "chat",
    ]
    found = table(models).models
    assert found["provider"] == Upstream.model_validate({"task": "generate", **provider})
    assert found["bench"] == Upstream.model_validate(bench)


@pytest.mark.parametrize(
    ("model", "gateways", "most"),
    [
        ({"maxOngoingRequests": 32, "replicas": {"max": 4}}, {"min": 1, "max": 4}, 128),
        ({"maxOngoingRequests": 32, "replicas": {"max": 4}}, {"min": 2, "max": 8}, 64),
        ({"maxOngoingRequests": 5, "autoscaling": {"max_replicas": 3}}, {"min": 2}, 8),
        ({"maxOngoingRequests": 1}, {"min": 4}, 1),
    ],
)
def test_all_gateways_together_let_as_much_through_as_a_model_can_grow_to(
    model: dict[str, Any], gateways: dict[str, int], most: int
) -> None:
    queue = table({"chat": {**CHAT, **model}}, replicas=gateways).models["chat"].queue
    assert queue == Queue(max_concurrent=most)


def test_a_queue_of_the_values_goes_first() -> None:
    queue = table({"chat": {**CHAT, "queue": {"maxConcurrent": 7, "maxWaiting": 0}}}).models["chat"].queue
    assert queue == Queue(max_concurrent=7, max_waiting=0)
    queue = table({"chat": {**CHAT, "queue": {"timeoutS": 5}}}).models["chat"].queue
    assert queue == Queue(max_concurrent=64, timeout_s=5)


def test_a_model_takes_priority_if_its_engine_schedules_by_it() -> None:
    engine = {"extra": {"scheduling_policy": "priority"}}
    found = table({"chat": {**CHAT, "engine": engine}, "plain": CHAT}).models
    assert found["chat"].takes_priority
    assert not found["plain"].takes_priority


def test_routes_and_tenants_reach_the_gateway_as_they_are() -> None:
    routes = {
        "assistant": {
            "versions": [{"model": "chat", "weight": 90}, {"model": "next", "weight": 10}],
            "aliases": ["gpt-4o"],
            "sticky": "user",
            "canary": {"maxErrorRate": 0.05, "ttftP95S": 2},
        },
        "off": None,
    }
    tenants = {"team-a": {"tokensPerMinute": 1_000_000, "monthlyBudget": 500, "share": 2}, "gone": None}
    others = {"requestsPerMinute": 60}
    found = table(
        {"chat": CHAT, "next": CHAT}, routes=routes, tenants=tenants, otherTenants=others, replicas={"max": 3}
    )
    assert found.routes == {"assistant": LogicalModel.model_validate(routes["assistant"])}
    assert found.tenants == {"team-a": Tenant.model_validate(tenants["team-a"])}
    assert found.other_tenants == Tenant(requests_per_minute=60)
    assert found.replicas == 3


def test_a_laptop_listens_on_loopback() -> None:
    assert serve_config(render_chart({**RAG, "gateway": {"host": "127.0.0.1"}}))["http_options"]["host"] == "127.0.0.1"


def test_the_gateways_arguments_are_its_values_less_what_the_chart_reads() -> None:
    objects = render_chart({"gateway": {"maxConcurrentRequests": 64, "stallTimeoutS": 30.5}})
    assert application(objects, "gateway")["args"] == {
        "auth": "apiKeys",
        "redisOutage": "share",
        "auditLog": True,
        "bypassProxy": True,
        "playground": False,
        "maxConcurrentRequests": 64,
        "maxRequestBytes": 4 * 1024 * 1024,
        "maxUploadBytes": 32 * 1024 * 1024,
        "maxHeaderBytes": 16 * 1024,
        "bodyTimeoutS": 30,
        "firstByteTimeoutS": 900,
        "stallTimeoutS": 30.5,
        "writeTimeoutS": 60,
        "maxPrefixEntries": 100_000,
    }


def test_the_gateways_defaults_are_the_applications_own() -> None:
    args = application(render_chart(), "gateway")["args"]
    assert GatewayArgs.model_validate(args) == GatewayArgs()
    written = yaml.safe_load((CHART / "values.yaml").read_text())["gateway"]
    elsewhere = {"auth", "jwt", "redis"}
    assert set(args) - elsewhere == set(GatewayArgs().model_dump(by_alias=True)) - elsewhere <= set(written)


def test_the_gateway_checks_tokens_as_security_says() -> None:
    jwt = {"issuer": "https://login.example.com", "audience": "llm", "tenantClaim": "realm.team"}
    args = application(render_chart({"security": {"auth": "jwt", "jwt": jwt}}), "gateway")["args"]
    assert (args["auth"], args["jwt"]) == ("jwt", jwt)
    assert "jwt" not in application(render_chart(), "gateway")["args"]


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, None),
        ({"redis": {"enabled": True}}, "redis://llm-serving-redis:6379/1"),
        ({"redis": {"address": "redis:6379"}, "gateway": {"redisDatabase": 0}}, "redis://redis:6379/0"),
        ({"redis": {"address": "rediss://redis.example.com:6380"}}, "rediss://redis.example.com:6380/1"),
        ({"redis": {"enabled": True}, "gateway": {"sharesRedis": False}}, None),
    ],
)
def test_the_gateways_replicas_share_the_redis_of_the_release(values: dict[str, Any], url: str | None) -> None:
    args = application(render_chart(values), "gateway")["args"]
    assert args.get("redis") == url
    assert GatewayArgs.model_validate(args).redis == (url or "")


def test_the_gateway_refuses_before_serve_does() -> None:
    (deployment,) = application(render_chart({"gateway": {"maxConcurrentRequests": 64}}), "gateway")["deployments"]
    assert deployment["max_ongoing_requests"] == 64 + gateway_app.HEADROOM
    assert deployment["autoscaling_config"]["target_ongoing_requests"] == 48


def test_the_gateway_and_the_pipelines_run_where_the_group_says_so() -> None:
    objects = render_chart({**RAG, "gateway": {"cpus": 1}, "pipelines": {"cpus": 0.25}})
    options = {name: application(objects, name)["deployments"][0]["ray_actor_options"] for name in ("gateway", "rag")}
    selector = {"llm-serving/role": "pipelines"}
    assert options == {
        "gateway": {"num_cpus": 1, "label_selector": selector},
        "rag": {"num_cpus": 0.25, "label_selector": selector},
    }


def test_what_reads_documents_is_sized_apart_from_what_answers() -> None:
    def deployments(reading: dict[str, Any]) -> list[dict[str, Any]]:
        objects = render_chart({**RAG, "pipelines": {"drainSeconds": 40, "reading": reading}})
        found: list[dict[str, Any]] = application(objects, "rag")["deployments"]
        return found

    answering, small = deployments({})
    answering_still, large = deployments({"replicas": {"min": 0, "max": 9}, "cpus": 2})
    assert answering == answering_still
    assert (small["name"], small["max_ongoing_requests"]) == ("Reading", reading.PROCESSES)
    assert small["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 1}
    assert small["graceful_shutdown_timeout_s"] == 40
    assert large["autoscaling_config"] == {"min_replicas": 0, "max_replicas": 9, "target_ongoing_requests": 1}
    assert large["ray_actor_options"] == {"num_cpus": 2, "label_selector": {"llm-serving/role": "pipelines"}}


def test_every_deployment_that_takes_requests_is_bounded_and_refuses_with_429() -> None:
    for app in serve_config(render_chart(RAG))["applications"]:
        deployment = app["deployments"][0]
        assert deployment["max_queued_requests"] > 0
        assert deployment["backpressure_config"] == {"status_code": 429, "retry_after_s": 1}


def test_the_pipelines_sizing_and_content_are_their_values() -> None:
    sizing = {"replicas": {"min": 2, "max": 3}, "maxOngoingRequests": 10, "maxQueuedRequests": 5, "drainSeconds": 40}
    pipeline = {**DOCS, "topK": 8, "systemPrompt": "Answer: yes\nor no"}
    app = application(render_chart({**RAG, "pipelines": sizing, "rag": {"docs": pipeline}}), "rag")
    deployment, _ = app["deployments"]
    assert deployment["user_config"] == {"pipelines": {"docs": pipeline}}
    assert deployment["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 3,
        "target_ongoing_requests": 7,
    }
    assert (deployment["max_ongoing_requests"], deployment["max_queued_requests"]) == (10, 5)
    assert deployment["graceful_shutdown_timeout_s"] == 40


@pytest.mark.parametrize(
    ("milvus", "store"),
    [
        ({"enabled": True}, {"uri": "http://llm-serving-milvus:19530", "credential": "token"}),
        ({"uri": "http://milvus.other:19530"}, {"uri": "http://milvus.other:19530"}),
        (
            {"uri": "https://milvus.example.com", "existingSecret": "our-milvus"},
            {"uri": "https://milvus.example.com", "credential": "token"},
        ),
    ],
)
def test_a_pipeline_without_a_store_of_its_own_has_the_milvus_of_the_release(
    milvus: dict[str, Any], store: dict[str, Any]
) -> None:
    bare = {key: value for key, value in DOCS.items() if key != "vectorStore"}
    rag = {"bare": bare, "slow": {**bare, "vectorStore": {"timeoutS": 3}}, "own": DOCS}
    app = application(render_chart({**RAG, "rag": rag, "milvus": milvus}), "rag")
    pipelines = app["deployments"][0]["user_config"]["pipelines"]
    assert {name: one["vectorStore"] for name, one in pipelines.items()} == {
        "bare": store,
        "slow": {**store, "timeoutS": 3},
        # Nobody else is shown what opens ours.
        "own": {"uri": "http://milvus:19530"},
    }
    RagPipelines.model_validate({"pipelines": pipelines})


def test_an_override_takes_a_pipeline_to_a_file() -> None:
    bare = {key: value for key, value in DOCS.items() if key != "vectorStore"}
    overrides = {"rag": {"docs": {"vectorStore": {"uri": "docs.db"}}}}
    values = {**RAG, "rag": {"docs": bare}, "overrides": overrides, "pipelines": {"replicas": {"max": 1}}}
    app = application(render_chart({**values, "milvus": {"enabled": True}}), "rag")
    assert app["deployments"][0]["user_config"]["pipelines"]["docs"]["vectorStore"] == {"uri": "docs.db"}


def test_pipelines_wait_for_a_model_as_long_as_the_gateway_does() -> None:
    app = application(render_chart({**RAG, "gateway": {"firstByteTimeoutS": 1800}}), "rag")
    assert app["args"] == {"gatewayUrl": "http://127.0.0.1:8000", "modelTimeoutS": 1800}


def test_large_numbers_stay_whole() -> None:
    objects = render_chart({"gateway": {"maxUploadBytes": 1_073_741_824}})
    assert application(objects, "gateway")["args"]["maxUploadBytes"] == 1_073_741_824


def test_adapters_are_the_models_to_load_and_the_gateways_to_name() -> None:
    lora = {
        "directory": "s3://bucket/all",
        "adapters": {"sql": {"source": "hf://org/sql"}, "off": None},
        "maxCpuLoras": 8,
        "maxRank": 32,
    }
    objects = render_chart({"models": {"chat": {**CHAT, "lora": lora}}})
    model = application(objects, "chat")
    assert model["args"]["lora"] == {"maxLoras": 4, "maxCpuLoras": 8, "maxRank": 32}
    assert model["deployments"][0]["user_config"]["adapters"] == {
        "directory": "s3://bucket/all",
        "named": {"sql": "hf://org/sql"},
    }
    (gateway,) = application(objects, "gateway")["deployments"]
    upstream = gateway["user_config"]["models"]["chat"]
    assert (upstream["adapters"], upstream["otherAdapters"]) == ({"sql": {}}, True)


def test_whom_an_adapter_is_for_is_the_gateways_to_know() -> None:
    adapters = {"acme": {"source": "s3://bucket/acme", "tenants": ["acme", "acme-test"]}}
    objects = render_chart({"models": {"chat": {**CHAT, "lora": {"adapters": adapters}}}})
    (gateway,) = application(objects, "gateway")["deployments"]
    upstream = gateway["user_config"]["models"]["chat"]
    assert upstream["adapters"] == {"acme": {"tenants": ["acme", "acme-test"]}}
    assert "otherAdapters" not in upstream
    assert application(objects, "chat")["deployments"][0]["user_config"]["adapters"] == {
        "named": {"acme": "s3://bucket/acme"}
    }
