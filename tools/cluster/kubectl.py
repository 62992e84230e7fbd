"""kubectl with a given kubeconfig."""

import os
import subprocess
from pathlib import Path

from tools.cluster.errors import KubectlFailed
from tools.cluster.state import KUBECONFIG
from tools.gotools import binary

#: For one command; one that waits says how long itself.
TIMEOUT_S = 120.0
#: How much a failure shows of what it said.
SHOWN_CHARACTERS = 2000


def kubectl(
    *arguments: str,
    input: str | None = None,  # noqa: A002 - as subprocess calls it
    namespace: str | None = None,
    check: bool = True,
    timeout_s: float = TIMEOUT_S,
    kubeconfig: Path = KUBECONFIG,
) -> str:
    """What kubectl prints; ``input`` is its standard input.

    Raises:
        KubectlFailed: It failed, unless ``check`` is off, or it did not end within ``timeout_s`` seconds.
    """
    words = [*(["--namespace", namespace] if namespace else []), *arguments]
    try:
        done = subprocess.run(
            [str(binary("kubectl")), *words],
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        )
    except subprocess.TimeoutExpired as slow:
        raise KubectlFailed(f"`kubectl {' '.join(words)}` did not end within {timeout_s:.0f} s") from slow
    if check and done.returncode:
        problem = (done.stderr.strip() or done.stdout.strip())[:SHOWN_CHARACTERS]
        raise KubectlFailed(f"`kubectl {' '.join(words)}` failed: {problem}")
    return done.stdout
