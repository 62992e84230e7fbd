"""``python -m tools.images``: build the images with docker, podman or buildah, whichever is here."""

import argparse
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
CHART = REPOSITORY / "charts" / "llm-serving" / "Chart.yaml"


@dataclass(frozen=True)
class Image:
    """One image; images/docker-bake.hcl says the same to docker."""

    folder: str
    lock: str = "requirements.txt"
    #: Follows the version in the tag.
    suffix: str = ""

    def build_arguments(self, version: str, registry: str, base: str | None) -> list[str]:
        """The arguments that docker, podman and buildah share."""
        folder = f"images/{self.folder}"
        # fmt: off
        arguments = [
            "--file", f"{folder}/Dockerfile",
            "--build-arg", f"LOCK={folder}/{self.lock}",
            "--tag", f"{registry}llm-serving/{self.folder}:{version}{self.suffix}",
        ]
        # fmt: on
        return [*arguments, *(["--build-arg", f"BASE_IMAGE={base}"] if base else []), "."]


IMAGES = {
    "ray-serve": Image("ray-serve"),
    "ray-vllm": Image("ray-vllm"),
    "ray-vllm-cpu": Image("ray-vllm", lock="requirements-cpu.txt", suffix="-cpu"),
}
DEFAULT = ("ray-serve", "ray-vllm")
#: In order of preference: the command that builds, and one that succeeds only where it can.
BUILDERS = {
    "docker": (("docker", "build"), ("docker", "info")),
    "podman": (("podman", "build"), ("podman", "info")),
    # Docker's format, since the OCI one drops SHELL and HEALTHCHECK of a base image.
    "buildah": (("buildah", "build", "--format", "docker"), ("buildah", "info")),
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


def main() -> int:
    """Build the images that are named; the exit code."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    parser.add_argument("names", nargs="*", default=DEFAULT, metavar="NAME", help=f"of {', '.join(IMAGES)}")
    parser.add_argument("--registry", default="", help="before every name, with its slash: registry.example.com/ml/")
    parser.add_argument("--base", help="the image to build on; give its digest where images are released")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in IMAGES]:
        parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(IMAGES)}")
    version = str(yaml.safe_load(CHART.read_text())["appVersion"])
    try:
        command = builder()
    except CannotBuild as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    for name in arguments.names:
        print(f"building {name} {version} with {command[0]} …", file=sys.stderr, flush=True)
        image = IMAGES[name].build_arguments(version, arguments.registry, arguments.base)
        if code := subprocess.run([*command, *image], cwd=REPOSITORY, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
