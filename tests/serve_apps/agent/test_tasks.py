"""The scripted tasks, each done by a model that does it well and is held to JSON."""

from collections.abc import Iterator

import pytest

from serve_apps.common.secrets import InternalCredential, UpstreamKeys
from tests.serve_apps.agent.conftest import AgentServer, serving_agent
from tests.serve_apps.agent.fake_models import TOKEN, FakeModels, Says
from tests.serve_apps.agent.tasks import FACTS, TASKS, TOOLS, Task
from tests.serve_apps.gateway.servers import serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AgentServer, FakeModels]]:
    """One agent for all tasks, and its models."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "token").write_text(TOKEN)
    models = FakeModels(pipelines={"docs": {"answer": FACTS, "citations": [{"document": "facts.md"}], "usage": None}})
    credential, keys = InternalCredential(folder / "token"), UpstreamKeys(folder)
    with serving(models) as url, serving_agent(url, credential, keys, {"tools": TOOLS}) as server:
        yield server, models


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_is_done_with_calls_the_model_is_held_to(served: tuple[AgentServer, FakeModels], task: Task) -> None:
    server, models = served
    calls = [Says({"tool": name, "arguments": made}) for name, made in task.calls]
    models.script = [*calls, Says({"tool": "answer"}), Says(task.answer)]
    answer = server.chat(task.question, include_steps=True).json()
    assert [(step["tool"], step["arguments"], step["failed"]) for step in answer["steps"]] == [
        (name, made, False) for name, made in task.calls
    ]
    assert answer["choices"][0]["message"]["content"] == task.answer
    if task.calls[-1][0] == "calculate":
        assert answer["steps"][-1]["result"] == task.answer
    assert (answer["end_reason"], answer["choices"][0]["finish_reason"]) == ("answered", "stop")


def test_there_are_tasks_of_every_kind() -> None:
    assert len(TASKS) >= 20
    assert len({task.name for task in TASKS}) == len(TASKS)
    assert {name for task in TASKS for name, _ in task.calls} == set(TOOLS)
