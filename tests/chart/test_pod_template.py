"""_pod-template.tpl: what head and workers share."""

from typing import Any

import pytest

from serve_apps.common import drain
from serve_apps.common.logging import CONTAINER_LOG
from serve_apps.llm.sources import image_folder
from tests.chart.render import environment, ray_cluster, ray_container, render_chart, worker_group


def groups(values: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The head and every worker group, by name."""
    cluster = ray_cluster(render_chart(values))
    return {"head": cluster["headGroupSpec"]} | {one["groupName"]: one for one in cluster["workerGroupSpecs"]}


CPU_MODELS = {"workerGroups": {"cpu-models": {"enabled": True}}}


def test_every_pod_may_run_under_the_restricted_standard() -> None:
    for group in groups(CPU_MODELS).values():
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert ray_container(group)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_everything_ray_writes_to_is_a_volume() -> None:
    for group in groups().values():
        writable = {
            mount["mountPath"]: mount["name"]
            for mount in ray_container(group)["volumeMounts"]
            if not mount.get("readOnly")
        }
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        assert {"/dev/shm", "/tmp", "/home/ray"} <= set(writable)
        assert all("emptyDir" in volumes[name] for name in writable.values())
        assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory"}


def test_haproxy_and_direct_streaming_are_on_everywhere() -> None:
    for group in groups(CPU_MODELS).values():
        assert (
            environment(group).items()
            >= {
                "RAY_SERVE_ENABLE_HA_PROXY": "1",
                "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
                "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
                "RAY_SERVE_LOG_TO_STDERR": "1",
                "RAY_USAGE_STATS_ENABLED": "0",
                CONTAINER_LOG: "/proc/1/fd/2",
            }.items()
        )


def test_requests_yield_to_nothing_of_ray_but_on_the_head() -> None:
    niceness = {name: environment(group).get("RAY_worker_niceness") for name, group in groups(CPU_MODELS).items()}
    assert niceness.pop("head") is None
    assert set(niceness.values()) == {"0"}


def test_only_cpu_models_get_vllms_cpu_settings() -> None:
    settings = {
        name: {key: value for key, value in environment(group).items() if key.startswith(("VLLM_", "OMP_", "TORCH_"))}
        for name, group in groups(CPU_MODELS).items()
    }
    assert settings.pop("cpu-models") == {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TORCH_COMPILE_DISABLE": "1",
    }
    assert not any(settings.values())


def test_pods_and_haproxy_outlive_the_longest_drain() -> None:
    rendered = groups({"maxDrainSeconds": 900, "gateway": {"drainSeconds": 900}})
    for name, group in rendered.items():
        assert int(environment(group)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > 900
        if name != "head":
            hook = ray_container(group)["lifecycle"]["preStop"]["exec"]["command"]
            assert hook == ["python", "-m", drain.__name__, "--seconds=900"]
            # Beside the drain, the head may be asked once more.
            assert group["template"]["spec"]["terminationGracePeriodSeconds"] > 900 + drain.HEAD_AWAY_S


def test_ray_itself_waits_for_nothing_since_workers_have_drained_before() -> None:
    for group in groups().values():
        assert environment(group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] == "0"
    assert "lifecycle" not in ray_container(groups()["head"])


def test_priorities_are_passed_on() -> None:
    def priority(group: dict[str, Any]) -> Any:
        return group["template"]["spec"].get("priorityClassName")

    values = {"head": {"priorityClassName": "high"}, "workerGroups": {"l4": {"priorityClassName": "low"}}}
    assert {name: found for name, group in groups(values).items() if (found := priority(group))} == {
        "head": "high",
        "l4": "low",
    }
    assert not any(priority(group) for group in groups().values())


def test_the_head_lists_all_its_ports() -> None:
    assert {one["name"]: one["containerPort"] for one in ray_container(groups()["head"])["ports"]} == {
        "gcs-server": 6379,
        "dashboard": 8265,
        "client": 10001,
        "serve": 8000,
        "metrics": 8080,
        "as-metrics": 44217,
        "dash-metrics": 44227,
    }


def test_the_serve_port_is_the_gateways_on_every_pod() -> None:
    for group in groups({"gateway": {"port": 9000}}).values():
        ports = {one["name"]: one["containerPort"] for one in ray_container(group)["ports"]}
        assert ports["serve"] == 9000
        assert ports["metrics"] == 8080
        assert all(len(name) <= 15 for name in ports)


def test_a_worker_is_ready_when_its_proxy_answers_and_one_slow_answer_does_not_matter() -> None:
    probe = ray_container(groups()["l4"])["readinessProbe"]
    assert probe["httpGet"] == {"path": "/-/healthz", "port": "serve"}
    assert (probe["timeoutSeconds"], probe["failureThreshold"]) == (5, 3)


@pytest.mark.parametrize("name", ["head", "cpu", "l4"])
def test_a_pod_lives_while_its_ray_node_does(name: str) -> None:
    container = ray_container(groups()[name])
    for probe in (container["startupProbe"], container["livenessProbe"]):
        assert probe["httpGet"] == {"path": "/api/healthz", "port": 52365}


def test_the_head_is_ready_when_ray_is_since_it_serves_nothing() -> None:
    assert ray_container(groups()["head"])["readinessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}


def mounts(group: dict[str, Any]) -> dict[str, str]:
    """Where each Secret or claim of a group's pod is mounted."""
    names = {
        volume["name"]: volume.get("secret", {}).get("secretName")
        or volume.get("persistentVolumeClaim", {}).get("claimName")
        for volume in group["template"]["spec"]["volumes"]
    }
    found = ray_container(group)["volumeMounts"]
    assert all(mount["readOnly"] for mount in found if names[mount["name"]])
    return {mount["mountPath"]: names[mount["name"]] for mount in found if names[mount["name"]]}


def test_workers_have_the_internal_credential_and_only_the_gateways_have_the_keys() -> None:
    rendered = groups()
    internal = {"/etc/llm-serving/secrets/internal": "llm-serving-internal"}
    assert mounts(rendered["head"]) == {}
    assert mounts(rendered["l4"]) == internal
    assert mounts(rendered["cpu"]) == {
        **internal,
        "/etc/llm-serving/secrets/api-keys": "llm-serving-api-keys",
        "/etc/llm-serving/secrets/upstreams": "llm-serving-upstreams",
        "/etc/llm-serving/secrets/tools": "llm-serving-tools",
        "/etc/llm-serving/secrets/milvus": "llm-serving-milvus",
    }


def test_secrets_that_exist_are_mounted_instead() -> None:
    security = {
        "apiKeys": {"existingSecret": "our-keys"},
        "internal": {"existingSecret": "our-token"},
        "upstreams": {"existingSecret": "our-providers"},
        "tools": {"existingSecret": "our-tools"},
    }
    milvus = {"uri": "http://milvus:19530", "existingSecret": "our-milvus"}
    assert mounts(groups({"security": security, "milvus": milvus})["cpu"]) == {
        "/etc/llm-serving/secrets/internal": "our-token",
        "/etc/llm-serving/secrets/api-keys": "our-keys",
        "/etc/llm-serving/secrets/upstreams": "our-providers",
        "/etc/llm-serving/secrets/tools": "our-tools",
        "/etc/llm-serving/secrets/milvus": "our-milvus",
    }


def secret_volume(group: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The Secret behind the volume ``name`` of a group's pod."""
    volumes = group["template"]["spec"]["volumes"]
    return next((volume["secret"] for volume in volumes if volume["name"] == name), None)


def test_a_model_that_runs_elsewhere_changes_no_pod() -> None:
    external = {"runtime": "external", "url": "https://api.example.com", "credential": "provider"}
    assert groups({"models": {"provider": external}}) == groups()
    for name in ("upstreams", "tools", "milvus"):
        volume = secret_volume(groups()["cpu"], name)
        assert volume is not None
        assert volume["optional"]


def test_a_milvus_changes_no_pod_of_ray() -> None:
    for milvus in ({"enabled": True}, {"uri": "http://milvus:19530"}):
        assert groups({"milvus": milvus}) == groups()


@pytest.mark.parametrize(
    ("redis", "secret"),
    [
        ({"enabled": True}, "llm-serving-redis"),
        ({"address": "redis:6379", "existingSecret": "our-redis"}, "our-redis"),
        ({"address": "redis:6379"}, None),
        ({}, None),
    ],
)
def test_the_gateway_reads_the_password_of_redis_and_nothing_else_of_its_secret(
    redis: dict[str, Any], secret: str | None
) -> None:
    rendered = groups({"redis": redis})
    assert mounts(rendered["cpu"]).get("/etc/llm-serving/secrets/redis") == secret
    assert "/etc/llm-serving/secrets/redis" not in mounts(rendered["l4"])
    if secret:
        volume = secret_volume(rendered["cpu"], "redis")
        assert volume is not None
        assert volume["items"] == [{"key": "password", "path": "password"}]


def test_without_authentication_no_keys_are_mounted() -> None:
    assert "/etc/llm-serving/secrets/api-keys" not in mounts(groups({"security": {"auth": "none"}})["cpu"])


def test_claims_with_weights_are_mounted_where_sources_look_for_them() -> None:
    rendered = groups({"workerGroups": {"l4": {"modelClaims": ["weights", "more"]}}})
    assert mounts(rendered["l4"]).items() >= {"/mnt/models/weights": "weights", "/mnt/models/more": "more"}.items()
    assert "/mnt/models/weights" not in mounts(rendered["l40s"])


def test_images_with_weights_are_mounted_where_sources_look_for_them() -> None:
    images = ["registry:5000/chat:1", "registry:5000/chat:2"]
    rendered = groups({"workerGroups": {"l4": {"modelImages": images}}, "image": {"pullSecrets": [{"name": "pull"}]}})
    spec = rendered["l4"]["template"]["spec"]
    for image in images:
        folder = image_folder(image)
        assert {"name": folder, "image": {"reference": image, "pullPolicy": "IfNotPresent"}} in spec["volumes"]
        mount = {"name": folder, "mountPath": f"/mnt/models/{folder}", "readOnly": True}
        assert mount in ray_container(rendered["l4"])["volumeMounts"]
    # The kubelet pulls them as it pulls the containers' images.
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert not any("image" in one for one in rendered["l40s"]["template"]["spec"]["volumes"])


def test_what_models_download_and_compile_goes_with_the_pod_or_stays_on_a_claim() -> None:
    def cache(**more: Any) -> dict[str, Any]:
        """What is mounted over the home, and below it."""
        group = groups({"workerGroups": {"l4": more}})["l4"]
        volumes = {one["name"]: one for one in group["template"]["spec"]["volumes"]}
        mounts = ray_container(group)["volumeMounts"]
        return {one["mountPath"]: volumes[one["name"]] for one in mounts if one["mountPath"].startswith("/home")}

    home = {"/home/ray": {"name": "home", "emptyDir": {}}}
    kept = {"/home/ray/.cache": {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}}
    assert cache() == home
    assert cache(cacheClaim="cache") == home | kept


def test_documents_go_with_the_pod_or_stay_on_a_claim() -> None:
    def data(group: dict[str, Any]) -> dict[str, Any]:
        (found,) = (one for one in group["template"]["spec"]["volumes"] if one["name"] == "data")
        return {key: value for key, value in found.items() if key != "name"}

    on_a_claim = groups({"pipelines": {"dataClaim": "vectors"}})
    assert data(groups()["cpu"]) == {"emptyDir": {}}
    assert data(on_a_claim["cpu"]) == {"persistentVolumeClaim": {"claimName": "vectors"}}
    assert on_a_claim["l4"] == groups()["l4"]


def claims(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each volume with a claim asks for, by the volume's name."""
    volumes = pod["spec"]["volumes"]
    return {one["name"]: one["persistentVolumeClaim"] for one in volumes if "persistentVolumeClaim" in one}


def claim_mounts(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the pod's containers have a claim."""
    containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    return [one for each in containers for one in each["volumeMounts"] if one["name"] in claims(pod)]


BOTH_ON_ONE = {"batch": {"enabled": True, "storage": "pvc://both/batches"}, "pipelines": {"dataClaim": "both"}}


def test_a_claim_for_documents_and_batches_is_one_volume() -> None:
    """The kubelet waits for ever for the second volume of a claim."""
    pod = groups(BOTH_ON_ONE)["cpu"]["template"]
    assert claims(pod) == {"data": {"claimName": "both"}}
    assert claim_mounts(pod) == [
        {"name": "data", "mountPath": "/var/lib/llm-serving"},
        {"name": "data", "mountPath": "/mnt/batch"},
    ]


def test_claims_that_differ_are_volumes_of_their_own() -> None:
    values = {**BOTH_ON_ONE, "pipelines": {"dataClaim": "vectors"}}
    pod = groups(values)["cpu"]["template"]
    assert claims(pod) == {"data": {"claimName": "vectors"}, "batch": {"claimName": "both"}}
    assert [one["name"] for one in claim_mounts(pod)] == ["data", "batch"]


def test_weights_on_a_claim_that_is_written_to_elsewhere_stay_read_only() -> None:
    values = {**BOTH_ON_ONE, "workerGroups": {"cpu": {"modelClaims": ["both"], "cacheClaim": "both"}}}
    pod = groups(values)["cpu"]["template"]
    assert claims(pod) == {"cache": {"claimName": "both"}}
    written = ("/var/lib/llm-serving", "/mnt/batch", "/home/ray/.cache")
    assert claim_mounts(pod) == [
        *({"name": "cache", "mountPath": path} for path in written),
        {"name": "cache", "mountPath": "/mnt/models/both", "readOnly": True},
    ]


def test_a_claim_that_is_only_read_is_read_only_itself() -> None:
    """As one must be whose volume many nodes may read, and none write."""
    mounts = [{"name": "more", "mountPath": "/more"}]
    overlay = {
        "spec": {
            "containers": [{"name": "ray", "volumeMounts": mounts}],
            "initContainers": [{"name": "look", "image": "look:1", "volumeMounts": mounts}],
            "volumes": [{"name": "more", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}],
        }
    }
    pod = groups({"workerGroups": {"l4": {"modelClaims": ["weights"], "podTemplate": overlay}}})["l4"]["template"]
    ((name, claim),) = claims(pod).items()
    assert claim == {"claimName": "weights", "readOnly": True}
    assert claim_mounts(pod) == [
        {"name": name, "mountPath": path, "readOnly": True} for path in ("/mnt/models/weights", "/more", "/more")
    ]


def test_batches_on_a_claim_are_mounted_where_their_application_runs() -> None:
    storage = {"storage": "pvc://batches/production"}
    rendered = groups({"batch": {"enabled": True, **storage}})
    volume = {"name": "batch", "persistentVolumeClaim": {"claimName": "batches"}}
    assert volume in rendered["cpu"]["template"]["spec"]["volumes"]
    assert {"name": "batch", "mountPath": "/mnt/batch"} in ray_container(rendered["cpu"])["volumeMounts"]
    assert rendered["l4"] == groups()["l4"]
    assert groups({"batch": storage}) == groups({"batch": {"enabled": True, "storage": "s3://bucket"}}) == groups()


def test_the_hub_token_goes_to_workers_with_models_only() -> None:
    rendered = groups({"security": {"huggingFace": {"existingSecret": "hub"}}})
    token = {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert {name: environment(group).get("HF_TOKEN") for name, group in rendered.items()} == {
        name: None if name in ("head", "cpu") else token for name in rendered
    }


def test_workers_use_the_charts_account_without_its_token_and_the_head_the_operators() -> None:
    rendered = groups()
    worker, head = rendered["l4"]["template"]["spec"], rendered["head"]["template"]["spec"]
    assert (worker["serviceAccountName"], worker["automountServiceAccountToken"]) == ("llm-serving", False)
    assert "serviceAccountName" not in head


def test_pods_bear_the_release_and_nothing_of_kuberays() -> None:
    labels = worker_group(render_chart(release="prod"), "cpu")["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/instance": "prod"}


def test_workers_of_a_group_spread_over_nodes_and_zones_and_the_head_is_one() -> None:
    objects = render_chart()
    pods = {"app.kubernetes.io/instance": "llm-serving", "ray.io/group": "l4"}
    assert worker_group(objects, "l4")["template"]["spec"]["topologySpreadConstraints"] == [
        {
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": pods},
            # While a second RayCluster takes over, each counts its own.
            "matchLabelKeys": ["ray.io/cluster"],
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]
    assert "topologySpreadConstraints" not in ray_cluster(objects)["headGroupSpec"]["template"]["spec"]
