"""tools/release.py: a release says what the changelog says, and of no other version than all agree on."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import release
from tools.gotools import helm
from tools.release import CannotRelease

CHANGELOG = """# Changelog

## Unreleased

### Added

- What is to come.

## 0.1.0 - 2026-11-28

### Added

- The chart `llm-serving`: models,
  gateway, "rag".
- Images.

### Security

- Keys: hashed.

## 0.0.9

- Nothing.
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The chart in a repository whose changelog has its version."""
    chart = tmp_path / "charts" / "llm-serving"
    shutil.copytree(release.CHART, chart)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    monkeypatch.setattr(release, "REPOSITORY", tmp_path)
    monkeypatch.setattr(release, "CHART", chart)
    return tmp_path


def metadata(package: Path) -> dict[str, Any]:
    """Chart.yaml of a packaged chart, as Helm reads it."""
    shown = subprocess.run([helm(), "show", "chart", package], capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = yaml.safe_load(shown)
    return found


def test_the_package_and_the_notes_have_what_changed_in_that_version(repository: Path) -> None:
    package, notes = release.release("0.1.0", repository / "dist")
    assert yaml.safe_load(metadata(package)["annotations"]["artifacthub.io/changes"]) == [
        {"kind": "added", "description": 'The chart `llm-serving`: models, gateway, "rag".'},
        {"kind": "added", "description": "Images."},
        {"kind": "security", "description": "Keys: hashed."},
    ]
    told = notes.read_text()
    assert told.startswith("### Added\n\n- The chart `llm-serving`")
    assert "docs/releases.md" in told
    assert "to come" not in told
    assert "Nothing" not in told


def test_the_chart_in_the_repository_stays_as_it_is(repository: Path) -> None:
    before = (repository / "charts" / "llm-serving" / "Chart.yaml").read_text()
    package, _ = release.release("0.1.0", repository / "dist")
    assert (repository / "charts" / "llm-serving" / "Chart.yaml").read_text() == before
    found = metadata(package)
    assert {**found["annotations"], "artifacthub.io/changes": ""}.keys() == found["annotations"].keys()
    assert found["annotations"]["artifacthub.io/license"] == "Apache-2.0"


def test_a_version_that_is_not_the_charts_is_refused(repository: Path) -> None:
    with pytest.raises(CannotRelease, match=r"Chart.yaml: version is 0.1.0, not 0.2.0; set it first"):
        release.release("0.2.0", repository / "dist")


def test_a_version_without_a_heading_is_refused(repository: Path) -> None:
    (repository / "CHANGELOG.md").write_text(CHANGELOG.replace("## 0.1.0 - 2026-11-28", "## Next"))
    with pytest.raises(CannotRelease, match=r"no heading `## 0.1.0`; rename `## Unreleased`"):
        release.release("0.1.0", repository / "dist")


def test_a_heading_is_found_by_its_whole_version() -> None:
    assert release.section("## 0.1.0\n\n- old\n", "0.1.0") == "- old"
    with pytest.raises(CannotRelease):
        release.section("## 0.1.01\n\n- other\n", "0.1.0")


def test_a_kind_of_change_that_nobody_knows_is_refused() -> None:
    assert release.changes("### Fixed\n\n- It.\n") == [{"kind": "fixed", "description": "It."}]
    with pytest.raises(CannotRelease, match=r"`### News` is none of added, changed, "):
        release.changes("### News\n\n- It.\n")


def test_the_real_changelog_has_only_kinds_that_are_known() -> None:
    found = release.changes(release.section((release.REPOSITORY / "CHANGELOG.md").read_text(), "Unreleased"))
    assert {change["kind"] for change in found} <= set(release.KINDS)
    assert len(found) > 10


def test_a_tag_is_a_version_too(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["release", "v0.1.0", "--folder", str(repository / "dist")])
    assert release.main() == 0
    assert capsys.readouterr().out.splitlines() == [
        str(repository / "dist" / name) for name in ("llm-serving-0.1.0.tgz", "notes.md")
    ]


def test_what_does_not_fit_ends_with_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["release", "v3.0.0", "--folder", str(repository / "dist")])
    assert release.main() == 1
    assert capsys.readouterr().err.startswith("release: charts/llm-serving/Chart.yaml: version is 0.1.0")
