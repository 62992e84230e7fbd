"""Models, from their values to the deployments that Serve is given."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve_apps.llm.app import build_app
from serve_apps.llm.config import LLMArgs
from tests.chart.render import VALUES, application, render_chart

#: Each preset, the class of the deployment that clients reach, where a replica of it is placed, and its GPUs.
PRESETS: dict[str, list[str | int | None]] = {
    "large-model-tp4": ["VLLMServer", "STRICT_PACK", 4],
    "large-model-p4d": ["VLLMServer", "STRICT_PACK", 8],
    "large-model-awq": ["VLLMServer", "STRICT_PACK", 2],
    "large-model-405b": ["VLLMServer", "PACK", 16],
    "large-model-moe": ["DataParallelVLLMServer", None, 4],  # of a rank; Serve packs all of a gang
    "large-model-prefill": ["DecodeVLLMServer", "STRICT_PACK", 4],
}
#: The module and class of the deployment that HAProxy asks, and its name.
ROUTER = ["serve_apps.llm.router", "LLMRouter", "LLMRouter"]
#: Builds the application of each of the arguments it reads, and tells of the deployments.
PROGRAM = """
import json, sys
from serve_apps.llm.app import build_app
from serve_apps.llm.config import LLMArgs

told = []
for args in json.load(sys.stdin):
    app = build_app(LLMArgs.model_validate(args))
    deployment, router = app._bound_deployment, app._ingress_request_router._bound_deployment
    replica = deployment._replica_config
    gpus = sum(bundle.get("GPU", 0) for bundle in replica.placement_group_bundles)
    routes = router.func_or_class
    told.append([
        *(deployment.func_or_class.__name__, replica.placement_group_strategy, gpus),
        *(routes.__module__, routes.__name__, router.name),
    ])
print(json.dumps(told))
"""
#: Ray reads them when it is imported, so a process of its own has them.
SWITCHES = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}


def test_each_preset_becomes_a_deployment_with_a_bundle_for_each_gpu() -> None:
    args = [application(render_chart(files=[VALUES / f"{preset}.yaml"]), "chat")["args"] for preset in PRESETS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(args),
        env={**os.environ, **SWITCHES},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = {preset: [*server, *ROUTER] for preset, server in PRESETS.items()}
    assert dict(zip(PRESETS, json.loads(done.stdout.splitlines()[-1]), strict=True)) == expected


def test_a_path_that_leads_nowhere_is_refused_before_vllm_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo-models").mkdir()
    monkeypatch.setenv("LLM_SERVING_MODELS", str(tmp_path))
    monkeypatch.setitem(sys.modules, "ray.serve.llm", None)  # an import would fail
    objects = render_chart(files=[VALUES / "rag.yaml", VALUES / "environments" / "ci.yaml"])
    args = LLMArgs.model_validate(application(objects, "chat")["args"])
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/demo-models/smollm2\S+ is not there"):
        build_app(args)
