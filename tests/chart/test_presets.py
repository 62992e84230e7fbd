"""Every preset in every environment: rendered as checked in, and accepted by a real API server."""

import difflib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_apps.gateway.config import RoutingTable
from tests.chart.pods import claims_asked_twice
from tests.chart.presets import COMBINATIONS, ENVIRONMENTS, GOLDEN, PRESETS, golden_files, objects
from tests.chart.render import VALUES, application, notes, of_kind, render_chart, serve_config
from tools.kube_apiserver import ApiServer

FILES = [*(VALUES / f"{name}.yaml" for name in PRESETS), *(VALUES / "environments" / f"{n}.yaml" for n in ENVIRONMENTS)]


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_it_renders_as_checked_in(combination: str) -> None:
    rendered = golden_files(objects(combination))
    folder = GOLDEN / combination
    kept = {file.name: file.read_text() for file in folder.glob("*")}
    changes = [
        line
        for name in sorted({*rendered, *kept})
        for line in difflib.unified_diff(
            kept.get(name, "").splitlines(),
            rendered.get(name, "").splitlines(),
            f"golden/{combination}/{name}",
            "rendered",
            lineterm="",
        )
    ]
    assert not changes, "\n".join([*changes, "", "If this is meant, run `make golden` and commit what it changes."])


def test_no_golden_file_is_left_of_what_is_gone() -> None:
    assert {file.parent.name for file in GOLDEN.rglob("*.yaml")} == set(COMBINATIONS), "run `make golden`"


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_an_api_server_accepts_it(combination: str, kube_apiserver: ApiServer) -> None:
    kube_apiserver.dry_run(objects(combination), namespace="ray-system")


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_no_pod_has_two_volumes_of_a_claim(combination: str) -> None:
    assert claims_asked_twice(objects(combination)) == []


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_changes_nothing_about_what_there_is_to_call(preset: str, environment: str) -> None:
    def names(*files: Path) -> list[str]:
        (gateway,) = application(render_chart(files=files), "gateway")["deployments"]
        return sorted(gateway["user_config"]["models"])

    assert names(VALUES / f"{preset}.yaml", VALUES / "environments" / f"{environment}.yaml") == names(
        VALUES / f"{preset}.yaml"
    )


@pytest.mark.parametrize("environment", ["local", "ci"])
@pytest.mark.parametrize("preset", PRESETS)
def test_without_gpus_every_model_is_a_small_one_on_cpu(preset: str, environment: str) -> None:
    for app in serve_config(objects(f"{preset}-{environment}"))["applications"]:
        if app["import_path"] == "serve_apps.llm.app:build_app":
            assert app["args"]["accelerator"]["type"] == "cpu"
            assert app["args"]["source"].startswith("pvc://demo-models/")


@pytest.mark.parametrize("combination", COMBINATIONS)
def test_its_releases_name_models_and_its_budgets_have_prices(combination: str) -> None:
    """What the notes would warn of, where a preset is meant to be copied."""
    (gateway,) = application(objects(combination), "gateway")["deployments"]
    table = RoutingTable.model_validate(gateway["user_config"])
    for route in table.routes.values():
        assert {version.model for version in route.versions} | set(route.fallback) <= set(table.models)
        assert sum(version.weight for version in route.versions) == 100
    if any(tenant.monthly_budget for tenant in table.tenants.values()):
        assert all(model.price for model in table.models.values())


@pytest.mark.parametrize("preset", PRESETS)
def test_in_development_no_model_holds_a_gpu_while_nobody_asks(preset: str) -> None:
    for app in serve_config(objects(f"{preset}-eks-dev"))["applications"]:
        if app["import_path"] == "serve_apps.llm.app:build_app":
            assert app["deployments"][0]["autoscaling_config"]["min_replicas"] == 0, app["name"]
    assert of_kind(objects(f"{preset}-eks-dev"), "Deployment") == {}


