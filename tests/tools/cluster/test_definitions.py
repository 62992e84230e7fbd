from typing import Any

import pytest

from tools.cluster import definitions
from tools.cluster.definitions import dns
from tools.cluster.machine import DNS_ADDRESS
from tools.cluster.network import SERVICES
from tools.crds import crd_files


def test_the_dns_service_leads_to_the_control_machine() -> None:
    service, endpoints = dns()
    assert service["spec"]["clusterIP"] == DNS_ADDRESS
    assert DNS_ADDRESS in map(str, SERVICES)
    assert endpoints["endpoints"] == [{"addresses": ["10.89.0.1"]}]
    assert endpoints["metadata"]["labels"] == {"kubernetes.io/service-name": service["metadata"]["name"]}


def test_only_definitions_that_are_not_there_are_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"rayclusters.ray.io", "rayservices.ray.io"}
    applied: list[str] = []

    def kubectl(*words: str, **_: Any) -> str:
        applied.extend(word for word in words if word.startswith("--filename="))
        return "\n".join(all_names() if applied else known)

    monkeypatch.setattr(definitions, "kubectl", kubectl)
    definitions.learn_custom_resources()
    assert len(applied) == len(all_names()) - len(known)
    assert not [name for name in applied if "rayclusters" in name]
    assert [name for name in applied if "rayjobs" in name]


def all_names() -> list[str]:
    return [".".join(reversed(file.stem.split("_"))) for file in crd_files()]
