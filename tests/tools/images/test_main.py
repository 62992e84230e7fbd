import sys
from pathlib import Path

import pytest

from tests.tools.images.programs import program
from tools.images import local
from tools.images.__main__ import main


def test_images_are_built_from_their_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "podman", works=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["images", "ray-vllm-cpu", "--registry", "example.com/ml", "--base", "python@x"])
    assert main() == 0
    _, call = (tmp_path / "calls").read_text().splitlines()
    assert call == (
        "build --tag example.com/ml/llm-serving/ray-vllm:0.1.0-cpu --file images/ray-vllm/Dockerfile "
        "--build-arg LOCK=images/ray-vllm/requirements-cpu.txt --build-arg BASE_IMAGE=python@x ."
    )


def test_local_ones_need_no_builder_with_a_daemon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "build", lambda name: f"id-of-{name}")
    monkeypatch.setattr(sys, "argv", ["images", "--local", "redis", "pause"])
    assert main() == 0
    assert capsys.readouterr().out == "redis:8.2 id-of-redis\nlocalhost/pause:3 id-of-pause\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vllm"], "no such image: vllm; there are ray-serve, ray-vllm, ray-vllm-cpu\n"),
        (["redis"], "no such image: redis; there are ray-serve, ray-vllm, ray-vllm-cpu\n"),
        (
            ["--local", "--base", "x"],
            "--local makes its own base and names no registry; leave --base and --registry out",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["images", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err
