import pytest

from tests.chart.kubernetes import validate_objects
from tests.chart.objects import config_map, ray_service


def test_valid_objects_pass() -> None:
    validate_objects([ray_service(), config_map()])


def test_an_unknown_field_is_refused_by_its_path() -> None:
    service = ray_service()
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imge"] = "ray:1"
    with pytest.raises(AssertionError, match=r"^RayService/demo: at '/spec/.*/containers/0': .* 'imge' not allowed$"):
        validate_objects([config_map(), service])


def test_a_wrong_type_is_refused() -> None:
    settings = config_map()
    settings["data"]["key"] = 1
    with pytest.raises(AssertionError, match=r"^ConfigMap/settings: at '/data/key': got number, want string$"):
        validate_objects([settings])


def test_an_unknown_kind_is_refused() -> None:
    service = ray_service() | {"kind": "RayServe"}
    with pytest.raises(AssertionError, match=r"^RayServe/demo: could not find schema for RayServe$"):
        validate_objects([service])


def test_unknown_metadata_of_a_custom_resource_is_refused() -> None:
    service = ray_service()
    service["metadata"]["lables"] = {}
    with pytest.raises(AssertionError, match=r"^RayService/demo: at '/metadata': .* 'lables' not allowed$"):
        validate_objects([service])


def test_every_fault_is_named() -> None:
    first, second = config_map(), config_map()
    first["metadata"]["name"], first["date"] = "first", {}
    second["metadata"]["name"], second["data"] = "second", []
    with pytest.raises(AssertionError) as refused:
        validate_objects([first, second])
    assert sorted(line.partition(":")[0] for line in str(refused.value).splitlines()) == [
        "ConfigMap/first",
        "ConfigMap/second",
    ]
