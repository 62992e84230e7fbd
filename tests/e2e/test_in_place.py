"""Plain `helm upgrade`s that change the running cluster: no pod goes, no request fails."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.e2e.load import load
from tests.e2e.release import CHANGE_TIMEOUT_S, Release
from tests.e2e.waiting import until
from tools.demo.rendered import CHART, REPOSITORY

MODELS = {"chat": "generate", "embedder": "embed"}
#: Nothing here may restart a replica: defaults of requests, scaling, a limit Serve holds, pipelines, routes.
WITHOUT_RESTART = (
    "overrides.models.chat.sampling.max_tokens=3",
    "overrides.models.chat.autoscaling.target_ongoing_requests=4",
    "overrides.models.embedder.maxOngoingRequests=32",
    "overrides.models.embedder.autoscaling.upscale_delay_s=20",
    "rag.notes.llm=chat",
    "rag.notes.embedder=embedder",
    "rag.notes.vectorStore.uri=notes.db",
    "gateway.routes.assistant.versions[0].model=chat",
)
#: A model and its adapters, as a new application ...
ANOTHER_MODEL = REPOSITORY / "values" / "multi-lora.yaml"
#: ... and an argument of the gateway: its replicas are replaced, one by one.
ANOTHER_LIMIT = (*WITHOUT_RESTART, "gateway.maxConcurrentRequests=256")


def test_settings_and_routes_change_in_running_replicas(
    release: Release, record_property: Callable[[str, object], None]
) -> None:
    """Sampling, autoscaling, a limit, a new pipeline and route: same pods, same replicas, no request failed."""
    before = release.running()
    with load(release, MODELS) as running, release.forwarded() as client:
        release.upgrade(*WITHOUT_RESTART)
        until("chats end after 3 tokens", lambda: said(client), lambda tokens: tokens == 3, CHANGE_TIMEOUT_S)
        new = {"notes", "assistant"}
        until("pipeline and route are models", lambda: set(known(client)), lambda names: new <= names, CHANGE_TIMEOUT_S)
        assert answered(client, "assistant") == 200
        release.wait_until_running()
        limits = release.applications()["embedder"]["deployments"]["VLLMServer:embedder"]["deployment_config"]
    record_property("measured", running.report)
    running.report.check()
    assert limits["max_ongoing_requests"] == 32
    assert release.running() == before


def test_a_model_is_added_beside_the_others(release: Release, record_property: Callable[[str, object], None]) -> None:
    """A preset's model and a limit of the gateway: same pods, other models' replicas the same, no request failed."""
    before = release.running()
    with load(release, MODELS) as running, release.forwarded() as client:
        release.also(ANOTHER_MODEL).upgrade(*ANOTHER_LIMIT)
        until("the new model answers", lambda: answered(client, "tuned"), lambda seen: seen == 200, CHANGE_TIMEOUT_S)
        until(
            "the gateway has its new limit",
            lambda: release.applications()["gateway"],
            lambda gateway: (
                gateway["status"] == "RUNNING"
                and gateway["deployed_app_config"]["args"]["maxConcurrentRequests"] == 256
            ),
            CHANGE_TIMEOUT_S,
        )
    record_property("measured", running.report)
    running.report.check()
    after = release.running()
    assert after.pods == before.pods
    untouched = before.replicas.keys() - {"gateway"}
    assert {name: after.replicas[name] for name in untouched} == {name: before.replicas[name] for name in untouched}


def test_a_new_version_of_the_chart_rolls_nothing(release: Release, tmp_path: Path) -> None:
    """An upgrade to a chart of which only the version is new: the RayService's generation and all that runs stay."""
    before, generation = release.running(), release.rayservice()["metadata"]["generation"]
    chart = tmp_path / CHART.name
    shutil.copytree(CHART, chart)
    described = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub(r"(?m)^version: .*$", "version: 99.0.0", described))
    release.also(ANOTHER_MODEL).upgrade(*ANOTHER_LIMIT, chart=chart)
    service = release.rayservice()
    assert service["metadata"]["labels"]["helm.sh/chart"] == "llm-serving-99.0.0"
    assert service["metadata"]["generation"] == generation
    assert release.running() == before


def said(client: httpx.Client) -> int:
    """The tokens of a chat's answer."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "Count to ten."}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    tokens: int = answer.json()["usage"]["completion_tokens"]
    return tokens


def known(client: httpx.Client) -> list[str]:
    """The names of the models there are."""
    return [model["id"] for model in client.get("/v1/models").json()["data"]]


def answered(client: httpx.Client, model: str) -> int | str:
    """The status of a chat with ``model``; what came instead of one while it is not there.

    A request that waits for it ends with its proxy: an old one lives ``maxDrainSeconds`` and a minute, which is short
    in the environment ci, and an engine may take longer on a busy machine.
    """
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    try:
        return client.post("/v1/chat/completions", json=body).status_code
    except (httpx.RemoteProtocolError, httpx.ReadError) as cut:
        return str(cut)
