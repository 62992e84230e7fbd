"""README.md: the values it shows can be installed, and its program is run against a real gateway."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import yaml

from tests.chart.render import of_kind, render_chart
from tests.docs.markdown import REPOSITORY, blocks
from tests.serve_apps.gateway.conftest import GatewayServer, gateway, upstream  # noqa: F401  # fixtures
from tests.serve_apps.gateway.fake_vllm import vllm
from tests.serve_apps.gateway.servers import PATIENCE_S

TEXT = (REPOSITORY / "README.md").read_text()


def test_the_values_can_be_installed() -> None:
    (values,) = blocks(TEXT, "yaml")
    assert of_kind(render_chart(yaml.safe_load(values)), "RayService")


def test_the_program_gets_an_answer(
    gateway: Callable[..., GatewayServer],  # noqa: F811  # the fixture
    upstream: Callable[..., tuple[Any, str]],  # noqa: F811
) -> None:
    (program,) = blocks(TEXT, "python")
    served = gateway({"chat": {"url": upstream(vllm)[1], "task": "generate"}})
    environment = os.environ | {"URL": served.url, "KEY": served.key, "no_proxy": "*"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "Paris is the capital.\n", done.stderr
