"""docs/changes.md says what a change does: each example is rendered, and compared with what was before."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from serve_apps.common.config import Config
from tests.chart.render import RenderRefused, render_chart
from tests.docs.markdown import REPOSITORY
from tools.chart.values import Model, Values, WorkerGroup

FILE = REPOSITORY / "docs" / "changes.md"
VALUES = [REPOSITORY / "values" / name for name in ("rag.yaml", "environments/eks-prod.yaml")]
#: What the examples are laid over, besides the files.
SETTINGS = [
    *("milvus.enabled=true", "milvus.uri="),
    *("redis.enabled=true", "workerGroups.cpu-models.enabled=true"),
    *("batch.enabled=true", "batch.storage=s3://bucket/batches"),
    "models.chat.lora.adapters.sql.source=s3://adapters/sql",
    *("models.plain.runtime=standalone", "models.plain.source=s3://models/plain"),
    *("models.plain.accelerator.type=L4", "models.plain.replicas.max=2"),
]
#: Of an application, what Serve cannot give to a running replica.
CODE = ("import_path", "runtime_env", "args")
CODE_OF_DEPLOYMENT = ("ray_actor_options",)
#: What KubeRay leaves out when it asks whether a RayCluster is another one.
UNCOUNTED_OF_GROUP = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")
UNCOUNTED_OF_POD = ("tolerations", "schedulingGates")

Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    keys: list[str]
    settings: list[str]
    effect: str

    def __str__(self) -> str:
        return " ".join(self.settings)


def rows() -> list[Row]:
    """The table's rows."""
    _, _, table = FILE.read_text().partition("| key | example | effect |\n|---|---|---|\n")
    lines = table.partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        Row(re.findall(r"`([^`]+)`", keys)[: keys.count("`, `") + 1], example.strip("`").split(), told)
        for keys, example, told in cells
    ]


def effects() -> list[str]:
    """The words for effects, as the first table explains them."""
    _, _, table = FILE.read_text().partition("| effect | means |\n|---|---|\n")
    return [line.strip("|").split("|")[0].strip() for line in table.partition("\n\n")[0].splitlines()]


@pytest.fixture(scope="module")
def before() -> Objects:
    return render_chart(files=VALUES, settings=SETTINGS)


@pytest.mark.parametrize("row", rows(), ids=str)
def test_an_example_does_what_the_table_says(row: Row, before: Objects) -> None:
    assert re.split(r"[:;,]", row.effect)[0] == effect(before, after(row.settings))


def test_every_effect_is_explained_and_shown() -> None:
    told = {re.split(r"[:;,]", row.effect)[0] for row in rows()}
    assert sorted(told) == sorted(effects())


def test_every_key_has_a_row() -> None:
    told = {key for row in rows() for key in row.keys}
    missing = [key for key in keys() if not any(key == one or key.startswith(f"{one}.") for one in told)]
    assert not missing


@pytest.mark.parametrize("row", rows(), ids=str)
def test_an_example_sets_its_key(row: Row) -> None:
    patterns = [re.escape(key).replace("<name>", r"[a-z0-9-]+") + r"[.\[=]" for key in row.keys]
    assert any(re.match(pattern, setting) for pattern in patterns for setting in row.settings)


def keys() -> Iterator[str]:
    """Every key of the values, with ``<name>`` for that of an entry."""
    collections: dict[str, type[Config]] = {"models": Model, "workerGroups": WorkerGroup}
    entries = {"rag", "agent", "nodePools", "nodeClasses"}
    defaults = yaml.safe_load((REPOSITORY / "charts" / "llm-serving" / "values.yaml").read_text())
    for name in (field.alias or name for name, field in Values.model_fields.items()):
        if name in collections:
            fields = collections[name].model_fields.items()
            yield from (f"{name}.<name>.{field.alias or key}" for key, field in fields)
        elif name in entries:
            yield f"{name}.<name>"
        elif name == "overrides":
            yield from (f"{name}.{collection}.<name>" for collection in defaults[name])
        else:
            yield from _leaves(name, defaults[name])


def _leaves(path: str, value: object) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    else:
        yield path


def after(settings: list[str]) -> Objects | None:
    """The objects with ``settings``; None if Helm refuses them."""
    try:
        return render_chart(files=VALUES, settings=[*SETTINGS, *settings])
    except RenderRefused:
        return None


def effect(before: Objects, after: Objects | None) -> str:
    """What the change between two renders does, in the table's words."""
    if after is None:
        return "refused"
    service, changed = the_service(before), the_service(after)
    if service["metadata"]["name"] != changed["metadata"]["name"]:
        return "own objects"
    return (
        of_cluster(service["spec"]["rayClusterConfig"], changed["spec"]["rayClusterConfig"])
        or of_serve_config(*(serve_config(one) for one in (service, changed)))
        or ("next roll" if service["spec"] != changed["spec"] else "")
        or ("own objects" if without_secrets(before) != without_secrets(after) else "nothing")
    )


def serve_config(service: dict[str, Any]) -> dict[str, Any]:
    """The Serve config of a RayService, parsed."""
    config: dict[str, Any] = yaml.load(service["spec"]["serveConfigV2"], Loader=yaml.CSafeLoader)
    return config


def of_cluster(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What KubeRay does about a new rayClusterConfig; empty if nothing at once."""
    before, after = counted(before), counted(after)
    added = after["workerGroupSpecs"][len(before["workerGroupSpecs"]) :]
    if before == after:
        return ""
    if added and before["workerGroupSpecs"] + added == after["workerGroupSpecs"]:
        return "appended" if before | {"workerGroupSpecs": []} == after | {"workerGroupSpecs": []} else "new RayCluster"
    return "new RayCluster"


def counted(cluster: dict[str, Any]) -> dict[str, Any]:
    """What makes a RayCluster another one."""
    cluster = copy.deepcopy(cluster)
    groups = cluster["workerGroupSpecs"]
    for group in groups:
        for key in UNCOUNTED_OF_GROUP:
            group.pop(key, None)
    for template in (cluster["headGroupSpec"]["template"], *(group["template"] for group in groups)):
        for key in UNCOUNTED_OF_POD:
            template["spec"].pop(key, None)
    return cluster


def of_serve_config(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What Serve does about a new config; empty if nothing at once."""
    old, new = ({one["name"]: one for one in config["applications"]} for config in (before, after))
    if before == after:
        return ""
    if any(code(old[name]) != code(new[name]) for name in old.keys() & new.keys()):
        return "new replicas"
    if old.keys() != new.keys():
        return "that application"
    if old != new:
        return "in running replicas"
    return "next roll"  # http_options and the like: Serve reads them when it starts


def code(application: dict[str, Any]) -> list[Any]:
    """What makes a replica another one."""
    deployments = [[one.get(key) for key in CODE_OF_DEPLOYMENT] for one in application["deployments"]]
    return [*(application.get(key) for key in CODE), deployments]


def the_service(objects: Objects) -> dict[str, Any]:
    """The RayService among ``objects``."""
    return next(one for one in objects if one["kind"] == "RayService")


def without_secrets(objects: Objects) -> Objects:
    """The objects without Secrets: outside a cluster each render makes new ones."""
    return [one for one in objects if one["kind"] != "Secret"]
