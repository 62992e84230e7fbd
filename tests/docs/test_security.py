"""docs/security.md: its examples are rendered."""

import re

import pytest
import yaml

from tests.chart.render import of_kind, render_chart
from tests.docs.markdown import REPOSITORY

BLOCKS = re.findall(r"(?ms)^```yaml\n(.*?)^```$", (REPOSITORY / "docs" / "security.md").read_text())


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.partition(":")[0])
def test_an_example_can_be_installed(block: str) -> None:
    assert render_chart(yaml.safe_load(block))


def test_the_dashboards_has_the_controller_ask() -> None:
    (block,) = (block for block in BLOCKS if block.startswith("dashboard:"))
    (ingress,) = of_kind(render_chart(yaml.safe_load(block)), "Ingress").values()
    assert any(key.endswith("/auth-url") for key in ingress["metadata"]["annotations"])
