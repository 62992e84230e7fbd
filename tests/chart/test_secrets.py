import base64
from pathlib import Path
from typing import Any

import yaml

from serve_apps.common.secrets import ApiKeys
from tests.chart.render import CHART, helm, of_kind, render_chart
from tools.kube_apiserver import ApiServer


def decoded(objects: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The content of every Secret."""
    return {
        name: {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        for name, secret in of_kind(objects, "Secret").items()
    }


def test_the_gateway_knows_the_initial_key_by_its_hash_only(tmp_path: Path) -> None:
    secrets = decoded(render_chart())
    for key_id, record in secrets["llm-serving-api-keys"].items():
        (tmp_path / key_id).write_text(record)
    key = secrets["llm-serving-initial-key"]["key"]
    assert ApiKeys(tmp_path).identify(key) == "admin"
    assert ApiKeys(tmp_path).identify(key[:-1]) is None
    assert key not in str(secrets["llm-serving-api-keys"])


def test_secrets_are_random() -> None:
    first, second = decoded(render_chart(namespace="one")), decoded(render_chart(namespace="other"))
    for name in first:
        assert set(first[name].values()).isdisjoint(second[name].values())
    assert len(first["llm-serving-internal"]["token"]) == len(first["llm-serving-ray-token"]["auth_token"]) == 48


def test_a_ray_without_authentication_has_no_token() -> None:
    assert "llm-serving-ray-token" not in decoded(render_chart({"security": {"ray": {"auth": "none"}}}))


def test_secrets_that_exist_are_not_made() -> None:
    security = {
        "apiKeys": {"existingSecret": "our-keys"},
        "internal": {"existingSecret": "our-token"},
        "ray": {"existingSecret": "our-ray-token"},
    }
    assert of_kind(render_chart({"security": security}), "Secret") == {}


def test_without_authentication_there_are_no_keys() -> None:
    assert set(of_kind(render_chart({"security": {"auth": "none"}}), "Secret")) == {
        "llm-serving-internal",
        "llm-serving-ray-token",
    }


def upgrade(server: ApiServer, namespace: str, folder: Path) -> list[dict[str, Any]]:
    """What an upgrade renders that can look into the cluster."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(server.kubectl("config", "view", "--raw", "--flatten", namespace=namespace))
    arguments = ("--is-upgrade", "--dry-run=server", f"--kubeconfig={kubeconfig}")
    printed = helm("template", "llm-serving", str(CHART), *arguments)
    return [one for one in yaml.safe_load_all(printed) if one]


def test_an_upgrade_keeps_every_key_and_token(kube_apiserver: ApiServer, tmp_path: Path) -> None:
    kube_apiserver.kubectl("create", "namespace", "secrets-kept")
    installed = [one for one in render_chart() if one["kind"] == "Secret"]
    (keys,) = (one for one in installed if one["metadata"]["name"] == "llm-serving-api-keys")
    keys["data"]["team-a"] = base64.b64encode(b"sha256:salt:digest").decode()
    kube_apiserver.kubectl("create", "-f", "-", objects=installed, namespace="secrets-kept")
    assert decoded(upgrade(kube_apiserver, "secrets-kept", tmp_path)) == decoded(installed)


def test_an_initial_key_that_was_taken_away_does_not_come_back(kube_apiserver: ApiServer, tmp_path: Path) -> None:
    kube_apiserver.kubectl("create", "namespace", "secrets-noted")
    installed = {one["metadata"]["name"]: one for one in render_chart() if one["kind"] == "Secret"}
    del installed["llm-serving-initial-key"]
    kube_apiserver.kubectl("create", "-f", "-", objects=list(installed.values()), namespace="secrets-noted")
    assert decoded(upgrade(kube_apiserver, "secrets-noted", tmp_path)) == decoded(list(installed.values()))
