import pytest

from bench.gateway.ray_systems import FEATURES, gateway_application, part_of, rendered
from serve_apps.gateway.config import GatewayArgs, RoutingTable

MODELS = {"mock": {"url": "http://127.0.0.1:8000/internal/mock", "task": "generate"}}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ray::ServeReplica:gateway:Gateway", "path"),
        ("ray::ServeReplica:mock:MockModel", "model"),
        ("ray::ServeReplica:llm:OpenAiIngress", "path"),
        ("ray::ServeReplica:llm:LLMServer:mock", "model"),
        ("ray::ServeReplica:handle:Front", "path"),
        ("ray::ServeReplica:handle:Model", "model"),
        ("ray::ServeReplica:chat:VLLMServer:chat", "model"),
        ("VLLM::EngineCore", "model"),
        ("haproxy /tmp/llms-x/haproxy/haproxy.cfg", "proxy"),
        ("ray::ProxyActor", "proxy"),
        ("ray::HAProxyManager", "proxy"),
        ("ray::ServeController", "around"),
        ("raylet /tmp/llms-x/ray/session/raylet", "around"),
        ("gcs_server", "around"),
    ],
)
def test_a_process_is_in_the_path_or_the_model_or_around_it(name: str, part: str) -> None:
    assert part_of(name, None) == part


def test_replicas_of_another_application_are_not_in_the_path() -> None:
    assert part_of("ray::ServeReplica:handle:Front", "llm") == "elsewhere"
    assert part_of("ray::ServeReplica:llm:OpenAiIngress", "llm") == "path"


def test_the_gateway_is_the_chart_s_with_other_models() -> None:
    service = rendered(8000)
    theirs = next(one for one in service.serve_config["applications"] if one["name"] == "gateway")
    ours = gateway_application(service, MODELS, None)
    assert ours["import_path"] == theirs["import_path"]
    assert ours["args"] == theirs["args"] | {"auth": "none", "auditLog": False}
    kept = {key: value for key, value in theirs["deployments"][0].items() if key != "user_config"}
    assert {key: value for key, value in ours["deployments"][0].items() if key != "user_config"} == kept
    assert GatewayArgs.model_validate(ours["args"]).auth == "none"
    table = RoutingTable.model_validate(ours["deployments"][0]["user_config"])
    assert list(table.models) == ["mock"]
    assert table.other_tenants.requests_per_minute is None


def test_features_are_keys_every_limit_prices_and_the_audit_log() -> None:
    application = gateway_application(rendered(8000), MODELS, "redis://127.0.0.1:6379/0")
    args = GatewayArgs.model_validate(application["args"])
    assert (args.auth, args.redis, args.audit_log) == ("apiKeys", "redis://127.0.0.1:6379/0", True)
    table = RoutingTable.model_validate(application["deployments"][0]["user_config"])
    limits = table.other_tenants
    assert limits.requests_per_minute
    assert limits.tokens_per_minute
    assert limits.max_concurrent_requests
    assert limits.monthly_budget
    assert table.models["mock"].price
    assert set(FEATURES) == {"args", "table", "model"}
