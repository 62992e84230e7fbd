"""The program that builds images on this machine: docker, podman or buildah, whichever is here."""

import shutil
import subprocess

#: In order of preference: the command that builds, and one that succeeds only where it can.
BUILDERS = {
    "docker": (("docker", "build"), ("docker", "info")),
    "podman": (("podman", "build"), ("podman", "info")),
    # Docker's format, since the OCI one drops SHELL and HEALTHCHECK of a base image.
    "buildah": (("buildah", "build", "--format", "docker", "--layers"), ("buildah", "info")),
}


class CannotBuild(Exception):
    """No image can be built here; the message says what to do."""


def builder() -> tuple[str, ...]:
    """The command of the first builder that works.

    Raises:
        CannotBuild: there is none.
    """
    installed = [name for name in BUILDERS if shutil.which(name)]
    for name in installed:
        build, probe = BUILDERS[name]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return build
    if installed:
        raise CannotBuild(f"{', '.join(installed)} cannot run here (`{installed[0]} info` says why)")
    raise CannotBuild(f"no {', '.join(BUILDERS)} found; install one of them")
