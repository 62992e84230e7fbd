"""Every preset in every environment, and the files its objects are kept in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.chart.render import VALUES, render_chart

GOLDEN = Path(__file__).parent / "golden"
PRESETS = sorted(file.stem for file in VALUES.glob("*.yaml"))
ENVIRONMENTS = sorted(file.stem for file in (VALUES / "environments").glob("*.yaml"))
#: The name of each combination, for example ``rag-local``, and its values files in order.
COMBINATIONS: dict[str, tuple[Path, Path]] = {
    f"{preset}-{environment}": (VALUES / f"{preset}.yaml", VALUES / "environments" / f"{environment}.yaml")
    for preset in PRESETS
    for environment in ENVIRONMENTS
}


class _Dumper(yaml.CSafeDumper):
    """YAML in which a text of several lines stays readable."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def objects(combination: str) -> list[dict[str, Any]]:
    """What a release of the combination consists of."""
    return render_chart(files=COMBINATIONS[combination])


def golden_files(rendered: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Each object's file name and text, without what differs from render to render or release to release."""
    files: dict[str, str] = {}
    for one in rendered:
        name = f"{one['kind'].lower()}-{one['metadata']['name']}.yaml"
        files[name] = yaml.dump(_stable(one), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return files


def _stable(one: dict[str, Any]) -> dict[str, Any]:
    labels = one["metadata"]["labels"]
    labels = {**labels, "helm.sh/chart": "llm-serving-<version>", "app.kubernetes.io/version": "<version>"}
    stable = {**one, "metadata": {**one["metadata"], "labels": labels}}
    if one["kind"] == "Secret":
        stable["data"] = dict.fromkeys(one["data"], "<random>")
    if one["kind"] == "ConfigMap":
        # The dashboards are files already.
        stable["data"] = {
            key: f"<dashboards/{key.removeprefix('llm-serving-')}>" if key.endswith(".json") else text
            for key, text in one["data"].items()
        }
    return stable
