"""tests/ask.yaml: what `helm test` runs."""

from typing import Any

from serve_apps.gateway import ask
from tests.chart.render import of_kind, render_chart


def pod(values: dict[str, Any] | None = None, release: str = "llm-serving") -> dict[str, Any]:
    (found,) = of_kind(render_chart(values, release=release), "Pod").values()
    return found


def test_it_is_a_test_that_leaves_nothing_behind_when_it_passes() -> None:
    annotations = pod()["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "test"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert pod()["spec"]["restartPolicy"] == "Never"


def test_it_asks_the_serve_service() -> None:
    container = pod({"gateway": {"port": 9000}}, release="prod")["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", ask.__name__]
    assert container["args"][0] == "http://prod-llm-serving-serve-svc:9000"
    assert container["image"].endswith("ray-serve:0.1.0")


def test_it_waits_longer_than_a_model_takes_to_start_and_not_for_ever() -> None:
    spec = pod({"gateway": {"firstByteTimeoutS": 1800}})["spec"]
    assert spec["containers"][0]["args"][1] == "--within=2100"
    assert spec["activeDeadlineSeconds"] > 2100


def test_it_shows_the_internal_credential_and_has_no_other() -> None:
    spec = pod({"security": {"internal": {"existingSecret": "our-token"}}})["spec"]
    assert [volume["secret"]["secretName"] for volume in spec["volumes"]] == ["our-token"]
    (mount,) = spec["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/etc/llm-serving/secrets/internal", True)
