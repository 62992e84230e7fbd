import pytest

from tools.cluster import __main__ as command
from tools.cluster import cleanup, lifecycle
from tools.cluster.errors import Failed


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("LLM_SERVING_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("os.geteuid", lambda: 0)


def test_a_failure_is_one_message_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(gpus: int | None) -> None:
        raise Failed(f"no {gpus} GPUs")

    monkeypatch.setattr(lifecycle, "up", fail)
    assert command.main(["up", "--gpus", "2"]) == 1
    assert capsys.readouterr().err == "cluster: no 2 GPUs\n"


def test_what_stays_after_the_end_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cleanup, "leftovers", lambda: ["mount /a"])
    monkeypatch.setattr(cleanup, "clean", lambda: ["mount /a"])
    assert command.main(["down"]) == 1
    assert capsys.readouterr().err == "cluster: left behind:\n  mount /a\n"


def test_without_root_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert command.main(["down"]) == 1
    assert capsys.readouterr().err.startswith("cluster: the cluster needs root")


@pytest.mark.parametrize("words", [["load", "nginx"], ["lose", "node9"], []])
def test_unknown_names_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(words)
