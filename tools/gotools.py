"""The tools that are written in Go: each is pinned by a module under tools/go and built once, into the cache.

``python -m tools.gotools NAME…`` builds what is missing and prints the paths. Standard library only, since this runs
before there is a virtual environment.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.cache import alone, cache

MODULES = Path(__file__).parent / "go"
#: The oldest Helm that renders the chart as the pinned one does.
OLDEST_HELM = (3, 16)
#: What a failed build shows of the compiler's words.
SHOWN_LINES = 15


class ToolUnavailable(RuntimeError):
    """A tool can neither be found nor built; the message says what to install."""


@dataclass(frozen=True)
class Tool:
    """How one binary is built."""

    #: The folder under tools/go that pins it.
    pinned_by: str
    #: The Go module that it comes from and its main package there, or one of our own on that module (``./…``).
    module: str
    package: str
    #: How long the build takes on two cores, for the progress line.
    build_time: str
    #: Variables that the linker sets to the module's version; ``{major}`` and ``{minor}`` are parts of it.
    stamps: tuple[tuple[str, str], ...] = ()
    #: Build tags.
    tags: str = ""

    @property
    def folder(self) -> Path:
        """The folder with its go.mod."""
        return MODULES / self.pinned_by

    @property
    def version(self) -> str:
        """The pinned version, such as ``v4.3.1``."""
        return pinned_version(self.folder, self.module)

    @property
    def ldflags(self) -> str:
        """Linker flags: no symbols, and the version where the tool reports one."""
        major, minor = self.version.removeprefix("v").split(".")[:2]
        values = (value.format(version=self.version, major=major, minor=minor) for _, value in self.stamps)
        stamps = (f"-X {name}={value}" for (name, _), value in zip(self.stamps, values, strict=True))
        return " ".join(["-s -w", *stamps])

    @property
    def recipe(self) -> str:
        """A digest of all that decides what is built. The compiler is left out: a newer Go makes the same tool."""
        digest = hashlib.sha256(f"{self.package} {self.ldflags}{self.tags}".encode())
        for file in (self.folder / "go.mod", self.folder / "go.sum", *sorted(self.folder.glob(f"{self.package}/*.go"))):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:12]


def _kubernetes(program: str, build_time: str) -> Tool:
    """One of Kubernetes' own programs."""
    stamps = (("gitVersion", "{version}"), ("gitMajor", "{major}"), ("gitMinor", "{minor}"))
    return Tool(
        pinned_by="kubernetes",
        module="k8s.io/kubernetes",
        package=f"k8s.io/kubernetes/cmd/{program}",
        build_time=build_time,
        stamps=tuple((f"k8s.io/component-base/version.{name}", value) for name, value in stamps),
    )


def _prometheus(program: str, build_time: str, tags: str) -> Tool:
    """One of Prometheus' own programs, without its pages."""
    return Tool(
        pinned_by="prometheus",
        module="github.com/prometheus/prometheus",
        package=f"github.com/prometheus/prometheus/cmd/{program}",
        build_time=build_time,
        tags=tags,
    )


TOOLS = {
    "helm": Tool(
        pinned_by="helm",
        module="helm.sh/helm/v4",
        package="helm.sh/helm/v4/cmd/helm",
        build_time="2 minutes",
        stamps=(("helm.sh/helm/v4/internal/version.version", "{version}"),),
    ),
    # Helm as a program that stays, for tests: a thousand renders.
    "helm-render": Tool(
        pinned_by="helm",
        module="helm.sh/helm/v4",
        package="./render",
        build_time="1 minute",
    ),
    "ct": Tool(
        pinned_by="ct",
        module="github.com/helm/chart-testing/v3",
        package="github.com/helm/chart-testing/v3/ct",
        build_time="half a minute",
        stamps=(("github.com/helm/chart-testing/v3/ct/cmd.Version", "{version}"),),
    ),
    "kubeconform": Tool(
        pinned_by="kubeconform",
        module="github.com/yannh/kubeconform",
        package="github.com/yannh/kubeconform/cmd/kubeconform",
        build_time="10 seconds",
    ),
    # They would have the clients of twenty clouds to find targets with. The chart's monitors need Kubernetes'.
    "prometheus": _prometheus("prometheus", "3 minutes", "remove_all_sd,enable_kubernetes_sd"),
    "promtool": _prometheus("promtool", "3 minutes", "remove_all_sd"),
    "kube-apiserver": _kubernetes("kube-apiserver", "6 minutes"),
    "kube-controller-manager": _kubernetes("kube-controller-manager", "2 minutes"),
    "kube-scheduler": _kubernetes("kube-scheduler", "10 seconds"),
    "kubelet": _kubernetes("kubelet", "half a minute"),
    "kube-proxy": _kubernetes("kube-proxy", "10 seconds"),
    "kubectl": _kubernetes("kubectl", "1 minute"),
    "etcd": Tool(
        pinned_by="etcd",
        module="go.etcd.io/etcd/server/v3",
        package="go.etcd.io/etcd/server/v3",
        build_time="half a minute",
    ),
    "coredns": Tool(
        pinned_by="coredns",
        module="github.com/coredns/coredns",
        package="github.com/coredns/coredns",
        build_time="2 minutes",
    ),
    "kuberay-operator": Tool(
        pinned_by="kuberay-operator",
        module="github.com/ray-project/kuberay/ray-operator",
        package="github.com/ray-project/kuberay/ray-operator",
        build_time="4 minutes",
    ),
}


