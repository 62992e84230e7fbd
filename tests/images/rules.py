"""What is true of both images; test_ray_serve.py and test_ray_vllm.py ask it of theirs."""

import re

from tests.images.dockerfile import Dockerfile

#: Programs and packages that turn source into machine code.
COMPILERS = re.compile(r"\b(gcc|g\+\+|clang|cc1|build-essential|libc6-dev|nvcc|cmake|ninja|rustc)\b")


def assert_the_base_is_an_argument(file: Dockerfile) -> None:
    assert [text.partition("=")[0] for text in file.head.all("ARG")] == ["BASE_IMAGE"]
    *others, last = file.stages
    assert {stage.base for stage in others} == {"${BASE_IMAGE}"}
    assert last.base == "runtime"


def assert_packages_come_from_the_hashed_lock(file: Dockerfile, default: str) -> None:
    packages = file.stage("packages")
    assert f"LOCK={default}" in packages.all("ARG")
    assert "${LOCK} requirements.txt" in packages.all("COPY")
    runs = [text for stage in file.stages for text in stage.all("RUN")]
    installs = [command for text in runs for command in text.split("&&") if "pip" in command and " install " in command]
    from_index = [command for command in installs if "--no-index" not in command]
    assert len(from_index) == 2
    for command in from_index:
        assert "--require-hashes --no-deps --only-binary :all: -r" in command


def assert_the_wheel_is_baked(file: Dockerfile) -> None:
    apps = file.stage("apps")
    assert "serve_apps serve_apps" in apps.all("COPY")
    made = next(text for text in apps.all("RUN") if "pip wheel" in text)
    assert "--no-build-isolation" in made, "an isolated build would fetch setuptools past the lock"
    assert made.endswith("install --no-deps --no-index --target /apps dist/*.whl")


def assert_a_change_of_our_code_is_a_layer_of_its_own(file: Dockerfile) -> None:
    assert not [text for text in file.stage("packages").all("COPY") if "serve_apps" in text]
    assert file.stage("runtime").all("COPY") == ["--from=packages /opt/serve /opt/serve"]
    assert file.stages[-1].all("COPY") == ["--from=apps /apps /opt/serve/lib/python3.11/site-packages"]
    assert not file.stages[-1].all("RUN")


def assert_the_final_stage_is_lean(file: Dockerfile, packages: str = "") -> None:
    """``packages`` of the distribution are all that is installed."""
    runs = " ".join(file.final.all("RUN"))
    assert not COMPILERS.search(runs)
    assert re.findall(r"apt-get install (?:--\S+ )*([^&]+?) &&", runs) == ([packages] if packages else [])
    assert not file.final.all("ADD")


def assert_it_runs_without_root(file: Dockerfile) -> None:
    assert file.final.all("USER") == ["1000:1000"]
    assert "useradd --uid 1000" in " ".join(file.final.all("RUN"))
    instructions = [name for name, _ in file.final.instructions]
    assert "RUN" not in instructions[instructions.index("USER") :]


def assert_no_secret_is_named(file: Dockerfile) -> None:
    texts = [text for stage in [file.head, *file.stages] for name, text in stage.instructions if name in ("ARG", "ENV")]
    assert not [text for text in texts if re.search(r"(?i)token|password|secret|key", text)]


def assert_ray_starts_our_haproxy(file: Dockerfile) -> None:
    """The program is where the wheel puts it."""
    path = "RAY_SERVE_HAPROXY_BINARY_PATH=/opt/serve/lib/python3.11/site-packages/serve_apps/haproxy"
    assert path in " ".join(file.final.all("ENV")).split()
