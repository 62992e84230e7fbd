"""On folders that look like the two kinds of hierarchies."""

from pathlib import Path

import pytest

from tools.cluster import cgroups
from tools.cluster.errors import Failed


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for controller in ("cpuset", "memory"):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / "cgroup.procs").touch()
    (tmp_path / "cpuset" / "cpuset.cpus").write_text("0-1\n")
    (tmp_path / "cpuset" / "cpuset.mems").write_text("0\n")
    return tmp_path


def test_v1_has_a_group_in_every_hierarchy_with_the_cpus_of_its_parent(v1: Path) -> None:
    cgroups.make("llms-node1", v1)
    assert cgroups.existing("llms-node1", v1) == [v1 / "cpuset" / "llms-node1", v1 / "memory" / "llms-node1"]
    assert (v1 / "cpuset" / "llms-node1" / "cpuset.cpus").read_text() == "0-1\n"


def test_v2_has_one_group_and_hands_it_the_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    cgroups.make("llms-node1", tmp_path)
    assert cgroups.existing("llms-node1", tmp_path) == [tmp_path / "llms-node1"]
    assert "+memory" in (tmp_path / "cgroup.subtree_control").read_text()


def test_a_group_is_removed_with_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "memory" / "llms-node1" / "kubepods" / "pod1").mkdir(parents=True)
    (tmp_path / "memory" / "cgroup.procs").touch()
    cgroups.remove("llms-node1", tmp_path)
    assert cgroups.existing("llms-node1", tmp_path) == []


def test_a_group_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "REMOVE_TIMEOUT_S", 0)
    (tmp_path / "memory" / "llms-node1").mkdir(parents=True)
    (tmp_path / "memory" / "cgroup.procs").touch()
    (tmp_path / "memory" / "llms-node1" / "held").touch()
    with pytest.raises(Failed, match=r"^the kernel still holds .*/memory/llms-node1; their cgroup.procs say by what$"):
        cgroups.remove("llms-node1", tmp_path)
