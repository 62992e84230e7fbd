"""network.py: the evaluator itself, rule by rule of the API's text."""

from typing import Any

import pytest

from tests.chart.network import End, allowed

APP = End("10.1.0.1", "llm", {"app": "gateway"})
OTHER = End("10.1.0.2", "llm", {"app": "other"})
ELSEWHERE = End("10.1.0.3", "shop", {"app": "gateway"}, {"team": "shop"})
OUTSIDE = End("192.0.2.1")


def policy(types: tuple[str, ...] = ("Ingress",), selector: dict[str, Any] | None = None, **rules: Any) -> Any:
    """A policy in the namespace ``llm``; it selects ``app: gateway`` unless told otherwise."""
    chosen = {"matchLabels": {"app": "gateway"}} if selector is None else selector
    return {
        "metadata": {"namespace": "llm"},
        "spec": {"podSelector": chosen, "policyTypes": list(types), **rules},
    }


def test_a_pod_that_no_policy_selects_is_open() -> None:
    assert allowed([], OUTSIDE, APP, 80)
    assert allowed([policy(selector={"matchLabels": {"app": "other"}})], OUTSIDE, APP, 80)


def test_a_pod_that_one_selects_is_closed_in_that_direction_only() -> None:
    closed = policy(ingress=[])
    assert not allowed([closed], OTHER, APP, 80)
    assert allowed([closed], APP, OTHER, 80)


def test_a_policy_of_another_namespace_selects_nothing_here() -> None:
    assert allowed([policy(ingress=[])], OTHER, ELSEWHERE, 80)


def test_an_empty_selector_selects_the_whole_namespace() -> None:
    assert not allowed([policy(selector={}, ingress=[])], APP, OTHER, 80)


def test_a_rule_without_peers_is_for_everyone_and_one_without_ports_for_all() -> None:
    assert allowed([policy(ingress=[{}])], OUTSIDE, APP, 80)
    by_port = [policy(ingress=[{"ports": [{"protocol": "TCP", "port": 80}]}])]
    assert allowed(by_port, OUTSIDE, APP, 80)
    assert not allowed(by_port, OUTSIDE, APP, 81)
    assert not allowed(by_port, OUTSIDE, APP, 80, "UDP")


def test_a_pod_selector_means_the_policys_namespace() -> None:
    from_gateways = [policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "gateway"}}}]}])]
    assert allowed(from_gateways, APP, APP, 80)
    assert not allowed(from_gateways, ELSEWHERE, APP, 80)
    assert not allowed(from_gateways, OTHER, APP, 80)


def test_a_namespace_selector_and_a_pod_selector_in_one_peer_must_both_hold() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"team": "shop"}}, "podSelector": {"matchLabels": {"app": "gateway"}}}
    both = [policy(ingress=[{"from": [peer]}])]
    assert allowed(both, ELSEWHERE, APP, 80)
    assert not allowed(both, APP, APP, 80)
    assert not allowed(both, End("10.1.0.4", "shop", {"app": "other"}, {"team": "shop"}), APP, 80)


def test_a_namespace_bears_its_name_as_a_label() -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    assert allowed([policy(ingress=[{"from": [peer]}])], ELSEWHERE, APP, 80)


def test_pods_are_not_outside_and_the_outside_is_no_pod() -> None:
    assert not allowed([policy(ingress=[{"from": [{"namespaceSelector": {}}]}])], OUTSIDE, APP, 80)


def test_an_address_block_has_exceptions() -> None:
    block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}
    from_block = [policy(ingress=[{"from": [block]}])]
    assert allowed(from_block, OUTSIDE, APP, 80)
    assert not allowed(from_block, End("192.0.2.200"), APP, 80)
    assert not allowed(from_block, OTHER, APP, 80)


def test_policies_add_up() -> None:
    first, second = policy(ingress=[]), policy(ingress=[{"from": [{"podSelector": {}}]}])
    assert allowed([first, second], OTHER, APP, 80)


def test_a_connection_needs_both_ends() -> None:
    leaves = policy(("Egress",), {}, egress=[{"to": [{"podSelector": {}}], "ports": [{"port": 80}]}])
    assert allowed([leaves], OTHER, APP, 80)
    assert not allowed([leaves], OTHER, APP, 81)
    assert not allowed([leaves], APP, OUTSIDE, 80)
    assert not allowed([leaves, policy(ingress=[])], OTHER, APP, 80)


@pytest.mark.parametrize(
    ("operator", "values", "gateway", "other"),
    [
        ("In", ["gateway"], True, False),
        ("NotIn", ["gateway"], False, True),
        ("Exists", None, True, True),
        ("DoesNotExist", None, False, False),
    ],
)
def test_expressions(operator: str, values: list[str] | None, gateway: bool, other: bool) -> None:
    expression = {"key": "app", "operator": operator, **({"values": values} if values else {})}
    by_expression = [policy(ingress=[{"from": [{"podSelector": {"matchExpressions": [expression]}}]}])]
    assert allowed(by_expression, APP, APP, 80) is gateway
    assert allowed(by_expression, OTHER, APP, 80) is other


@pytest.mark.parametrize(("port", "reached"), [(79, False), (80, True), (90, True), (91, False)])
def test_a_range_of_ports_ends_with_its_last(port: int, reached: bool) -> None:
    assert allowed([policy(ingress=[{"ports": [{"port": 80, "endPort": 90}]}])], OUTSIDE, APP, port) is reached


def test_a_port_by_name_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="containers explain"):
        allowed([policy(ingress=[{"ports": [{"port": "http"}]}])], OUTSIDE, APP, 80)
