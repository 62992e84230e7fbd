"""The base of images that are built without a registry: Debian with Python, as small as the official slim one."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from tools.images.program import run

#: Like the official image's; a base without it would give programs no PATH.
DOCKERFILE = """\
FROM scratch
ADD rootfs /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
"""
#: Left out: what apt downloads again, what only people read, what describes the machine that made it, and Debian's
#: wish that pip keeps out of the system's Python, which in an image is ours.
LEFT_OUT = (
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/doc/*",
    "usr/share/info/*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "etc/hostname",
    "etc/resolv.conf",
    "usr/lib/python3*/EXTERNALLY-MANAGED",
)


@dataclass(frozen=True)
class Base:
    """What decides the base image."""

    #: Debian 12, whose Python is 3.11.
    suite: str = "bookworm"
    packages: tuple[str, ...] = ("ca-certificates", "python3", "python3-pip", "python3-venv")
    left_out: tuple[str, ...] = LEFT_OUT
    dockerfile: str = DOCKERFILE

    @property
    def reference(self) -> str:
        """Its name, with a digest of the recipe."""
        return f"localhost/llm-serving/base:{hashlib.sha256(repr(self).encode()).hexdigest()[:12]}"

    def write(self, context: Path, log: Path) -> None:
        """Write a build context: a Dockerfile and Debian's files.

        Raises:
            CannotBuild: debootstrap failed; the message has the end of its log.
        """
        (context / "Dockerfile").write_text(self.dockerfile)
        files = context / "rootfs"
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(self.packages)}", self.suite, str(files)]
        run(command, folder=context, log=log)
        for pattern in self.left_out:
            for path in files.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (files / "usr/bin/python").symlink_to("python3")
