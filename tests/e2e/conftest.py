"""The releases that the steps share, their order, and what is told at the end."""

import logging
import re
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import charttesting, evidence
from tests.e2e import night as night_job
from tests.e2e.preparation import NAMESPACE, SECOND_NAMESPACE, prepare, remove
from tests.e2e.release import Begun, Release, Running
from tests.e2e.summary import Step, table
from tools.cluster.errors import ClusterError
from tools.cluster.target import Target, target
from tools.demo.rendered import REPOSITORY

HERE = Path(__file__).parent
VALUES = REPOSITORY / "values"
#: Ends a step that hangs. Each of its waits ends before; the first step may also build images for half an hour.
STEP_WITHIN_S = 60 * 60
#: One release goes through a whole life, so the order of the modules is part of the tests.
ORDER = (
    "test_install",
    "test_answers",
    "test_batches",
    "test_monitoring",
    "test_night",
    "test_ingest",
    "test_head_loss",
    "test_evictions",
    "test_in_place",
    "test_adapters",
    "test_broken_model",
    "test_documents_stay",
    "test_milvus",
    "test_uninstall",
    "test_rolling",
    "test_ct_install",
    "test_cluster",
)
#: What modules begin for later ones: their own time is mostly waiting.
AHEAD = {"test_answers": "night", "test_uninstall": "rolling_begun", "test_rolling": "ct_begun"}
_STEPS = pytest.StashKey[list[Step]]()
_TARGET = pytest.StashKey[Target]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep", action="store_true", help="use the releases that are there, and leave them there")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STEPS] = []
    # Minutes pass in a step: what it does and waits for is told as it happens.
    config.option.log_cli_level = config.option.log_cli_level or "INFO"
    for clients in ("httpx", "httpx2"):  # they tell of every request
        logging.getLogger(clients).setLevel(logging.WARNING)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.parent == HERE]
    if unplaced := {item.path.stem for item in ours} - set(ORDER):
        raise pytest.UsageError(f"say in {__file__} when these run: {', '.join(sorted(unplaced))}")
    others = [item for item in items if item.path.parent != HERE]
    ours.sort(key=lambda item: ORDER.index(item.path.stem))
    for item in ours:
        item.add_marker(pytest.mark.timeout(STEP_WITHIN_S))
    items[:] = [*others, *ours]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the step for the summary; keep the evidence of a failure while it is fresh."""
    report = yield
    if item.path.parent != HERE:
        return report
    if report.failed and (cluster := item.config.stash.get(_TARGET, None)):
        try:
            kept = str(evidence.keep(cluster, re.sub(r"\W+", "-", item.name)))
        except ClusterError as error:  # it does not answer: what failed is told nevertheless
            kept = f"nothing: {error}"
        report.sections.append(("kept of the cluster", kept))
    _note(item, report)
    return report


def _note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add a phase of a step to the step: its fixtures' time counts, and its worst outcome."""
    steps = item.config.stash[_STEPS]
    name = f"{item.path.stem}::{item.name}"
    before = steps.pop() if steps and steps[-1].name == name else Step("passed", 0, name, "")
    proves = str(getattr(item, "obj", item).__doc__ or "").strip().partition("\n")[0]
    measured = [str(value) for key, value in item.user_properties if key == "measured"]
    if report.skipped and isinstance(report.longrepr, tuple):
        measured.append(report.longrepr[2])
    outcome = before.outcome if report.passed else report.outcome
    steps.append(Step(outcome, before.seconds + report.duration, name, proves, measured))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if steps := config.stash[_STEPS]:
        terminalreporter.section("what was proven")
        for line in table(steps):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The cluster, with images, a fresh namespace and its claims; the namespace stays after a failure."""
    keep = bool(request.config.getoption("--keep"))
    found = target()
    request.config.stash[_TARGET] = found
    prepare(found, keep=keep)
    yield found
    if not keep and not request.session.testsfailed:
        remove(found)


@pytest.fixture(scope="session")
def release(request: pytest.FixtureRequest, cluster: Target) -> Release:
    """The main release, installed: the preset agent (the preset rag and an agent) and batch, on the environment ci."""
    presets = (VALUES / "agent.yaml", VALUES / "batch.yaml")
    files = [*presets, VALUES / "environments" / "ci.yaml", HERE / "values.yaml"]
    main = Release(cluster, NAMESPACE, "llm-serving", files, needed(cluster, "cpu-models"))
    if begun := begin(request, main):
        main.finish_install(begun)
    return main


@pytest.fixture(scope="session")
def night(release: Release) -> Running:
    """The main release as it was before a job of its own was begun, which may still go on."""
    return night_job.begin(release)


@pytest.fixture(scope="session")
def rolling_begun(request: pytest.FixtureRequest, cluster: Target) -> Iterator[tuple[Release, Begun | None]]:
    """A release so small that two of its RayClusters fit side by side, and its install, which may still go on."""
    files = [VALUES / "environments" / "ci.yaml", HERE / "rolling.yaml"]
    small = Release(cluster, SECOND_NAMESPACE, "rolling-llm-serving", files, needed(cluster, "cpu"))
    begun = begin(request, small)
    yield small, begun
    if begun:
        begun.kill()


@pytest.fixture(scope="session")
def rolling(rolling_begun: tuple[Release, Begun | None]) -> Release:
    """That release, installed."""
    small, begun = rolling_begun
    if begun:
        small.finish_install(begun)
    return small


@pytest.fixture(scope="session")
def rolling_ends(rolling: Release) -> Iterator[list[Begun]]:
    """For its uninstall, which is waited for at the end of all: its pods wait for a head that has gone."""
    begun: list[Begun] = []
    yield begun
    for one in begun:
        rolling.finish(one)


@pytest.fixture(scope="session")
def ct_begun(cluster: Target) -> Iterator[subprocess.Popen[bytes]]:
    """`ct install`, which may still go on."""
    with charttesting.begin(cluster) as begun:
        yield begun
        begun.kill()


@pytest.fixture(autouse=True)
def _ahead(request: pytest.FixtureRequest) -> None:
    """Begin what a later step needs, if that is asked for."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    name = AHEAD.get(request.path.stem)
    if name and any(name in item.fixturenames for item in items):
        request.getfixturevalue(name)


def needed(cluster: Target, group: str) -> tuple[str, ...]:
    """Settings for a cluster that is not ours: its nodes do not have the label that a worker group selects by."""
    return () if cluster.kind == "ours" else (f"workerGroups.{group}.nodeSelector=null",)


def begin(request: pytest.FixtureRequest, release: Release) -> Begun | None:
    """Begin to install the release; nothing if it is there and may be kept."""
    if request.config.getoption("--keep") and release.installed():
        return None
    return release.begin_install()
