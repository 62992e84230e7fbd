"""Which images there are, what each is built from and what pods call it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]
#: What a build in the repository's root is given that decides all but our code; .dockerignore leaves out the rest.
RECIPES = ("images",)
#: All that it is given.
CONTEXT = ("LICENSE", *RECIPES, "pyproject.toml", "serve_apps")
CHART = REPOSITORY / "charts" / "llm-serving" / "Chart.yaml"


@dataclass(frozen=True)
class Image:
    """One image: a folder with a Dockerfile, and what it is given."""

    #: Relative to the repository.
    folder: str
    #: As pods name it, without a registry; ``{version}`` is the chart's appVersion.
    name: str
    #: Relative to the repository; what a Dockerfile copies is named from here.
    context: str = "."
    build_arguments: tuple[tuple[str, str], ...] = ()

    @property
    def reference(self) -> str:
        """The name and tag, without a registry, such as ``llm-serving/ray-serve:0.1.0``."""
        return self.name.format(version=version())

    @property
    def full_reference(self) -> str:
        """The reference as containerd keeps it, with the registry that a short name stands for."""
        host, *path = self.reference.split("/")
        if not path:
            return f"docker.io/library/{self.reference}"
        # A first part with a dot or a port, or localhost, is a registry; another is a user of the default one.
        return self.reference if host == "localhost" or set(host) & set(".:") else f"docker.io/{self.reference}"

    def arguments(self, base: str | None) -> list[str]:
        """The arguments for docker, podman and buildah that say what to build; run in the repository."""
        given = [*self.build_arguments, *([("BASE_IMAGE", base)] if base else [])]
        options = [word for name, value in given for word in ("--build-arg", f"{name}={value}")]
        return ["--file", f"{self.folder}/Dockerfile", *options, self.context]

    def digest(self, base: str, context: Sequence[str] = CONTEXT) -> str:
        """Of all that decides what is built on ``base``, or of what in the repository's ``context`` does."""
        found = hashlib.sha256(repr(self.arguments(base)).encode())
        for name in context if self.context == "." else (self.context,):
            path = REPOSITORY / name
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file() and file.parent.name != "__pycache__":
                    found.update(f"{file.relative_to(REPOSITORY)}:{file.stat().st_mode:o}\0".encode())
                    found.update(hashlib.sha256(file.read_bytes()).digest())
        return found.hexdigest()


def _serving(folder: str, variant: str = "") -> Image:
    """One of the images that are released; ``variant`` ends its tag and the name of its lock."""
    path = f"images/{folder}"
    lock = f"{path}/requirements{variant}.txt"
    return Image(folder=path, name=f"llm-serving/{folder}:{{version}}{variant}", build_arguments=(("LOCK", lock),))


def _for_tests(folder: str, name: str) -> Image:
    """One of the images that only the test cluster needs."""
    path = f"tools/cluster/images/{folder}"
    return Image(folder=path, name=name, context=path)


#: What is released; images/docker-bake.hcl says the same to docker.
RELEASED = {
    "ray-serve": _serving("ray-serve"),
    "ray-vllm": _serving("ray-vllm"),
    "ray-vllm-cpu": _serving("ray-vllm", "-cpu"),
}
IMAGES = RELEASED | {
    # The chart's default; its configuration suits Debian's release too.
    "redis": _for_tests("redis", "redis:8.2"),
    # Under the chart's default name, with what its pods start: see the folder.
    "milvus": _for_tests("milvus", "milvusdb/milvus:v2.6.24"),
    # What containerd is told to start pods with.
    "pause": _for_tests("pause", "localhost/pause:3"),
}


def version() -> str:
    """The tag of the released images: the chart's appVersion."""
    return str(yaml.safe_load(CHART.read_text())["appVersion"])


def reference(name: str) -> str:
    """What pods call the image ``name`` of ``IMAGES``, without a registry."""
    return IMAGES[name].reference
