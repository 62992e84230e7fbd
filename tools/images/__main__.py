"""``python -m tools.images``: build the images with docker, podman or buildah, whichever is here.

With ``--local``: with buildah alone, as root, on a base that is made here; no daemon and no registry. The test cluster
gets its images so.
"""

import argparse
import subprocess
import sys

from tools.images import local
from tools.images.builder import CannotBuild, builder
from tools.images.image import IMAGES, RELEASED, REPOSITORY, version

DEFAULT = ("ray-serve", "ray-vllm")


def main() -> int:
    """Build the images that are named; the exit code."""
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    parser.add_argument("names", nargs="*", default=DEFAULT, metavar="NAME", help=f"of {', '.join(RELEASED)}")
    parser.add_argument("--registry", default="", help="as in image.registry: registry.example.com/ml")
    parser.add_argument("--base", help="the image to build on; give its digest where images are released")
    parser.add_argument("--local", action="store_true", help=f"with buildah alone; knows {', '.join(IMAGES)}")
    arguments = parser.parse_args()
    known = IMAGES if arguments.local else RELEASED
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no such image: {', '.join(unknown)}; there are {', '.join(known)}")
    if arguments.local and (arguments.registry or arguments.base):
        parser.error("--local makes its own base and names no registry; leave --base and --registry out")
    try:
        if arguments.local:
            for name in arguments.names:
                print(f"{IMAGES[name].reference} {local.build(name)}")
            return 0
        command = builder()
    except CannotBuild as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    registry = f"{arguments.registry.rstrip('/')}/" if arguments.registry else ""
    for name in arguments.names:
        print(f"building {name} {version()} with {command[0]} …", file=sys.stderr, flush=True)
        image = IMAGES[name]
        tagged = [*command, "--tag", f"{registry}{image.reference}"]
        if code := subprocess.run([*tagged, *image.arguments(arguments.base)], cwd=REPOSITORY, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
