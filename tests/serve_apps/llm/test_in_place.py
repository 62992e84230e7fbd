import copy
from typing import Any

import pytest
from pydantic import ValidationError

from serve_apps.llm.in_place import Changed, changed, is_in_force


def details(**server: Any) -> dict[str, Any]:
    """What Serve tells of a gateway and a model ``chat``."""
    user_config = {"sampling": {"max_tokens": 5, "top_p": 0.9}, "adapters": {"named": {"sql": "s3://a/sql"}}}
    deployment = {"name": "VLLMServer:chat", "max_ongoing_requests": 4, "user_config": user_config}
    gateway = {"name": "gateway", "deployments": [{"name": "Gateway"}]}
    running = {"name": "VLLMServer:chat", "status": "HEALTHY", "deployment_config": deployment, **server}
    return {
        "proxy_location": "EveryNode",
        "http_options": {"port": 8000},
        "grpc_options": None,
        "applications": {
            "gateway": {"deployed_app_config": gateway},
            "chat": {
                "deployed_app_config": {"name": "chat", "deployments": [deployment]},
                "deployments": {"LLMRouter": {"name": "LLMRouter"}, "VLLMServer:chat": running},
            },
            "by-hand": {"deployed_app_config": None},
        },
    }


def test_a_given_block_replaces_the_one_in_force_and_others_stay() -> None:
    before = details()
    config = changed(before, "chat", Changed.model_validate({"sampling": {"max_tokens": 2}, "max_queued_requests": 0}))
    assert before == details()
    assert config == {
        "proxy_location": "EveryNode",
        "http_options": {"port": 8000},
        "applications": [
            {"name": "gateway", "deployments": [{"name": "Gateway"}]},
            {
                "name": "chat",
                "deployments": [
                    {
                        "name": "VLLMServer:chat",
                        "max_ongoing_requests": 4,
                        "max_queued_requests": 0,
                        "user_config": {"sampling": {"max_tokens": 2}, "adapters": {"named": {"sql": "s3://a/sql"}}},
                    }
                ],
            },
        ],
    }


def test_adapters_are_written_as_the_replica_reads_them() -> None:
    config = changed(details(), "chat", Changed.model_validate({"adapters": {"directory": "s3://a"}}))
    (server,) = config["applications"][1]["deployments"]
    assert server["user_config"]["adapters"] == {"directory": "s3://a"}


def test_ranks_are_changed_alike() -> None:
    told = details()
    told["applications"]["chat"]["deployed_app_config"]["deployments"][0]["name"] = "DataParallelVLLMServer:chat"
    config = changed(told, "chat", Changed(max_ongoing_requests=2))
    assert config["applications"][1]["deployments"][0]["max_ongoing_requests"] == 2


def test_a_model_that_is_not_served_is_refused() -> None:
    for name in ("chatt", "by-hand"):
        with pytest.raises(ValueError, match=f"{name}: no model of this name is served"):
            changed(details(), name, Changed())


@pytest.mark.parametrize(
    "settings", [{"sampling": {"temprature": 0}}, {"adapters": {"named": {"../x": "s3://a/x"}}}, {"engine": {}}]
)
def test_what_is_not_valid_is_refused_before_anything_is_sent(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Changed.model_validate(settings)


def test_settings_are_in_force_once_the_replicas_have_them() -> None:
    wanted = Changed.model_validate({"sampling": {"max_tokens": 2}, "max_ongoing_requests": 3})
    before = details()
    assert not is_in_force(before, "chat", wanted)
    after = copy.deepcopy(before)
    asked = after["applications"]["chat"]["deployments"]["VLLMServer:chat"]["deployment_config"]
    asked |= {"max_ongoing_requests": 3, "user_config": {**asked["user_config"], "sampling": {"max_tokens": 2}}}
    assert is_in_force(after, "chat", wanted)
    after["applications"]["chat"]["deployments"]["VLLMServer:chat"]["status"] = "UPDATING"
    assert not is_in_force(after, "chat", wanted)
