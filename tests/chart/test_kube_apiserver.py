import pytest

from tests.chart.objects import config_map, ray_service
from tests.tools.doctor.clusters import DEFINITIONS
from tools.doctor.cluster import read
from tools.kube_apiserver import ApiServer, Refused


def test_valid_objects_are_accepted(kube_apiserver: ApiServer) -> None:
    kube_apiserver.dry_run([ray_service(), config_map()])


def test_an_unknown_field_is_refused(kube_apiserver: ApiServer) -> None:
    service = ray_service()
    service["spec"]["rayClusterConfig"]["headGroupSpecs"] = {}
    with pytest.raises(Refused, match=r"\.spec\.rayClusterConfig\.headGroupSpecs: field not declared in schema"):
        kube_apiserver.dry_run([service])


def test_a_wrong_type_is_refused(kube_apiserver: ApiServer) -> None:
    service = ray_service()
    service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] = "two"
    with pytest.raises(Refused, match=r"maxReplicas"):
        kube_apiserver.dry_run([service])


def test_a_rule_beyond_the_schema_is_refused(kube_apiserver: ApiServer) -> None:
    service = ray_service()
    service["spec"]["managedBy"] = "somebody-else"
    with pytest.raises(Refused, match=r"managedBy"):
        kube_apiserver.dry_run([service])


def test_a_namespace_is_made_when_it_is_first_named(kube_apiserver: ApiServer) -> None:
    elsewhere = config_map()
    elsewhere["metadata"]["namespace"] = "monitoring"
    kube_apiserver.dry_run([ray_service(), elsewhere], namespace="serving")


def test_a_dry_run_leaves_nothing_behind(kube_apiserver: ApiServer) -> None:
    kube_apiserver.dry_run([config_map()])
    assert "settings" not in kube_apiserver.kubectl("get", "configmaps", "--output=name")


def test_it_answers_every_question_of_the_doctors(kube_apiserver: ApiServer) -> None:
    found = read(kube_apiserver.kubectl, image_volumes=True)
    assert found.image_volumes is True
    assert found.kubernetes.startswith("1.34.")
    assert found.definitions.keys() >= DEFINITIONS.keys()
    assert "v1" in found.definitions["rayservices.ray.io"]
    assert (found.nodes, found.node_pools, found.storage_classes) == ([], {}, {})
    assert (found.quotas, found.bounds) == ([], [])
    assert "apps" in found.api_groups
