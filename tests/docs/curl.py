"""The curl commands of our Markdown files, asked of a gateway."""

import subprocess
from pathlib import Path

from tests.docs.markdown import shell_lines
from tests.serve_apps.gateway.conftest import GatewayServer
from tests.serve_apps.gateway.servers import PATIENCE_S


def curls(file: Path) -> list[str]:
    """The curl commands of a file, as a shell reads them."""
    return [line for line in shell_lines(file.read_text()) if line.startswith("curl ")]


def ask(command: str, gateway: GatewayServer) -> str:
    """What a command prints.

    Raises:
        AssertionError: the gateway refuses it.
    """
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)],
        env={"URL": gateway.url, "KEY": gateway.key, "PATH": "/usr/bin:/bin", "no_proxy": "*"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
