import re
from pathlib import Path

import pytest

from tests.docs.markdown import FILES, REPOSITORY, anchors, name, prose


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_link_leads_somewhere(file: Path) -> None:
    dead = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(file)) if not leads_somewhere(file, link)]
    assert not dead


def leads_somewhere(file: Path, link: str) -> bool:
    """Whether a link's file and heading exist. Links to other sites are not followed."""
    if "://" in link:
        return True
    path, _, anchor = link.partition("#")
    target = (file.parent / path) if path else file
    return target.exists() and (not anchor or anchor in anchors(target))


def test_the_index_lists_every_page() -> None:
    pages = {str(page.relative_to(REPOSITORY / "docs")) for page in (REPOSITORY / "docs").rglob("*.md")} - {"README.md"}
    index = (REPOSITORY / "docs" / "README.md").read_text()
    assert {page for page in pages if f"]({page})" not in index} == set()


def test_the_readme_lists_every_preset() -> None:
    presets = {file.name for file in (REPOSITORY / "values").glob("*.yaml")}
    listed = re.findall(r"\]\(values/([a-z0-9-]+\.yaml)\)", (REPOSITORY / "README.md").read_text())
    assert sorted(presets) == sorted(listed)


def test_the_architecture_states_the_only_way_in_near_its_top() -> None:
    """The demo's question; the answer is a short paragraph of its own, so that it is found as one chunk."""
    paragraphs = (REPOSITORY / "docs" / "architecture.md").read_text().split("\n\n")[:5]
    answers = [text for text in paragraphs if "gateway" in text and "the only way in" in text and text[0] != "#"]
    assert len(answers) == 1
    assert len(answers[0].split()) < 80
