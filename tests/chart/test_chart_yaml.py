"""Chart.yaml: what Artifact Hub and Helm are told agrees with what is rendered."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.pods import pods
from tests.chart.render import CHART, REPOSITORY, VALUES, render_chart

METADATA = yaml.safe_load((CHART / "Chart.yaml").read_text())
ANNOTATIONS = METADATA["annotations"]
#: https://artifacthub.io/docs/topics/annotations/helm/
CATEGORIES = {
    "ai-machine-learning",
    "database",
    "integration-delivery",
    "monitoring-logging",
    "networking",
    "security",
    "skip-prediction",
    "storage",
    "streaming-messaging",
}


def annotation(name: str) -> Any:
    """One that is YAML in a text."""
    return yaml.safe_load(ANNOTATIONS[f"artifacthub.io/{name}"])


def images(file: Path) -> set[str]:
    """Of every container of a release."""
    found = pods(render_chart(files=[file])).values()
    return {container["image"] for pod in found for container in pod["spec"]["containers"]}


def test_every_image_that_the_chart_may_pull_is_listed() -> None:
    listed = {one["image"] for one in annotation("images")}
    for file in (*(CHART / "ci").glob("*-values.yaml"), VALUES / "chat-8b.yaml"):
        assert images(file) <= listed


def test_every_image_that_is_listed_has_a_tag_and_a_name_of_its_own() -> None:
    listed = annotation("images")
    assert len({one["name"] for one in listed}) == len(listed)
    assert all(re.fullmatch(r"[a-z0-9/.-]+:[a-z0-9.-]+", one["image"]) for one in listed)
    ours = [one["image"] for one in listed if one["image"].startswith("llm-serving/")]
    assert all(image.partition(":")[2].removesuffix("-cpu") == METADATA["appVersion"] for image in ours)


def test_the_license_is_the_repositorys() -> None:
    assert ANNOTATIONS["artifacthub.io/license"] == "Apache-2.0"
    assert "Apache License\n" in (REPOSITORY / "LICENSE").read_text()


def test_a_version_is_a_prerelease_if_it_is_called_one() -> None:
    assert annotation("prerelease") is ("-" in METADATA["version"])


def test_the_category_is_one_of_artifact_hubs() -> None:
    assert ANNOTATIONS["artifacthub.io/category"] in CATEGORIES


@pytest.mark.parametrize("link", annotation("links"), ids=lambda link: str(link["name"]))
def test_a_link_has_a_name_and_an_address(link: dict[str, str]) -> None:
    assert link.keys() == {"name", "url"}
    assert link["url"].startswith("https://")


def test_what_changed_stands_in_the_changelog_only() -> None:
    assert "artifacthub.io/changes" not in ANNOTATIONS
