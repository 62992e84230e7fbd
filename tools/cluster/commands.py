"""Programs of this machine that the cluster calls."""

import os
import subprocess

from tools.cluster.errors import Failed

#: Also where a user's PATH may not lead.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*command: str) -> str:
    """What ``command`` prints.

    Raises:
        Failed: Its exit status is not 0.
    """
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise Failed(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
