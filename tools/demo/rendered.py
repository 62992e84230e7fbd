"""What Helm renders, and the parts of the RayService that a local Ray node stands in for."""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve_apps.common.logging import CONTAINER_LOG

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts" / "llm-serving"


@dataclass(frozen=True)
class RenderedService:
    """A rendered RayService."""

    #: The Serve config, parsed; nothing in it is changed.
    serve_config: dict[str, Any]
    #: The plain environment variables of its Ray containers.
    environment: dict[str, str]
    #: The Ray node labels of its worker groups; one local node carries them all.
    labels: dict[str, str]

    @property
    def port(self) -> int:
        """The port the gateway answers on."""
        port: int = self.serve_config["http_options"]["port"]
        return port

    @property
    def application_names(self) -> list[str]:
        """The Serve applications, in the config's order."""
        return [application["name"] for application in self.serve_config["applications"]]

    @property
    def answering_models(self) -> list[str]:
        """The models a question can be put to, in the config's order."""
        return [one["name"] for one in self.serve_config["applications"] if one["args"].get("task") == "generate"]


def helm_template(helm: Path, files: Iterable[Path], settings: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The objects that ``helm template`` makes of the chart with ``files`` and ``--set settings``.

    Raises:
        ValueError: Helm refused; the message is Helm's own.
    """
    command = [str(helm), "template", "llm-serving", str(CHART)]
    for file in files:
        command += ["--values", str(file)]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip())
    return [document for document in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if document]


def ray_service(objects: Iterable[dict[str, Any]]) -> RenderedService:
    """The RayService among ``objects``."""
    spec = next(one["spec"] for one in objects if one["kind"] == "RayService")
    cluster = spec["rayClusterConfig"]
    groups = cluster["workerGroupSpecs"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in groups)]
    environment = {
        variable["name"]: variable["value"]
        for template in templates
        for variable in template["spec"]["containers"][0].get("env", [])
        # This machine's first process is no container's, and its stderr nobody's log.
        if "value" in variable and variable["name"] != CONTAINER_LOG
    }
    # Among groups of one label key the local node is the CPU one; it has nothing else to offer.
    labels: dict[str, str] = {}
    for group in groups:
        for key, value in group.get("labels", {}).items():
            if value == "cpu" or key not in labels:
                labels[key] = value
    return RenderedService(yaml.load(spec["serveConfigV2"], Loader=yaml.CSafeLoader), environment, labels)
