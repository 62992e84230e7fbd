"""The chart against the applications and Ray: what is rendered is what they accept."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, get_type_hints

import pytest
from pydantic import BaseModel
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from serve_apps.agent.config import AgentArgs, Agents
from serve_apps.batch.config import BatchArgs, BatchSettings
from serve_apps.gateway.config import GatewayArgs, RoutingTable
from serve_apps.llm.config import EngineArgs, LLMArgs, LLMSettings
from serve_apps.llm.engine import llm_config, prefill_config
from serve_apps.rag.config import RagArgs, RagPipelines
from tests.chart.presets import COMBINATIONS, objects
from tests.chart.render import CHAT, RenderRefused, render_chart, serve_config
from tests.chart.serve_schema import unknown_keys

#: An application's arguments, and the settings of its first deployment.
MODELS: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "serve_apps.agent.app:build_app": (AgentArgs, Agents),
    "serve_apps.batch.app:build_app": (BatchArgs, BatchSettings),
    "serve_apps.gateway.app:build_app": (GatewayArgs, RoutingTable),
    "serve_apps.llm.app:build_app": (LLMArgs, LLMSettings),
    "serve_apps.rag.app:build_app": (RagArgs, RagPipelines),
}


def builder(import_path: str) -> Callable[[BaseModel], Application]:
    """What an import path leads to."""
    module, _, name = import_path.partition(":")
    found: Callable[[BaseModel], Application] = getattr(import_module(module), name)
    return found


def deployments(app: Application) -> list[str]:
    """The names of an application's deployments, the one that takes requests first."""
    bound = app._bound_deployment
    behind = [each for each in bound.init_args if isinstance(each, Application)]
    return [bound.name, *(name for each in behind for name in deployments(each))]


@pytest.fixture(scope="module", params=COMBINATIONS)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The Serve config of each preset in each environment."""
    return serve_config(objects(request.param))


def test_ray_knows_every_key(config: dict[str, Any]) -> None:
    assert list(unknown_keys(config)) == []
    ServeDeploySchema.model_validate(config)


def test_ray_accepts_every_autoscaling_config(config: dict[str, Any]) -> None:
    for app in config["applications"]:
        for deployment in app["deployments"]:
            if autoscaling := deployment.get("autoscaling_config"):
                parsed = AutoscalingConfig(**autoscaling)
                assert parsed.min_replicas <= (parsed.max_replicas or 0)
                assert parsed.target_ongoing_requests <= deployment["max_ongoing_requests"]


def test_every_application_accepts_its_arguments_and_settings(config: dict[str, Any]) -> None:
    for app in config["applications"]:
        arguments, settings = MODELS[app["import_path"]]
        arguments.model_validate(app["args"])
        settings.model_validate(app["deployments"][0]["user_config"])


@pytest.mark.parametrize("import_path", MODELS)
def test_every_import_path_leads_to_a_builder_of_these_arguments(import_path: str) -> None:
    assert get_type_hints(builder(import_path))["args"] is MODELS[import_path][0]


def test_every_deployment_that_is_configured_exists(config: dict[str, Any]) -> None:
    for app in config["applications"]:
        names = [deployment["name"] for deployment in app["deployments"]]
        if app["import_path"] == "serve_apps.llm.app:build_app":
            # ray.serve.llm names the deployment after its server's class and the model.
            model = LLMArgs.model_validate(app["args"])
            described = [llm_config(model)]
            if (prefill := model.parallelism.prefill) is not None:
                described.append(prefill_config(model, prefill))
            assert names == [f"{one['server_cls'].partition(':')[2]}:{app['name']}" for one in described]
            # The config's options replace the builder's as a whole.
            for deployment, one in zip(app["deployments"], described, strict=True):
                options = one["deployment_config"]["ray_actor_options"]
                assert deployment["ray_actor_options"].items() >= options.items()
        else:
            arguments = MODELS[app["import_path"]][0].model_validate(app["args"])
            assert names == deployments(builder(app["import_path"])(arguments))


def test_every_route_is_where_the_gateway_looks(config: dict[str, Any]) -> None:
    prefixes = {app["route_prefix"] for app in config["applications"]}
    (gateway,) = (app for app in config["applications"] if app["name"] == "gateway")
    port = config["http_options"]["port"]
    table = RoutingTable.model_validate(gateway["deployments"][0]["user_config"])
    # Those of other runtimes are somebody else's.
    urls = [entry.url for entry in table.models.values() if entry.runtime == "ray"]
    for url in [*urls, *([table.batch] if table.batch else [])]:
        assert url.removeprefix(f"http://127.0.0.1:{port}") in prefixes


@pytest.mark.parametrize(
    "key",
    [
        "model",
        "served_model_name",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "data_parallel_size",
        "enable_expert_parallel",
        "distributed_executor_backend",
        "runner",
        "api_key",
        "max_loras",
    ],
)
def test_the_chart_refuses_an_engine_argument_in_the_applications_words(key: str) -> None:
    with pytest.raises(ValueError, match=f"extra.{key}: not set here") as application:
        EngineArgs.model_validate({"extra": {key: "x"}})
    with pytest.raises(RenderRefused) as chart:
        render_chart({"models": {"chat": {**CHAT, "engine": {"extra": {key: "x"}}}}})
    assert str(chart.value).removeprefix("models.chat.engine.") in str(application.value)
