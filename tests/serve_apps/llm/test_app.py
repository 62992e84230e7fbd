"""The presets of large models, from their values to the deployments that Serve is given."""

from typing import Any

import pytest

from serve_apps.llm.app import build_app
from serve_apps.llm.config import LLMArgs
from tests.chart.render import VALUES, application, render_chart


def placed(preset: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str | None, list[dict[str, float]]]:
    """The class of the deployment that clients reach, and where one of its replicas is placed."""
    for switch in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"):
        monkeypatch.setenv(switch, "1")
    args: Any = application(render_chart(files=[VALUES / f"{preset}.yaml"]), "chat")["args"]
    deployment = build_app(LLMArgs.model_validate(args))._bound_deployment
    replica = deployment._replica_config
    return (
        deployment.func_or_class.__name__,
        replica.placement_group_strategy,
        [dict(bundle) for bundle in replica.placement_group_bundles],
    )


@pytest.mark.filterwarnings("ignore:The `dict` method is deprecated")  # Ray's, where it builds ranks
@pytest.mark.parametrize(
    ("preset", "server", "strategy", "gpus"),
    [
        ("large-model-tp4", "VLLMServer", "STRICT_PACK", 4),
        ("large-model-p4d", "VLLMServer", "STRICT_PACK", 8),
        ("large-model-awq", "VLLMServer", "STRICT_PACK", 2),
        ("large-model-405b", "VLLMServer", "PACK", 16),
        ("large-model-moe", "DataParallelVLLMServer", None, 4),  # of a rank; Serve packs all of a gang
        ("large-model-prefill", "DecodeVLLMServer", "STRICT_PACK", 4),
    ],
)
def test_a_preset_becomes_a_deployment_with_a_bundle_for_each_gpu(
    preset: str, server: str, strategy: str | None, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = placed(preset, monkeypatch)
    assert found[:2] == (server, strategy)
    assert sum(bundle.get("GPU", 0) for bundle in found[2]) == gpus