def test_local_and_ci_serve_the_same() -> None:
    local, ci = (
        yaml.safe_load((VALUES / "environments" / f"{name}.yaml").read_text())["overrides"] for name in ("local", "ci")
    )
    assert local == ci


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_are_pinned(preset: str) -> None:
    models: dict[str, Any] = yaml.safe_load((VALUES / f"{preset}.yaml").read_text())["models"]
    for name, model in models.items():
        if model.get("runtime") == "external":
            continue  # the provider's
        # What is too large to be downloaded by each node lies in a bucket of one's own.
        assert re.fullmatch(r"hf://[^@]+@[0-9a-f]{40}|s3://.+", model["source"]), name


@pytest.mark.parametrize("preset", PRESETS)
def test_a_chat_model_on_gpus_is_known_to_fit(preset: str) -> None:
    """Weights and KV cache are reckoned only where the model's size is known."""
    files = [VALUES / f"{preset}.yaml", VALUES / "environments" / "eks-prod.yaml"]
    lines = notes(files=files).splitlines()
    models = [index for index, line in enumerate(lines) if re.match(r"  \S+ \(generate\) from ", line)]
    assert models or preset == "embeddings"
    for index in models:
        assert re.search(r"GB of weights and room for \d+ tokens .*: [1-9][0-9.]* requests of", lines[index + 1])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_chat_model_has_room_for_the_load_that_its_preset_states(preset: str) -> None:
    """So many requests at a time, of so many tokens each, in the KV cache that the weights leave."""
    files = [VALUES / f"{preset}.yaml", VALUES / "environments" / "eks-prod.yaml"]
    room = re.findall(
        r"(?m)^  (\S+) \(generate\) from .*\n.* room for (\d+) tokens of KV cache .*, or (\d+) of ", notes(files=files)
    )
    (load,) = re.findall(r"(?ms)^# Load +(.*?)^# Leaves out", files[0].read_text())
    stated = re.findall(
        r"(?:([\w-]+): )?about (\d+)(?: \w+)? at a time[^;]*?, ([\d.]+)k tokens each", re.sub(r"\n# +", " ", load)
    )
    assert [name for name, *_ in stated] == [name if len(room) > 1 else "" for name, *_ in room]
    for (_, tokens, most), (_, requests, length) in zip(room, stated, strict=True):
        assert int(requests) <= int(most)
        assert int(requests) * float(length) * 1000 <= int(tokens)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_takes_ten_lines_at_most(preset: str) -> None:
    text = (VALUES / f"{preset}.yaml").read_text()
    block = re.search(r"^models:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert block
    for entry in re.findall(r"^  [\w-]+:\n((?:    .*\n)+)", block[1], re.MULTILINE):
        assert entry.count("\n") + 1 <= 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_opens_with_its_contract(file: Path) -> None:
    head = file.read_text().partition("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    subjects = ("Needs", "Change") if file.stem.startswith(("eks-", "gke")) else ("Model", "Hardware")
    for subject in (*subjects, "Load", "Leaves out"):
        assert f"\n# {subject}" in head, subject


def test_the_index_lists_every_file() -> None:
    index = (VALUES / "README.md").read_text()
    for file in FILES:
        assert f"({file.relative_to(VALUES)})" in index, file.name


def test_a_70b_model_over_four_gpus_has_a_group_that_fits_it() -> None:
    rendered = render_chart(files=[VALUES / "large-model-tp4.yaml"])
    args = application(rendered, "chat")["args"]
    assert args["placement"] == {
        "strategy": "STRICT_PACK",
        "bundles": [{"CPU": 1, "GPU": 1}] * 4,
        "labelSelector": {"llm-serving/accelerator": "L40S-x4"},
    }
    (service,) = of_kind(rendered, "RayService").values()
    (group,) = (
        one
        for one in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        if one["labels"].get("llm-serving/accelerator") == "L40S-x4"
    )
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == "4"
    assert int(resources["requests"]["cpu"]) >= 4
