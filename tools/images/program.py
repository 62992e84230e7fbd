"""Programs that build: what is missing is named, and a failure shows the end of what was printed."""

import os
import shutil
import subprocess
from pathlib import Path

from tools.images.builder import CannotBuild

#: What a failure shows of the output.
SHOWN_LINES = 15


def run(command: list[str], *, folder: Path, log: Path) -> str:
    """Run ``command`` as root in ``folder`` and return what it printed, which also goes to ``log`` meanwhile.

    Raises:
        CannotBuild: this is not root, the program is missing, or it failed.
    """
    program = command[0]
    if os.geteuid() != 0:
        raise CannotBuild(f"{program} needs root here; run this as root")
    # debootstrap lies, and looks for programs, where a user's PATH may not lead. Whatever is temporary may be large.
    environment = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "TMPDIR": str(log.parent)}
    if not shutil.which(program, path=environment["PATH"]):
        raise CannotBuild(f"{program} not found; install the package {program}")
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    printed = log.read_text()
    if done.returncode:
        end = "\n".join(printed.splitlines()[-SHOWN_LINES:])
        raise CannotBuild(f"{program} failed, whole log in {log}:\n{end}")
    return printed
