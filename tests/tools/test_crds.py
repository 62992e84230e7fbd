import pytest

from tools import crds
from tools.gotools import pinned_version


def test_the_files_hold_the_definitions_in_use() -> None:
    found = {file.stem: file.read_text() for file in crds.crd_files()}
    assert found.keys() == {name for _, names in crds.IN_USE.values() for name in names}
    assert all("kind: CustomResourceDefinition" in text for text in found.values())


@pytest.mark.parametrize("module", crds.IN_USE)
def test_each_module_comes_at_its_pinned_version(module: str) -> None:
    folder = crds.module_folders(crds.PINS, module)[module]
    assert folder.name.endswith(f"@{pinned_version(crds.PINS, module)}")


def test_a_definition_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "github.com/ray-project/kuberay/ray-operator"
    monkeypatch.setattr(crds, "IN_USE", {module: ("config/crd/bases", ("ray.io_rayserves",))})
    with pytest.raises(FileNotFoundError, match=r"ray\.io_rayserves\.yaml: not in this version of the module"):
        crds.crd_files()
