"""The plan of real values files, as the chart counts them."""

import subprocess
import sys

from tools.demo.rendered import REPOSITORY

ENVIRONMENT = "values/environments/eks-prod.yaml"


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.plan", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_a_preset_has_nodes_a_price_room_and_a_start() -> None:
    done = plan("values/multi-model.yaml", ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    # Two replicas of chat-large on one worker.
    assert ["workerGroups.l40s-x4", "g6e.12xlarge", "1", "to", "2", "10.49", "to", "20.99"] in lines
    for name in ("chat", "chat-large", "embedder", "reranker"):
        assert any(line[:1] == [f"{name}:"] and "leave" in line for line in lines), name
    assert done.stdout.count("from nothing to the first answer") == 4


def test_a_standalone_model_is_counted_by_itself() -> None:
    done = plan("values/chat-8b.yaml", ENVIRONMENT)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["models.chat", "g6e.xlarge", "2", "to", "4", "3.72", "to", "7.44"] in lines
    assert not any(line[:1] == ["workerGroups.l40s"] for line in lines)


def test_what_helm_refuses_is_said_in_helms_words() -> None:
    done = plan("values/chat-8b.yaml", "versions.yaml")
    assert done.returncode == 1
    assert "additional properties" in done.stderr
