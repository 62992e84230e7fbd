import tomllib
from ipaddress import IPv4Network

import pytest

from tools.cluster import node
from tools.cluster.control_plane import NODE_GRACE_S
from tools.cluster.errors import Failed
from tools.cluster.node import NODES, cni_config, containerd_config, kubelet, kubelet_config


def test_each_kubelet_has_cgroups_of_its_own() -> None:
    """Under a common one, a kubelet would end the other's pods."""
    assert [kubelet_config(one)["cgroupRoot"] for one in NODES] == ["/llms-node1", "/llms-node2"]


def test_only_whom_the_api_server_allows_may_read_logs_or_open_a_shell() -> None:
    config = kubelet_config(NODES[0])
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authorization"] == {"mode": "Webhook"}


def test_a_node_that_is_late_with_a_few_words_is_not_lost() -> None:
    """A kubelet renews its lease four times in the lease's time; a lost node's pods are taken out of their Services."""
    renewed_s = kubelet_config(NODES[0])["nodeLeaseDurationSeconds"] / 4
    assert 5 * renewed_s <= NODE_GRACE_S


def test_the_image_stores_lie_in_the_cache_and_are_not_shared() -> None:
    roots = [tomllib.loads(containerd_config(one))["root"] for one in NODES]
    assert [root.split("/")[-3:] for root in roots] == [
        ["cluster", "node1", "containerd"],
        ["cluster", "node2", "containerd"],
    ]


def test_the_kubelet_asks_containerd_where_it_listens() -> None:
    config = tomllib.loads(containerd_config(NODES[0]))
    assert kubelet_config(NODES[0])["containerRuntimeEndpoint"] == f"unix://{config['grpc']['address']}"
    assert config["plugins"]["io.containerd.grpc.v1.cri"]["sandbox_image"] == "localhost/pause:3"


def test_pods_get_addresses_of_their_node() -> None:
    subnets = [cni_config(one)["plugins"][0]["ipam"]["ranges"][0][0]["subnet"] for one in NODES]
    assert subnets == ["10.244.1.0/24", "10.244.2.0/24"]
    assert not IPv4Network(subnets[0]).overlaps(IPv4Network(subnets[1]))


def test_the_first_node_is_the_one_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "binary", lambda name: f"/tools/{name}")
    assert "--node-labels=llm-serving/models=true" in kubelet(NODES[0])
    assert {"/tools/kubelet", "--hostname-override=node2", "--node-ip=10.89.0.12"} <= set(kubelet(NODES[1]))


def test_an_unknown_node_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(Failed, match=r"^no node 'node3'; there are node1, node2$"):
        node.named("node3")
