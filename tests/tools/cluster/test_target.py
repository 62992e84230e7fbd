import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.cluster import lifecycle
from tools.cluster import target as module
from tools.cluster.errors import Failed
from tools.cluster.state import KUBECONFIG
from tools.cluster.target import Target, target


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root's, without kind and KUBECONFIG, and with our cluster up."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("LLM_SERVING_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(lifecycle, "running", lambda: True)
    monkeypatch.setattr(lifecycle, "up", must_not_run)


def must_not_run() -> None:
    raise AssertionError("our cluster was started")


@pytest.fixture
def with_kind(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(clusters: str) -> None:
        printed = {"get clusters": clusters, "get kubeconfig": "kind: Config"}
        monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
        monkeypatch.setattr(module, "_kind", lambda *words: printed[" ".join(words[:2])])

    return install


def test_the_cluster_of_kubeconfig_comes_first(
    monkeypatch: pytest.MonkeyPatch, with_kind: Callable[[str], None]
) -> None:
    with_kind("kind\n")
    monkeypatch.setenv("KUBECONFIG", "/home/me/config")
    assert target() == Target(Path("/home/me/config"), "given")


def test_kinds_first_cluster_is_used(with_kind: Callable[[str], None]) -> None:
    with_kind("one\ntwo\n")
    found = target()
    assert (found.kind, found.name) == ("kind", "one")
    assert found.kubeconfig.read_text() == "kind: Config"
    assert found.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_kind_without_a_cluster_leaves_ours(with_kind: Callable[[str], None]) -> None:
    with_kind("")
    assert target() == Target(KUBECONFIG, "ours")


def test_the_kubeconfig_of_ours_means_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(KUBECONFIG))
    assert target() == Target(KUBECONFIG, "ours")


@pytest.mark.parametrize("running", [True, False])
def test_ours_is_started_where_it_does_not_run(monkeypatch: pytest.MonkeyPatch, running: bool) -> None:
    started = programs(monkeypatch, returncode=0)
    monkeypatch.setattr(lifecycle, "running", lambda: running)
    assert target().kind == "ours"
    assert started == ([] if running else [["-m", "tools.cluster", "up"]])


def test_a_cluster_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    programs(monkeypatch, returncode=1)
    monkeypatch.setattr(lifecycle, "running", lambda: False)
    with pytest.raises(Failed, match="the cluster did not start"):
        target()


def programs(monkeypatch: pytest.MonkeyPatch, returncode: int) -> list[list[str]]:
    """Have programs end at once with ``returncode``; the arguments of each that was run."""
    started: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        started.append(command[1:])
        return subprocess.CompletedProcess(command, returncode)

    monkeypatch.setattr(subprocess, "run", run)
    return started


def test_a_given_cluster_must_pull_images_itself(capsys: pytest.CaptureFixture[str]) -> None:
    Target(Path("config"), "given").load("redis", "ray-serve")
    said = capsys.readouterr().err
    assert said.startswith("the cluster of $KUBECONFIG must be able to pull redis:8.2, llm-serving/ray-serve:")


def test_helm_and_ct_get_the_cluster_and_the_pinned_tools_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "binary", lambda name: Path(f"/tools/{name}/{name}"))
    monkeypatch.setenv("PATH", "/bin")
    environment = Target(Path("/config"), "given").environment()
    assert environment["KUBECONFIG"] == "/config"
    assert environment["PATH"].split(os.pathsep) == ["/tools/helm", "/tools/ct", "/tools/kubectl", "/bin"]
