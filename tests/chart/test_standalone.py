"""standalone.yaml: models that run as plain vLLM servers."""

import json
from typing import Any

import pytest

from serve_apps.llm.config import LLMArgs
from serve_apps.llm.engine import engine_kwargs
from serve_apps.llm.sources import image_folder, resolve
from tests.chart.render import CHAT, application, of_kind, render_chart, the, worker_group

STANDALONE: dict[str, Any] = {**CHAT, "runtime": "standalone"}
NAME = "llm-serving-model-chat"
SERVER = {
    "model",
    "served-model-name",
    "host",
    "port",
    "middleware",
    "disable-fastapi-docs",
    "disable-uvicorn-access-log",
}


def rendered(values: dict[str, Any] | None = None, **entry: Any) -> list[dict[str, Any]]:
    """A release with a standalone model ``chat``."""
    return render_chart({**(values or {}), "models": {"chat": {**STANDALONE, **entry}}})


def deployment(values: dict[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    spec: dict[str, Any] = the(rendered(values, **entry), "Deployment")["spec"]
    return spec


def pod(values: dict[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    spec: dict[str, Any] = deployment(values, **entry)["template"]["spec"]
    return spec


def container(values: dict[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    (found,) = pod(values, **entry)["containers"]
    assert found["name"] == "vllm"
    return dict(found)


def variables(**entry: Any) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container(**entry)["env"]}


def flags(args: list[str]) -> dict[str, Any]:
    """The server's arguments by flag; what is JSON is parsed."""
    found: dict[str, Any] = {}
    for argument in args:
        flag, given, value = argument.removeprefix("--").partition("=")
        try:
            found[flag] = json.loads(value) if given else True
        except json.JSONDecodeError:
            found[flag] = value
    return found


def engine_arguments(args: list[str]) -> dict[str, Any]:
    """What of them is the engine's, in vLLM's own spelling."""
    found: dict[str, Any] = {}
    for flag, value in flags(args).items():
        if flag not in SERVER:
            off = flag.startswith("no-")
            found[flag.removeprefix("no-").replace("-", "_")] = not off if value is True else value
    return found


#: Models that differ in what vLLM is told.
ENTRIES: dict[str, dict[str, Any]] = {
    "least": {},
    "tensor-parallel": {"accelerator": {"type": "L40S", "count": 4}},
    "embedder": {"task": "embed"},
    "reranker": {"task": "score", "source": "s3://models/reranker"},
    "from-a-claim": {"source": "pvc://weights/chat"},
    "from-an-image": {"source": "oci://registry:5000/ml/chat:1"},
    "from-a-folder-of-an-image": {"source": "oci://registry:5000/ml/chat:1#chat/8b"},
    "told-much": {
        "engine": {
            "max_model_len": 1000000,
            "gpu_memory_utilization": 0.9,
            "enforce_eager": False,
            "enable_prefix_caching": True,
            "quantization": "fp8",
            "extra": {"seed": 7, "hf_overrides": {"rope_theta": 1000000}},
        }
    },
}


def each(runtime: str) -> list[dict[str, Any]]:
    """A release with all of them."""
    models = {name: {**CHAT, **entry, "runtime": runtime} for name, entry in ENTRIES.items()}
    mounted = {"modelClaims": ["weights"], "modelImages": ["registry:5000/ml/chat:1"]}
    return render_chart({"models": models, "workerGroups": {"l4": mounted}})


@pytest.mark.parametrize("name", ENTRIES)
def test_vllm_gets_what_it_would_get_from_ray(name: str) -> None:
    args = LLMArgs.model_validate(application(each("ray"), name)["args"])
    server = of_kind(each("standalone"), "Deployment")[f"llm-serving-model-{name}"]["spec"]["template"]["spec"]
    told = flags(server["containers"][0]["args"])
    assert (told["model"], told["served-model-name"]) == (resolve(args.source).location, name)
    engine = engine_arguments(server["containers"][0]["args"])
    assert engine | {"disable_fastapi_docs": told["disable-fastapi-docs"]} == engine_kwargs(args)


def test_sampling_defaults_are_the_models_own() -> None:
    sampling = {"temperature": 0, "top_p": 0.95}
    assert engine_arguments(container(sampling=sampling)["args"])["override_generation_config"] == sampling
    assert "override_generation_config" not in engine_arguments(container()["args"])


def test_an_argument_of_several_values_is_several_words() -> None:
    args = container(engine={"extra": {"cudagraph_capture_sizes": [1, 2, 4]}})["args"]
    at = args.index("--cudagraph-capture-sizes")
    assert args[at + 1 : at + 4] == ["1", "2", "4"]


def test_the_gateway_finds_it_at_its_service() -> None:
    objects = rendered(maxOngoingRequests=32, replicas={"min": 1, "max": 4}, price={"prompt": 1})
    (gateway,) = application(objects, "gateway")["deployments"]
    assert gateway["user_config"]["models"]["chat"] == {
        "url": f"http://{NAME}:8000",
        "runtime": "standalone",
        "task": "generate",
        "queue": {"maxConcurrent": 128},
        "price": {"prompt": 1},
    }
    service = of_kind(objects, "Service")[NAME]["spec"]
    assert service["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
    labels = the(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"] == labels
    assert container()["ports"] == [{"name": "http", "containerPort": 8000}]


def test_ray_knows_nothing_of_it() -> None:
    objects = rendered()
    with pytest.raises(ValueError, match="not enough values"):
        application(objects, "chat")
    on_ray = render_chart({"models": {}})
    assert worker_group(objects, "l4") == worker_group(on_ray, "l4")


def test_one_at_a_url_is_not_the_charts_to_run() -> None:
    elsewhere = {"runtime": "standalone", "url": "http://vllm.team:8000"}
    assert not of_kind(render_chart({"models": {"chat": elsewhere}}), "Deployment")


def test_only_the_guards_credential_opens_it() -> None:
    found = container()
    assert "--middleware=serve_apps.llm.standalone.StandaloneGuard" in found["args"]
    assert {"name": "internal", "mountPath": "/etc/llm-serving/secrets/internal", "readOnly": True} in found[
        "volumeMounts"
    ]
    volumes = {one["name"]: one for one in pod()["volumes"]}
    assert volumes["internal"]["secret"]["secretName"] == "llm-serving-internal"
    assert variables(task="embed")["LLM_SERVING_TASK"] == "embed"


def test_its_pods_go_where_a_worker_for_it_would() -> None:
    values = {
        "nodePools": {"gpus": {"nodeClass": "gpus", "taints": [{"key": "gpus", "effect": "NoSchedule"}]}},
        "workerGroups": {"l40s-x4": {"nodePool": "gpus", "priorityClassName": "high"}},
    }
    model = {"accelerator": {"type": "L40S", "count": 2}}
    found = pod(values, **model)
    worker = worker_group(rendered(values, **model), "l40s-x4")["template"]["spec"]
    for key in ("nodeSelector", "tolerations", "priorityClassName", "serviceAccountName"):
        assert found[key] == worker[key]
    assert found["nodeSelector"]["karpenter.sh/nodepool"] == "gpus"


def test_it_asks_for_its_own_share_of_the_node() -> None:
    resources = container(accelerator={"type": "L40S", "count": 2})["resources"]
    assert resources == {
        "requests": {"cpu": "6", "memory": "48Gi"},
        "limits": {"memory": "48Gi", "nvidia.com/gpu": "2"},
    }


def test_on_cpus_it_is_the_image_for_cpus() -> None:
    group = {"workerGroups": {"cpu-models": {"enabled": True}}}
    found = container(group, accelerator={"type": "cpu", "count": 2})
    assert found["image"].endswith("-cpu")
    assert "nvidia.com/gpu" not in found["resources"]["limits"]
    assert {"name": "VLLM_CPU_OMP_THREADS_BIND", "value": "nobind"} in found["env"]


def test_a_claim_is_mounted_where_its_source_says() -> None:
    found = pod(source="pvc://weights/llama/8b")
    mount = {"name": "claim-weights", "mountPath": "/mnt/models/weights", "readOnly": True}
    assert mount in found["containers"][0]["volumeMounts"]
    volume = {"name": "claim-weights", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}
    assert volume in found["volumes"]
    assert "--model=/mnt/models/weights/llama/8b" in found["containers"][0]["args"]


def test_an_image_is_mounted_where_its_source_says() -> None:
    image = "registry:5000/ml/llama:1"
    found = pod({"image": {"pullPolicy": "Always"}}, source=f"oci://{image}#8b")
    folder = image_folder(image)
    mount = {"name": folder, "mountPath": f"/mnt/models/{folder}", "readOnly": True}
    assert mount in found["containers"][0]["volumeMounts"]
    assert {"name": folder, "image": {"reference": image, "pullPolicy": "Always"}} in found["volumes"]
    assert f"--model=/mnt/models/{folder}/8b" in found["containers"][0]["args"]


@pytest.mark.parametrize(("name", "seconds"), [("least", 540), ("tensor-parallel", 2220)])
def test_it_may_take_as_long_to_start_as_its_accelerators_take_to_fill(name: str, seconds: int) -> None:
    spec = of_kind(each("standalone"), "Deployment")[f"llm-serving-model-{name}"]["spec"]
    probe = spec["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == seconds
    # Else Helm would give up while the model loads.
    assert spec["progressDeadlineSeconds"] == seconds + 900


@pytest.mark.parametrize(("entry", "seconds"), [({}, 300), ({"drainSeconds": 900}, 900)])
def test_a_pod_that_goes_finishes_its_streams(entry: dict[str, Any], seconds: int) -> None:
    found = pod(**entry)
    hook = found["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["python", "-m", "serve_apps.llm.drain", f"--seconds={seconds}"]
    assert found["terminationGracePeriodSeconds"] == seconds + 60


@pytest.mark.parametrize(
    ("entry", "surge", "unavailable"),
    [({}, "100%", 0), ({"surgePercent": 25}, "25%", 0), ({"surgePercent": 0}, "0%", 1)],
)
def test_a_rollout_takes_no_replica_away_unless_there_is_no_room(
    entry: dict[str, Any], surge: str, unavailable: int
) -> None:
    strategy = deployment(**entry)["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": surge, "maxUnavailable": unavailable}


def test_whoever_scales_it_owns_the_number_of_replicas() -> None:
    assert deployment(replicas={"min": 2, "max": 2})["replicas"] == 2
    assert "replicas" not in deployment(replicas={"min": 2, "max": 4})


def test_an_upgrade_of_the_chart_alone_restarts_nothing() -> None:
    labels = deployment()["template"]["metadata"]["labels"]
    assert labels == {
        "app.kubernetes.io/instance": "llm-serving",
        "app.kubernetes.io/component": "model",
        "llm-serving/model": "chat",
    }


def test_a_models_own_environment_goes_first() -> None:
    found = variables(env={"VLLM_NO_USAGE_STATS": "0", "VLLM_LOGGING_LEVEL": "DEBUG"})
    assert (found["VLLM_NO_USAGE_STATS"], found["VLLM_LOGGING_LEVEL"]) == ("0", "DEBUG")


def test_gated_weights_are_fetched_with_the_token() -> None:
    found = container({"security": {"huggingFace": {"existingSecret": "hub"}}})
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert token in found["env"]
    assert "HF_TOKEN" not in variables()


def test_an_overlay_reaches_its_container() -> None:
    overlay = {"spec": {"runtimeClassName": "nvidia", "containers": [{"name": "vllm", "tty": True}]}}
    found = pod({"standalone": {"podTemplate": overlay}})
    assert found["runtimeClassName"] == "nvidia"
    (vllm,) = found["containers"]
    assert vllm["tty"]
    assert vllm["command"] == ["python", "-m", "vllm.entrypoints.openai.api_server"]
