"""The plan of real values files, as the chart counts them."""

import re
import subprocess
import sys

import pytest

from tests.chart.render import notes
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


def test_a_model_over_two_nodes_needs_and_costs_both() -> None:
    done = plan("values/large-model-405b.yaml", ENVIRONMENT)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["workerGroups.a100-40g-x8", "p4d.24xlarge", "2", "43.92"] in lines
    assert "chat: 410.1 GB of weights on 16 x A100-40G in 2 nodes leave 142 GB for the KV cache" in done.stdout


def test_a_standalone_model_is_counted_by_itself() -> None:
    done = plan("values/chat-8b.yaml", ENVIRONMENT)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["models.chat", "g6e.xlarge", "2", "to", "4", "3.72", "to", "7.44"] in lines
    assert not any(line[:1] == ["workerGroups.l40s"] for line in lines)


def test_a_job_has_nodes_of_its_own_while_it_runs() -> None:
    done = plan("tests/chart/cases/batch-job.yaml")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["batch.jobs.reviews", "g6.xlarge", "0", "to", "2", "0.00", "to", "1.61"] in lines
    assert ["batch.jobs.reviews.head", "m7i.2xlarge", "0", "to", "1", "0.00", "to", "0.40"] in lines


def test_so_has_one_that_brings_documents_in() -> None:
    lines = [line.split() for line in plan("tests/chart/cases/ingest-ray-data.yaml").stdout.splitlines()]
    (workers,) = (line for line in lines if line[:1] == ["rag.manuals.ingest"])
    assert workers[2:5] == ["0", "to", "4"]
    assert any(line[:1] == ["rag.manuals.ingest.head"] for line in lines)


def test_what_helm_refuses_is_said_in_helms_words() -> None:
    done = plan("values/chat-8b.yaml", "versions.yaml")
    assert done.returncode == 1
    assert "additional properties" in done.stderr


@pytest.mark.parametrize("preset", ["multi-model", "chat-8b", "large-model-tp4", "large-model-p4d"])
def test_the_notes_of_an_install_say_the_same(preset: str) -> None:
    """Both read the chart's plan.yaml; one in Helm's templates, one here."""
    files = [f"values/{preset}.yaml", ENVIRONMENT]
    told = notes(files=[REPOSITORY / file for file in files])
    planned = plan(*files).stdout
    together = next(line for line in planned.splitlines() if line.startswith("together"))
    least, most = re.findall(r"[0-9.,]+", together)
    assert f"On AWS, on demand, {least} to {most} dollars an hour (`make plan` says of what)." in told
    starts = re.findall(r"([0-9]+) s from nothing to the first answer: (.*)", told)
    assert starts
    for seconds, stages in starts:
        assert re.search(rf"from nothing to the first answer +{seconds} s ", planned)
        for stage in stages.split(", "):
            name, duration = stage.split()
            assert re.search(rf"{name} +{duration} s", planned), stage
