"""The pure parts of tests/e2e, which itself needs a cluster."""

import json
from typing import Any

import pytest

from serve_apps.batch.config import ARGS_VARIABLE
from tests.chart.render import VALUES, ray_container, render_chart, serve_config, the
from tests.e2e import load, waiting
from tests.e2e.conftest import HERE
from tests.e2e.night import CLAIM, NIGHT
from tests.e2e.summary import Step, table
from tests.e2e.test_adapters import ADAPTERS
from tests.e2e.test_in_place import ANOTHER_MODEL


def printed(*statuses: int) -> str:
    """What a load generator prints of requests that came 0.2 s apart, with something else among the lines."""
    outcomes: list[dict[str, Any]] = [
        {"at": 100 + number / load.RATE, "model": "chat", "status": status, "error": "", "seconds": number / 1000}
        for number, status in enumerate(statuses)
    ]
    return "\n".join(["a warning", *map(json.dumps, reversed(outcomes))])


def test_a_report_counts_failures_and_times() -> None:
    report = load.parse(printed(*[200] * 100, 503))
    assert str(report) == "1 of 101 requests failed in 20 s; p50 50 ms, p99 99 ms, max 100 ms"
    with pytest.raises(AssertionError, match=r"20\.0 s chat: 503"):
        report.check()


def test_a_report_without_failures_passes() -> None:
    load.parse(printed(*[200] * 100)).check()


def test_a_load_beside_which_workers_were_killed_does_not() -> None:
    outcomes = load.parse(printed(*[200] * 100)).outcomes
    with pytest.raises(AssertionError, match="Selected to kill: gateway"):
        load.Report(outcomes, killed="Selected to kill: gateway").check()


def test_a_load_that_fell_behind_proves_nothing() -> None:
    outcomes = load.parse(printed(*[200] * 100)).outcomes
    with pytest.raises(AssertionError, match="fell behind its rate"):
        load.Report(outcomes[::2]).check()


def test_the_table_has_each_step_and_the_time_in_all() -> None:
    steps = [
        Step("passed", 61.4, "test_install::test_ready", "It is ready.", ["0 of 5 failed"]),
        Step("failed", 5, "test_end::test_gone", "It is gone."),
    ]
    assert table(steps) == [
        "        seconds  step                      proves",
        "passed       61  test_install::test_ready  It is ready.",
        "                                             0 of 5 failed",
        "failed        5  test_end::test_gone       It is gone.",
        "2 steps in 1 min 6 s",
    ]


def test_a_wait_ends_with_what_was_waited_for_and_seen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "INTERVAL_S", 0)
    seen = iter(range(1000))
    assert waiting.until("it is 3", lambda: next(seen), lambda number: number == 3, 10) == 3
    with pytest.raises(waiting.TooLate, match=r"not within 0 s: it is 3; seen last: 4"):
        waiting.until("it is 3", lambda: next(seen), lambda number: number == 3, 0)


def test_presets_have_the_adapters_the_batches_and_the_job_that_the_steps_ask_for() -> None:
    presets = (VALUES / "rag.yaml", VALUES / "batch.yaml", ANOTHER_MODEL)
    files = [*presets, VALUES / "environments" / "ci.yaml", HERE / "values.yaml"]
    keys = dict(setting.removeprefix("batch.jobs.night.").split("=", 1) for setting in NIGHT)
    objects = render_chart({"batch": {"jobs": {"night": {**keys, "concurrency": 8}}}}, files=files)
    apps = {one["name"]: one for one in serve_config(objects)["applications"]}
    assert "batch" in apps
    (tuned,) = apps["tuned"]["deployments"]
    assert tuned["user_config"]["adapters"]["named"].keys() == set(ADAPTERS)
    cluster = the(objects, "RayJob")["spec"]["rayClusterSpec"]
    env = {one["name"]: one.get("value", "") for one in ray_container(cluster["headGroupSpec"])["env"]}
    assert json.loads(env[ARGS_VARIABLE])["input"] == "file:///mnt/batch/pipelines-data/nights/in.jsonl"
    # What the job reads is written through the pods with the gateway, where the same claim is another folder.
    gateway = the(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    mounts = ray_container(next(group for group in gateway if group["groupName"] == "cpu"))["volumeMounts"]
    assert CLAIM in [mount["mountPath"] for mount in mounts]