def pinned_version(folder: Path, module: str) -> str:
    """The version that ``folder``'s go.mod requires of ``module``.

    Raises:
        LookupError: It requires none.
    """
    found = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", (folder / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise LookupError(f"{folder / 'go.mod'} does not require {module}")
    return found[1]


def go(*arguments: str, folder: Path) -> str:
    """What ``go`` prints when it runs in ``folder``, apart from any workspace or flags of the user's.

    Raises:
        ToolUnavailable: There is no Go, or it failed.
    """
    if not shutil.which("go"):
        raise ToolUnavailable("go: not found; install Go 1.26+")
    # Pure Go needs no C compiler. The user's own flags (a vendor folder, tags) are not meant for these modules.
    flags = "-mod=readonly -trimpath -buildvcs=false"
    environment = {**os.environ, "GOFLAGS": flags, "GOWORK": "off", "CGO_ENABLED": "0"}
    done = subprocess.run(["go", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = "\n".join(done.stderr.strip().splitlines()[-SHOWN_LINES:])
        raise ToolUnavailable(f"`go {arguments[0]}` failed in {folder}:\n{shown}")
    return done.stdout


def binary(name: str) -> Path:
    """The pinned tool ``name``, built if it is not in the cache.

    Raises:
        ToolUnavailable: There is no such tool, there is no Go, or the build failed.
    """
    if name not in TOOLS:
        raise ToolUnavailable(f"{name}: no such tool; there are {', '.join(sorted(TOOLS))}")
    tool = TOOLS[name]
    built = cache() / "go-tools" / f"{name}-{tool.recipe}" / name
    if not built.exists():
        with alone(built.parent.with_name(built.parent.name + ".lock"), f"another build of {name}"):
            if not built.exists():  # else another process built it meanwhile
                _build(tool, built)
    return built


def helm() -> Path:
    """Helm: $HELM, else the pinned one; without Go, one on PATH that is new enough.

    Raises:
        ToolUnavailable: There is none of these.
    """
    if chosen := os.environ.get("HELM"):
        if found := shutil.which(chosen):
            return Path(found)
        raise ToolUnavailable(f"helm: HELM={chosen} is not a program; set it to helm's path, or unset it")
    try:
        return binary("helm")
    except ToolUnavailable as reason:
        oldest = ".".join(map(str, OLDEST_HELM))
        installed = shutil.which("helm")
        if installed and _helm_version(installed) >= OLDEST_HELM:
            return Path(installed)
        problem = f"{installed} is older than {oldest}" if installed else "not found"
        raise ToolUnavailable(f"helm: {problem}; install helm {oldest}+ or Go 1.26+, or set HELM ({reason})") from None


def _helm_version(program: str) -> tuple[int, ...]:
    printed = subprocess.run(
        [program, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=False
    ).stdout
    return tuple(int(part) for part in re.findall(r"\d+", printed)[:2])


def _build(tool: Tool, built: Path) -> None:
    print(f"building {built.name} {tool.version} (about {tool.build_time}, once) …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=built.parent.parent) as scratch:
        made = Path(scratch) / "built" / built.name
        build = ("-tags", tool.tags, "-ldflags", tool.ldflags, "-o", str(made))
        go("build", *build, tool.package, folder=tool.folder)
        made.parent.rename(built.parent)


def main(names: list[str]) -> int:
    """Print the path of each tool, building what is missing."""
    for name in names or sorted(TOOLS):
        try:
            print(binary(name), flush=True)
        except ToolUnavailable as problem:
            print(problem, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
