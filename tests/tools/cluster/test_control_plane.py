import pytest

from tools.cluster import control_plane
from tools.cluster.control_plane import COREFILE, apiserver, kube_proxy


@pytest.fixture(autouse=True)
def _no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "binary", lambda name: f"/tools/{name}")


def test_rights_are_checked_as_in_any_cluster() -> None:
    assert "--authorization-mode=Node,RBAC" in apiserver()


def test_the_api_server_can_reach_kubelets_for_logs_and_exec() -> None:
    names = {flag.partition("=")[0] for flag in apiserver()}
    assert {"--kubelet-client-certificate", "--kubelet-client-key", "--client-ca-file"} <= names


def test_a_proxy_leaves_the_hosts_connection_table_alone() -> None:
    assert {"--conntrack-max-per-core=0", "--hostname-override=node2"} <= set(kube_proxy("node2"))


def test_names_outside_the_cluster_are_refused_at_once() -> None:
    """The plugin template comes before kubernetes whatever their order, so each has a block of its own."""
    inside, outside = COREFILE.split("\n. {")
    assert "kubernetes" in inside
    assert "template" not in inside
    assert "rcode NXDOMAIN" in outside
