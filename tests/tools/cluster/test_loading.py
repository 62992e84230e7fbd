import json
from pathlib import Path

import pytest

from tools.cluster import loading
from tools.cluster.errors import Failed
from tools.cluster.loading import homes
from tools.cluster.node import Node

REDIS = "docker.io/library/redis:8.2"


class FakeNode(Node):
    """A node whose containerd holds images by reference and id."""

    def ctr(self, *words: str) -> str:
        held = STORES[self.name]
        if words[:2] == ("images", "import"):
            before = held.get(REDIS)
            held[REDIS] = held["sha256:new"] = Path(words[2]).read_text()
            assert before is None or before in [one for name, one in held.items() if not name.startswith("sha256:")], (
                "nothing holds the layers that both have"
            )
        elif words[:3] == ("images", "tag", "--force"):
            held[words[4]] = held[words[3]]
        elif words[:2] == ("images", "remove"):
            for name in words[2:]:
                del held[name]
        elif words[:3] == ("images", "list", "--quiet"):
            digest = words[3].removeprefix("target.digest==sha256:")
            return "\n".join(name for name, one in held.items() if one == digest)
        elif words[:2] == ("images", "list"):
            rows = [f"{name} type sha256:{digest} 1MB" for name, digest in held.items() if words[2] == f"name=={name}"]
            return "\n".join(["REF TYPE DIGEST SIZE", *rows])
        elif words == ("content", "list", "--quiet"):
            return "\n".join(f"sha256:{one}" for one in held.values())
        elif words[:2] == ("content", "get"):
            return json.dumps({"config": {"digest": words[2]}})
        return ""


STORES: dict[str, dict[str, str]] = {}


@pytest.fixture(autouse=True)
def _cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    STORES.update(node1={}, node2={})
    (tmp_path / "cluster").mkdir()
    monkeypatch.setattr(loading, "NODES", (FakeNode(1), FakeNode(2)))
    monkeypatch.setattr(loading, "cache", lambda: tmp_path)
    monkeypatch.setattr(loading, "build", lambda name: "new")
    monkeypatch.setattr(loading, "export", lambda name, archive, held: archive.write_text("new"))


def test_an_image_goes_to_the_nodes_that_lack_that_very_one() -> None:
    STORES["node1"] |= {REDIS: "old", "sha256:old": "old"}
    loading.load(["redis"])
    new = {REDIS: "new", "sha256:new": "new"}
    assert {"node1": new, "node2": new} == STORES, "the old one, which has lost its name, is removed"


def test_what_a_killed_import_has_left_is_gone_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "cluster" / "image.tar"
    left.write_text("half of it")
    loading.load(["redis"])
    assert STORES["node1"][REDIS] == "new"
    assert not left.exists()


def test_an_old_image_that_has_another_tag_stays() -> None:
    STORES["node1"] |= {REDIS: "old", "docker.io/library/redis:8": "old", "sha256:old": "old"}
    loading.load(["redis"])
    assert "sha256:old" in STORES["node1"]


def test_an_image_that_all_have_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    STORES.update(node1={REDIS: "new"}, node2={REDIS: "new"})
    monkeypatch.delattr(loading, "export")
    loading.load(["redis"])


def test_what_a_node_has_of_an_image_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    STORES["node1"] |= {REDIS: "old"}
    seen = []

    def export(name: str, archive: Path, held: set[str]) -> None:
        seen.append(held)
        archive.write_text("new")

    monkeypatch.setattr(loading, "export", export)
    loading.load(["redis"])
    assert seen == [{"sha256:old"}, set()]


def test_an_image_that_must_be_there_is_not_built_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    STORES.update(node1={REDIS: "old"}, node2={REDIS: "old"})
    monkeypatch.delattr(loading, "build")
    loading.ensure("redis")


def test_an_image_that_must_be_there_is_loaded_where_it_is_not() -> None:
    STORES.update(node1={REDIS: "new"}, node2={})
    loading.ensure("redis")
    assert STORES["node2"][REDIS] == "new"


def test_an_import_that_brings_another_image_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "export", lambda name, archive, held: archive.write_text("other"))
    with pytest.raises(Failed, match=r"^node1 has other as docker\.io/library/redis:8\.2 after the import of new$"):
        loading.load(["redis"])


def test_the_image_of_the_models_goes_to_the_first_node_only() -> None:
    assert [node.name for node in homes("ray-vllm-cpu")] == ["node1"]
    assert [node.name for node in homes("ray-serve")] == ["node1", "node2"]
