from tests.tools.doctor.clusters import cluster, kubectl
from tools.doctor.cluster import NODE_POOLS, read


def test_everything_the_doctor_looks_at_is_read() -> None:
    assert read(kubectl) == cluster()


def test_a_feature_gate_is_asked_for_only_where_a_release_needs_it() -> None:
    assert read(kubectl, image_volumes=True).image_volumes is False
    silent = read(lambda *words: "" if "--raw=/metrics" in words else kubectl(*words), image_volumes=True)
    assert silent.image_volumes is None


def test_node_pools_are_asked_for_only_where_there_is_karpenter() -> None:
    def without(*arguments: str) -> str:
        assert NODE_POOLS not in arguments
        lines = kubectl(*arguments).splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(NODE_POOLS))

    assert NODE_POOLS not in read(without).definitions
