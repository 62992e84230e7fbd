"""How a Ray node starts on a busy machine; what it serves is tested wherever one is used."""

import subprocess
import sys

import pytest

from tools.demo.cluster import TOO_SLOW, DeployFailed, LocalCluster


@pytest.mark.parametrize(("given_up", "starts"), [(0, 1), (2, 3)])
def test_a_node_that_ray_gave_up_is_started_again_and_one_that_failed_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given_up: int, starts: int
) -> None:
    logs = [*[f"Exception: {TOO_SLOW}. This could happen because"] * given_up, "no space left", "never"]
    started: list[str] = []

    def start(cluster: LocalCluster) -> None:
        started.append(logs.pop(0))
        (cluster.folder / "ray.log").write_text(started[-1])
        cluster._process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)

    monkeypatch.setattr(LocalCluster, "_start", start)
    with pytest.raises(DeployFailed, match=r"ray start failed:\nno space left"), LocalCluster({}, {}):
        pass
    assert len(started) == starts
    assert capsys.readouterr().err.count("starting it again") == given_up
