"""_models.tpl: from a model's entry to its worker group, placement, scaling and limits."""

from typing import Any, get_args

import pytest

from serve_apps.llm.config import AcceleratorType
from serve_apps.llm.engine import FALLBACK_LIMITS
from tests.chart.render import CHAT, DOCS, EMBEDDER, RenderRefused, application, render_chart, serve_config


def model(values: dict[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    """The application of a model ``chat`` with ``entry`` over the least it needs."""
    return application(render_chart({**(values or {}), "models": {"chat": {**CHAT, **entry}}}), "chat")


def placement(accelerator: dict[str, Any], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = model(more.pop("values", None), accelerator=accelerator, **more)["args"]["placement"]
    return found


def test_a_70b_model_gets_four_gpus_of_one_node() -> None:
    assert placement({"type": "L40S", "count": 4}) == {
        "strategy": "STRICT_PACK",
        "bundles": [{"CPU": 1, "GPU": 1}] * 4,
        "labelSelector": {"llm-serving/accelerator": "L40S-x4"},
    }


def test_a_405b_model_gets_whole_workers_of_two_nodes() -> None:
    args = model(accelerator={"type": "H100", "count": 8}, nodes=2)["args"]
    assert args["nodes"] == 2
    assert args["placement"] == {
        "strategy": "PACK",
        "bundles": [{"CPU": 1, "GPU": 1}] * 16,
        "labelSelector": {"llm-serving/accelerator": "H100-x8"},
    }


def test_several_nodes_take_the_group_whose_workers_they_fill() -> None:
    values = {"workerGroups": {"h100-x2": {"accelerator": {"type": "H100", "count": 2}, "maxReplicas": 2}}}
    two = {"type": "H100", "count": 2}
    assert placement(two, values=values, nodes=2)["labelSelector"] == {"llm-serving/accelerator": "H100-x2"}


def test_serve_counts_the_ranks_of_a_model_as_replicas() -> None:
    app = model(
        accelerator={"type": "L40S", "count": 2},
        parallelism={"data": 2, "experts": True},
        replicas={"min": 1, "max": 3},
        autoscaling={"initial_replicas": 2},
        maxOngoingRequests=32,
    )
    (server,) = app["deployments"]
    assert server["name"] == "DataParallelVLLMServer:chat"
    bounds = {"initial_replicas": 4, "min_replicas": 2, "max_replicas": 6}
    assert server["autoscaling_config"] == {**bounds, "target_ongoing_requests": 24}
    assert server["max_ongoing_requests"] == 32
    assert app["args"]["parallelism"] == {"data": 2, "experts": True}
    assert app["args"]["placement"]["bundles"] == [{"CPU": 1, "GPU": 1}] * 2
    assert app["args"]["placement"]["strategy"] == "PACK"


def test_prompts_are_read_by_replicas_that_scale_by_themselves() -> None:
    app = model(
        parallelism={"prefill": {"replicas": {"max": 3}, "maxOngoingRequests": 8, "engine": {"max_num_seqs": 8}}},
        replicas={"min": 2, "max": 4},
        drainSeconds=30,
    )
    answers, reads = app["deployments"]
    assert (answers["name"], reads["name"]) == ("DecodeVLLMServer:chat", "PDPrefillServer:chat")
    assert answers["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 4, "target_ongoing_requests": 48}
    assert reads["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 6}
    assert (reads["max_ongoing_requests"], reads["max_queued_requests"]) == (8, -1)
    assert reads["graceful_shutdown_timeout_s"] == 30
    assert reads["ray_actor_options"] == answers["ray_actor_options"]
    assert "user_config" not in reads
    # What restarts replicas has nothing of what scales them.
    assert app["args"]["parallelism"] == {"data": 1, "experts": False, "prefill": {"engine": {"max_num_seqs": 8}}}
    assert model(parallelism={"prefill": {}})["deployments"][1]["max_ongoing_requests"] == 64


def test_the_gateway_lets_through_what_all_ranks_work_on() -> None:
    chat = {**CHAT, "parallelism": {"data": 2}, "maxOngoingRequests": 8, "replicas": {"max": 3}}
    (gateway,) = application(render_chart({"models": {"chat": chat}}), "gateway")["deployments"]
    assert gateway["user_config"]["models"]["chat"]["queue"] == {"maxConcurrent": 48}


def test_a_model_that_is_not_split_further_says_nothing_of_it() -> None:
    plain = model()
    assert model(nodes=1, parallelism={"data": 1, "experts": False, "prefill": None}) == plain
    assert not {"nodes", "parallelism"} & plain["args"].keys()


def test_cpu_replicas_ask_for_cores_only() -> None:
    values = {"workerGroups": {"cpu-models": {"enabled": True}}}
    assert placement({"type": "cpu", "count": 2}, values=values) == {
        "strategy": "STRICT_PACK",
        "bundles": [{"CPU": 1}] * 2,
        "labelSelector": {"llm-serving/accelerator": "cpu"},
    }


@pytest.mark.parametrize(("count", "profile"), [(1, "L40S-x1"), (2, "L40S-x4"), (4, "L40S-x4"), (8, "L40S-x8")])
def test_the_smallest_group_that_replicas_fill_evenly_is_chosen(count: int, profile: str) -> None:
    values = {"workerGroups": {"l40s-x8": {"accelerator": {"type": "L40S", "count": 8}}}}
    selector = placement({"type": "L40S", "count": count}, values=values)["labelSelector"]
    assert selector == {"llm-serving/accelerator": profile}


def test_a_named_group_is_told_from_others_of_its_profile() -> None:
    values = {"workerGroups": {"l4-spot": {"accelerator": {"type": "L4"}}}}
    app = model(values, workerGroup="l4-spot")
    selector = {"llm-serving/accelerator": "L4-x1", "llm-serving/worker-group": "l4-spot"}
    assert app["args"]["placement"]["labelSelector"] == selector
    assert app["deployments"][0]["ray_actor_options"]["label_selector"] == selector


def test_the_app_is_built_on_a_node_with_vllm_and_its_router_runs_on_every_node() -> None:
    (server,) = model()["deployments"]
    assert server["name"] == "VLLMServer:chat"
    assert server["ray_actor_options"] == {"num_cpus": 0, "label_selector": {"llm-serving/accelerator": "L4-x1"}}


def test_limits_without_values_are_the_applications_own() -> None:
    deployment = model()["deployments"][0]
    assert {key: deployment[key] for key in FALLBACK_LIMITS} == FALLBACK_LIMITS


def test_the_short_form_and_rays_keys_meet_in_one_autoscaling_config() -> None:
    autoscaling = {"upscale_delay_s": 30, "downscale_delay_s": 300, "upscaling_factor": 1.0, "downscaling_factor": 0.5}
    app = model(replicas={"min": 0, "max": 8}, autoscaling=autoscaling, maxOngoingRequests=100)
    assert app["deployments"][0]["autoscaling_config"] == {
        "min_replicas": 0,
        "max_replicas": 8,
        "target_ongoing_requests": 75,
        **autoscaling,
    }


@pytest.mark.parametrize(
    ("entry", "bounds"),
    [
        ({}, (1, 1)),
        ({"replicas": {"min": 3}}, (3, 3)),
        ({"replicas": {"max": 3}}, (1, 3)),
        ({"replicas": {"min": 0}}, (0, 1)),
        ({"autoscaling": {"min_replicas": 0, "max_replicas": 2}}, (0, 2)),
        ({"replicas": {"min": 0}, "autoscaling": {"max_replicas": 2}}, (0, 2)),
    ],
)
def test_bounds_that_are_left_out_follow_the_others(entry: dict[str, Any], bounds: tuple[int, int]) -> None:
    config = model(**entry)["deployments"][0]["autoscaling_config"]
    assert (config["min_replicas"], config["max_replicas"]) == bounds


def test_a_target_of_less_than_one_request_is_rounded_up() -> None:
    config = model(maxOngoingRequests=1)["deployments"][0]["autoscaling_config"]
    assert config["target_ongoing_requests"] == 1


def test_everything_a_model_may_say_reaches_its_application() -> None:
    app = model(
        maxOngoingRequests=16,
        maxQueuedRequests=0,
        drainSeconds=60,
        surgePercent=0,
        sampling={"temperature": 0, "top_p": 0.95},
        engine={"max_model_len": 8192, "enforce_eager": False, "extra": {"seed": 7}},
        env={"VLLM_LOGGING_LEVEL": "DEBUG"},
    )
    server = app["deployments"][0]
    assert app["args"]["engine"] == {"max_model_len": 8192, "enforce_eager": False, "extra": {"seed": 7}}
    assert app["args"]["surgePercent"] == 0
    assert app["runtime_env"] == {"env_vars": {"VLLM_LOGGING_LEVEL": "DEBUG"}}
    assert server["user_config"] == {"sampling": {"temperature": 0, "top_p": 0.95}}
    assert (server["max_ongoing_requests"], server["max_queued_requests"]) == (16, 0)
    assert server["graceful_shutdown_timeout_s"] == 60


def test_a_model_that_does_not_say_drains_no_longer_than_its_pod_may() -> None:
    def drain(values: dict[str, Any]) -> Any:
        return model(values)["deployments"][0]["graceful_shutdown_timeout_s"]

    shorter = {"gateway": {"drainSeconds": 30}, "pipelines": {"drainSeconds": 30}, "maxDrainSeconds": 35}
    assert (drain({}), drain(shorter)) == (120, 35)


def test_null_is_as_if_left_out() -> None:
    entry: dict[str, Any] = {"replicas": {"min": None, "max": 2}, "autoscaling": None, "engine": {"dtype": None}}
    assert model(**entry, workerGroup=None, env=None, task=None) == model(replicas={"max": 2}, engine={})


def test_a_disabled_or_null_model_is_not_there() -> None:
    objects = render_chart({"models": {"chat": CHAT, "off": {**CHAT, "enabled": False}, "gone": None}})
    assert [app["name"] for app in serve_config(objects)["applications"]] == ["gateway", "chat"]


def test_an_override_replaces_keys_whole_and_only_where_the_model_is() -> None:
    values = {
        "models": {"chat": {**CHAT, "engine": {"quantization": "fp8"}, "maxOngoingRequests": 8}},
        "overrides": {
            "models": {
                "chat": {"source": "pvc://small/chat", "engine": {"max_model_len": 2048}},
                "embedder": EMBEDDER,
            }
        },
        "workerGroups": {"l4": {"modelClaims": ["small"]}},
    }
    objects = render_chart(values)
    app = application(objects, "chat")
    assert app["args"]["source"] == "pvc://small/chat"
    assert app["args"]["engine"] == {"max_model_len": 2048}
    assert app["deployments"][0]["max_ongoing_requests"] == 8
    assert [one["name"] for one in serve_config(objects)["applications"]] == ["gateway", "chat"]


def test_null_in_an_override_takes_back_what_the_preset_set() -> None:
    values = {
        "models": {"chat": {**CHAT, "workerGroup": "l4", "engine": {"quantization": "fp8"}}},
        "overrides": {"models": {"chat": {"workerGroup": None, "engine": None}}},
    }
    assert application(render_chart(values), "chat") == model()


def test_an_override_of_a_pipeline_works_alike() -> None:
    values: dict[str, Any] = {
        "models": {"chat": CHAT, "embedder": EMBEDDER},
        "rag": {"docs": DOCS},
        "overrides": {"rag": {"docs": {"vectorStore": {"uri": "https://other"}}, "none": {"topK": 3}}},
    }
    table = application(render_chart(values), "rag")["deployments"][0]["user_config"]["pipelines"]
    assert table == {"docs": {**DOCS, "vectorStore": {"uri": "https://other"}}}


def test_chart_and_application_know_the_same_accelerators() -> None:
    with pytest.raises(RenderRefused) as refusal:
        model(accelerator={"type": "?"})
    known = str(refusal.value).partition("one of: ")[2].split(", ")
    assert sorted(known) == sorted(get_args(AcceleratorType))
