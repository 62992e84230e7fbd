"""milvus.yaml and what leads to it: the server that keeps the pipelines' documents."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.render import CHART, CHAT, DOCS, EMBEDDER, helm, of_kind, render_chart, the
from tools.kube_apiserver import ApiServer

INSTALLED: dict[str, Any] = {"milvus": {"enabled": True}}
#: With a pipeline that uses it.
USED: dict[str, Any] = {
    "models": {"chat": CHAT, "embedder": EMBEDDER},
    "rag": {"docs": {key: value for key, value in DOCS.items() if key != "vectorStore"}},
    **INSTALLED,
}
NAME = "llm-serving-milvus"


def milvus(**more: Any) -> dict[str, Any]:
    return {"milvus": {"enabled": True, **more}}


def secret(objects: list[dict[str, Any]]) -> dict[str, str]:
    """The Secret of the installed Milvus, decoded."""
    data = of_kind(objects, "Secret")[NAME]["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def configuration(values: dict[str, Any]) -> Any:
    """What Milvus lays over its own configuration."""
    return yaml.safe_load(of_kind(render_chart(values), "ConfigMap")[NAME]["data"]["user.yaml"])


def pod(values: dict[str, Any] = INSTALLED) -> dict[str, Any]:
    found: dict[str, Any] = the(render_chart(values), "StatefulSet")["spec"]["template"]
    return found


def environment(values: dict[str, Any] = INSTALLED) -> dict[str, Any]:
    listed = pod(values)["spec"]["containers"][0]["env"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in listed}


@pytest.mark.parametrize("values", [{}, {"milvus": {"uri": "http://milvus:19530"}}])
def test_one_that_is_elsewhere_is_not_installed(values: dict[str, Any]) -> None:
    rendered = render_chart(values)
    assert of_kind(rendered, "StatefulSet") == of_kind(rendered, "ConfigMap") == of_kind(rendered, "Service") == {}
    assert NAME not in of_kind(rendered, "Secret")


def test_it_is_a_milvus_of_one_process_with_all_it_keeps_on_one_volume() -> None:
    container = pod()["spec"]["containers"][0]
    assert container["args"] == ["milvus", "run", "standalone"]
    plain = {name: value for name, value in environment().items() if isinstance(value, str)}
    assert plain == {
        "DEPLOY_MODE": "STANDALONE",
        "COMMON_STORAGETYPE": "local",
        "ETCD_USE_EMBED": "true",
        "ETCD_DATA_DIR": "/var/lib/milvus/etcd",
        "ETCD_CONFIG_PATH": "/milvus/configs/embedEtcd.yaml",
    }
    mounted = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    assert mounted["/var/lib/milvus"] == "data"
    (claim,) = the(render_chart(INSTALLED), "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}


def test_its_service_leads_to_its_pod() -> None:
    service = the(render_chart(INSTALLED), "Service")
    assert service["spec"]["selector"].items() <= pod()["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    ports = {one["name"]: one["containerPort"] for one in pod()["spec"]["containers"][0]["ports"]}
    assert (port["port"], ports[port["targetPort"]]) == (19530, 19530)


def test_its_etcd_is_reached_from_its_own_pod_only() -> None:
    etcd = yaml.safe_load(of_kind(render_chart(INSTALLED), "ConfigMap")[NAME]["data"]["embedEtcd.yaml"])
    assert etcd["listen-client-urls"] == "http://127.0.0.1:2379"
    assert "listen-peer-urls" not in etcd  # etcd's own default is loopback


def test_it_asks_for_a_password_whatever_else_is_set() -> None:
    assert configuration(INSTALLED) == {
        "common": {"security": {"authorizationEnabled": True}},
        "mq": {"type": "rocksmq"},
    }
    more = milvus(config={"common": {"security": {"superUsers": ["ops"]}}, "mq": {"type": "woodpecker"}})
    assert configuration(more) == {
        "common": {"security": {"authorizationEnabled": True, "superUsers": ["ops"]}},
        "mq": {"type": "woodpecker"},
    }


def test_the_password_is_random_and_stands_in_the_secret_only() -> None:
    rendered = render_chart(USED)
    password = secret(rendered)["password"]
    assert len(password) == 48
    assert secret(rendered)["token"] == f"root:{password}"
    assert password not in str([one for one in rendered if one["kind"] != "Secret"])
    assert password != secret(render_chart(USED, namespace="other"))["password"]
    assert environment()["COMMON_SECURITY_DEFAULTROOTPASSWORD"] == {"secretKeyRef": {"name": NAME, "key": "password"}}


@pytest.mark.parametrize(
    ("more", "name"), [({"existingSecret": "ours"}, "ours"), ({"externalKey": "llm/milvus"}, NAME)]
)
def test_a_password_from_elsewhere_is_not_made(more: dict[str, str], name: str) -> None:
    values = {**milvus(**more), "security": {"externalSecrets": {"store": {"name": "vault"}}}}
    assert NAME not in of_kind(render_chart(values), "Secret")
    assert environment(values)["COMMON_SECURITY_DEFAULTROOTPASSWORD"]["secretKeyRef"]["name"] == name


def test_it_is_asked_how_it_is_where_its_metrics_are() -> None:
    container = pod()["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_its_user_owns_the_volume_and_reads_its_program() -> None:
    context = pod()["spec"]["securityContext"]
    assert context.items() >= {"runAsUser": 999, "fsGroup": 999}.items()
    # Images up to 2.6.1 at least: root:root, mode 0774.
    assert context["supplementalGroups"] == [0]


def test_documents_outlive_the_release_and_so_does_what_opens_them() -> None:
    rendered = render_chart(INSTALLED)
    assert the(rendered, "StatefulSet")["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    assert of_kind(rendered, "Secret")[NAME]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_its_values_reach_it() -> None:
    values = milvus(
        priorityClassName="high",
        image="registry.example.com/milvus:v2.6",
        resources={"limits": {"memory": "16Gi"}},
        nodeSelector={"disk": "nvme"},
        tolerations=[{"key": "memory", "operator": "Exists"}],
        storage={"size": "500Gi", "className": "fast"},
    )
    spec = pod(values)["spec"]
    assert spec["priorityClassName"] == "high"
    assert spec["nodeSelector"] == {"disk": "nvme"}
    assert spec["tolerations"] == [{"key": "memory", "operator": "Exists"}]
    assert spec["containers"][0]["image"] == "registry.example.com/milvus:v2.6"
    assert spec["containers"][0]["resources"]["limits"] == {"memory": "16Gi"}
    claim = the(render_chart(values), "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert (claim["resources"]["requests"]["storage"], claim["storageClassName"]) == ("500Gi", "fast")


def test_a_change_of_its_configuration_restarts_it_and_an_upgrade_of_the_chart_does_not() -> None:
    assert pod()["metadata"]["labels"] == {
        "app.kubernetes.io/instance": "llm-serving",
        "app.kubernetes.io/component": "milvus",
    }
    configured = pod(milvus(config={"queryNode": {"mmap": {"vectorIndex": True}}}))
    assert configured["metadata"]["annotations"] != pod()["metadata"]["annotations"]
    assert configured["spec"] == pod()["spec"]


def test_an_upgrade_keeps_the_password_and_a_user_of_ones_own(kube_apiserver: ApiServer, tmp_path: Path) -> None:
    kube_apiserver.kubectl("create", "namespace", "milvus-kept")
    installed = [of_kind(render_chart(INSTALLED), "Secret")[NAME]]
    installed[0]["data"]["token"] = base64.b64encode(b"pipelines:ours").decode()
    kube_apiserver.kubectl("create", "-f", "-", objects=installed, namespace="milvus-kept")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(kube_apiserver.kubectl("config", "view", "--raw", "--flatten", namespace="milvus-kept"))
    arguments = ("--is-upgrade", "--dry-run=server", f"--kubeconfig={kubeconfig}")
    printed = helm("template", "llm-serving", str(CHART), *arguments, values=INSTALLED)
    assert secret([one for one in yaml.safe_load_all(printed) if one]) == secret(installed)
