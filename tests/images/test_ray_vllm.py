import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.images import rules
from tests.images.dockerfile import REPOSITORY, Dockerfile, dockerfile
from tools.lock import OWN

IMAGE = REPOSITORY / "images" / "ray-vllm"
LOCKS = (
    IMAGE / "requirements.txt",
    IMAGE / "requirements-cpu.txt",
    REPOSITORY / "images" / "ray-serve" / "requirements.txt",
    REPOSITORY / "tools" / "python" / "requirements.txt",
)


@pytest.fixture
def file() -> Dockerfile:
    return dockerfile("ray-vllm")


def test_the_base_can_be_given_by_digest(file: Dockerfile) -> None:
    rules.assert_the_base_is_an_argument(file)


def test_packages_come_from_the_hashed_lock(file: Dockerfile) -> None:
    rules.assert_packages_come_from_the_hashed_lock(file, "images/ray-vllm/requirements.txt")


def test_the_apps_are_baked_as_a_wheel(file: Dockerfile) -> None:
    rules.assert_the_wheel_is_baked(file)


def test_a_change_of_our_code_is_a_layer_of_its_own(file: Dockerfile) -> None:
    rules.assert_a_change_of_our_code_is_a_layer_of_its_own(file)


def test_no_compiler_is_shipped(file: Dockerfile) -> None:
    rules.assert_the_final_stage_is_lean(file, packages="libnuma1")


def test_it_runs_without_root(file: Dockerfile) -> None:
    rules.assert_it_runs_without_root(file)


def test_ray_starts_our_haproxy(file: Dockerfile) -> None:
    rules.assert_ray_starts_our_haproxy(file)


def test_no_secret_is_named(file: Dockerfile) -> None:
    rules.assert_no_secret_is_named(file)


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-cpu.txt"])
def test_it_has_all_that_the_other_image_has(lock: str) -> None:
    """A model's worker also runs HAProxy and may run a pipeline's replica."""
    pin = re.compile(r"(?m)^([a-z0-9-]+)==(\S+)")
    serve = dict(pin.findall((IMAGE.parent / "ray-serve" / "requirements.txt").read_text()))
    here = dict(pin.findall((IMAGE / lock).read_text()))
    assert serve.keys() <= here.keys()
    assert {name for name, version in serve.items() if here[name] != version} <= OWN


def test_the_gpus_lock_has_what_streams_weights_and_hands_over_kv_caches() -> None:
    """And none else: the image for CPUs and its tests would be made anew for packages that they cannot use."""
    wanted = {"runai-model-streamer", "runai-model-streamer-s3", "runai-model-streamer-gcs", "nixl", "boto3"}
    names = {lock: set(re.findall(r"(?m)^([a-z0-9-]+)==", lock.read_text())) for lock in LOCKS}
    assert wanted <= names.pop(IMAGE / "requirements.txt")
    assert all(not wanted & others for others in names.values())


def test_what_would_compile_at_run_time_is_off(file: Dockerfile) -> None:
    environment = " ".join(file.final.all("ENV"))
    assert "CC=/opt/serve/bin/triton-cc" in environment
    assert "VLLM_USE_FLASHINFER_SAMPLER=0" in environment


def test_triton_is_handed_what_was_built(tmp_path: Path) -> None:
    (tmp_path / "cuda_utils.so").write_text("built")
    done = triton_cc(tmp_path, "/tmp/x/cuda_utils.c", "-O3", "-shared", "-o", str(tmp_path / "out.so"), "-lcuda")
    assert done.returncode == 0
    assert (tmp_path / "out.so").read_text() == "built"


def test_other_source_is_refused_with_the_way_out(tmp_path: Path) -> None:
    done = triton_cc(tmp_path, "/tmp/x/kernel.c", "-o", str(tmp_path / "out.so"))
    assert done.returncode == 1
    assert "this image has no compiler" in done.stderr
    assert not (tmp_path / "out.so").exists()


def triton_cc(prebuilt: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRITON_PREBUILT": str(prebuilt)}
    command = [str(IMAGE / "triton-cc"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
