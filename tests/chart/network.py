"""What NetworkPolicies allow, worked out from the objects: no network of a test enforces them.

Follows the API's text: policies add up; a pod that none selects for a direction is open in it; a connection needs its
source's egress and its destination's ingress; peers and ports of a rule multiply; a rule without peers is for everyone,
one without ports for all of them. Named ports and `endPort` are not used by the chart and raise.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = dict[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or an address outside the cluster (without a namespace)."""

    ip: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def allowed(policies: Sequence[Policy], source: End, destination: End, port: int, protocol: str = "TCP") -> bool:
    """Whether ``source`` may open a connection to ``port`` of ``destination``."""
    leaves = _passes(policies, "Egress", source, destination, port, protocol)
    return leaves and _passes(policies, "Ingress", destination, source, port, protocol)


def _passes(policies: Sequence[Policy], direction: str, own: End, other: End, port: int, protocol: str) -> bool:
    """Whether the policies of the pod ``own`` let a connection with ``other`` pass."""
    selecting = [policy for policy in policies if _applies(policy, direction, own)]
    return not selecting or any(
        _rule_fits(rule, direction, policy["metadata"]["namespace"], other, port, protocol)
        for policy in selecting
        for rule in policy["spec"].get(direction.lower(), ())
    )


def _applies(policy: Policy, direction: str, pod: End) -> bool:
    spec = policy["spec"]
    return (
        pod.namespace == policy["metadata"]["namespace"]
        and direction in spec["policyTypes"]
        and _selects(spec["podSelector"], pod.labels)
    )


def _rule_fits(rule: Mapping[str, Any], direction: str, namespace: str, other: End, port: int, protocol: str) -> bool:
    peers = rule.get("from" if direction == "Ingress" else "to")
    ports = rule.get("ports")
    return (not peers or any(_is_peer(peer, namespace, other) for peer in peers)) and (
        not ports or any(_is_port(one, port, protocol) for one in ports)
    )


def _is_port(allowed_port: Mapping[str, Any], port: int, protocol: str) -> bool:
    number = allowed_port.get("port")
    if isinstance(number, str):
        raise ValueError(f"a name that only the pod's containers explain: {allowed_port}")
    inside = number is None or number <= port <= allowed_port.get("endPort", number)
    return allowed_port.get("protocol", "TCP") == protocol and inside


def _is_peer(peer: Mapping[str, Any], namespace: str, other: End) -> bool:
    if "ipBlock" in peer:
        address, block = ipaddress.ip_address(other.ip), peer["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and not any(
            address in ipaddress.ip_network(excluded) for excluded in block.get("except", ())
        )
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
        if not _selects(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != namespace:
        return False
    return _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects; an empty one selects all."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions", ())
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise ValueError(f"not an operator: {expression}")
