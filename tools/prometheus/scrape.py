"""PodMonitor and ServiceMonitor → the scrape configs of a plain Prometheus, as prometheus-operator writes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What the chart's monitors are made of. What is not known here would be left out of the proof, so it is refused.
SPEC_KEYS = {"selector", "namespaceSelector", "podMetricsEndpoints", "endpoints"}
ENDPOINT_KEYS = {"port", "path", "interval", "honorLabels", "relabelings"}


@dataclass(frozen=True)
class Kind:
    """How Prometheus finds what one kind of monitor selects."""

    endpoints: str
    """The key of the monitor's endpoints."""
    role: str
    """The role of Prometheus' Kubernetes discovery."""
    selected: str
    """The object whose labels the monitor selects by."""
    port: str
    """The label that has the port's name."""
    labels: tuple[tuple[str, str], ...]
    """Labels of every series, and what discovery calls them."""


KINDS = {
    "PodMonitor": Kind(
        endpoints="podMetricsEndpoints",
        role="pod",
        selected="pod",
        port="__meta_kubernetes_pod_container_port_name",
        labels=(
            ("namespace", "__meta_kubernetes_namespace"),
            ("container", "__meta_kubernetes_pod_container_name"),
            ("pod", "__meta_kubernetes_pod_name"),
        ),
    ),
    "ServiceMonitor": Kind(
        endpoints="endpoints",
        role="endpointslice",
        selected="service",
        port="__meta_kubernetes_endpointslice_port_name",
        labels=(
            ("namespace", "__meta_kubernetes_namespace"),
            ("service", "__meta_kubernetes_service_name"),
            ("pod", "__meta_kubernetes_pod_name"),
        ),
    ),
}


def scrape_configs(monitor: dict[str, Any], namespace: str, kubeconfig: Path) -> list[dict[str, Any]]:
    """A scrape config for each endpoint of ``monitor``, which stands in ``namespace``.

    Raises:
        ValueError: The monitor says something that is not known here.
    """
    kind, name, spec = KINDS[monitor["kind"]], monitor["metadata"]["name"], monitor["spec"]
    place = f"{monitor['kind']} {name}"
    _only(SPEC_KEYS, spec, place)
    _only({"matchLabels"}, spec["selector"], f"{place}: selector")
    _only({"matchNames"}, spec.get("namespaceSelector", {}), f"{place}: namespaceSelector")
    discovery = {
        "role": kind.role,
        "kubeconfig_file": str(kubeconfig),
        "namespaces": {"names": spec.get("namespaceSelector", {}).get("matchNames", [namespace])},
    }
    found = []
    for number, endpoint in enumerate(spec[kind.endpoints]):
        _only(ENDPOINT_KEYS, endpoint, f"{place}: endpoint {endpoint.get('port')}")
        found.append(
            {
                "job_name": f"{monitor['kind']}/{namespace}/{name}/{number}",
                "honor_labels": endpoint.get("honorLabels", False),
                "metrics_path": endpoint["path"],
                "scrape_interval": endpoint["interval"],
                "scrape_timeout": endpoint["interval"],
                "kubernetes_sd_configs": [discovery],
                "relabel_configs": [
                    *(_selected(kind, key, value) for key, value in spec["selector"]["matchLabels"].items()),
                    {"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"},
                    {"action": "keep", "source_labels": [kind.port], "regex": re.escape(endpoint["port"])},
                    *({"source_labels": [source], "target_label": label} for label, source in kind.labels),
                    {"target_label": "endpoint", "replacement": endpoint["port"]},
                    *map(_relabeling, endpoint.get("relabelings", [])),
                ],
            }
        )
    return found


def _selected(kind: Kind, key: str, value: str) -> dict[str, Any]:
    """Keep what has the label ``key`` with ``value``."""
    label = re.sub(r"[^a-zA-Z0-9_]", "_", key)
    sources = [f"__meta_kubernetes_{kind.selected}_{what}_{label}" for what in ("label", "labelpresent")]
    return {"action": "keep", "source_labels": sources, "regex": f"{re.escape(value)};true"}


def _relabeling(rule: dict[str, Any]) -> dict[str, Any]:
    """A relabeling in Prometheus' own spelling."""
    return {re.sub(r"[A-Z]", lambda capital: "_" + capital[0].lower(), key): value for key, value in rule.items()}


def _only(known: set[str], found: dict[str, Any], place: str) -> None:
    if unknown := sorted(found.keys() - known):
        raise ValueError(f"{place}: not known here: {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def static(name: str, targets: Sequence[str], labels: dict[str, str], interval: str) -> dict[str, Any]:
    """The scrape config of ``host:port`` addresses, where there is no Kubernetes to find them in."""
    return {
        "job_name": name,
        "scrape_interval": interval,
        "scrape_timeout": interval,
        "static_configs": [{"targets": [*targets], "labels": labels}],
    }
