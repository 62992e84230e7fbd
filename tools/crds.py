"""The custom resource definitions behind what the chart renders, as upstream publishes them in its Go modules."""

import json
from pathlib import Path

from tools.gotools import MODULES, go

#: Has kubectl list the definitions in use. A new one has no conditions, on which `kubectl wait` and jsonpath fail.
ESTABLISHED = """{{range .items}}{{$name := .metadata.name}}
{{range .status.conditions}}{{if eq .type "Established"}}{{if eq .status "True"}}{{$name}}{{end}}{{end}}{{end}}
{{end}}"""

#: The module that pins them: it holds versions only, no Go code.
PINS = MODULES / "crds"

#: By Go module: the folder of its definitions, and those in use. Each costs start-up time in an API server, so the
#: list has no more than the chart can render.
IN_USE: dict[str, tuple[str, tuple[str, ...]]] = {
    "github.com/ray-project/kuberay/ray-operator": (
        "config/crd/bases",
        ("ray.io_rayservices", "ray.io_rayclusters", "ray.io_rayjobs"),
    ),
    "github.com/aws/karpenter-provider-aws": (
        "pkg/apis/crds",
        ("karpenter.sh_nodepools", "karpenter.k8s.aws_ec2nodeclasses"),
    ),
    "github.com/kedacore/keda/v2": ("config/crd/bases", ("keda.sh_scaledobjects",)),
    "github.com/external-secrets/external-secrets": ("config/crds/bases", ("external-secrets.io_externalsecrets",)),
    "github.com/prometheus-operator/prometheus-operator": (
        "example/prometheus-operator-crd",
        (
            "monitoring.coreos.com_podmonitors",
            "monitoring.coreos.com_servicemonitors",
            "monitoring.coreos.com_prometheusrules",
        ),
    ),
    "sigs.k8s.io/gateway-api": ("config/crd/standard", ("gateway.networking.k8s.io_httproutes",)),
}


def module_folders(pins: Path, *modules: str) -> dict[str, Path]:
    """Where Go keeps ``modules`` at the versions that ``pins`` requires, by name; downloaded on first use.

    Raises:
        ToolUnavailable: There is no Go, or it could not download them.
    """
    printed = go("mod", "download", "-json", *modules, folder=pins)
    decoder = json.JSONDecoder()
    folders: dict[str, Path] = {}
    while printed := printed.strip():
        module, end = decoder.raw_decode(printed)
        folders[module["Path"]] = Path(module["Dir"])
        printed = printed[end:]
    return folders


def crd_files() -> list[Path]:
    """The files of the definitions in use, one definition each.

    Raises:
        ToolUnavailable: See `module_folders`.
        FileNotFoundError: A module does not hold a definition where `IN_USE` says.
    """
    folders = module_folders(PINS, *IN_USE)
    files = [folders[module] / folder / f"{name}.yaml" for module, (folder, names) in IN_USE.items() for name in names]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"{file}: not in this version of the module; correct IN_USE in {__file__}")
    return files


def definition_name(file: Path) -> str:
    """The name of the definition in ``file``: ``<plural>.<group>``, where files are named ``<group>_<plural>.yaml``."""
    return ".".join(reversed(file.stem.split("_")))
