import json
from pathlib import Path
from typing import Any

import pytest

from tools.cluster import volumes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(volumes, "VOLUMES", tmp_path)
    volumes.make_folders()
    return tmp_path


def test_any_user_may_write_to_a_volume(folder: Path) -> None:
    assert {one.stat().st_mode & 0o777 for one in folder.iterdir()} == {0o777}


def test_there_is_a_folder_for_every_volume(folder: Path) -> None:
    paths = [one["spec"]["hostPath"]["path"] for one in volumes.objects()[1:]]
    assert len(paths) == 24
    assert all(Path(path).is_dir() for path in paths)


def persistent(name: str, phase: str, *, claimed: bool) -> dict[str, Any]:
    """A PersistentVolume, as the API server tells of it."""
    claim = {"claimRef": {"name": "data", "namespace": "default"}} if claimed else {}
    return {"metadata": {"name": name}, "spec": claim, "status": {"phase": phase}}


def test_a_released_volume_is_emptied_and_a_bound_one_is_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("volume-01", "volume-02"):
        (folder / name / "data").touch()
    patched: list[str] = []

    def kubectl(*words: str, **_: Any) -> str:
        if words[0] == "patch":
            patched.append(words[2])
        phases = {"volume-01": "Bound", "volume-02": "Released", "of-somebody-else": "Released"}
        return json.dumps({"items": [persistent(name, phase, claimed=True) for name, phase in phases.items()]})

    monkeypatch.setattr(volumes, "kubectl", kubectl)
    assert volumes.reopen() == ["volume-02"] == patched
    assert (folder / "volume-01" / "data").exists()
    assert not (folder / "volume-02" / "data").exists()


def test_a_volume_that_was_just_reopened_is_not_reopened_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes calls it Released for a moment more, and a run that follows another at once asks in that moment."""
    listed = json.dumps({"items": [persistent("volume-01", "Released", claimed=False)]})
    asked: list[str] = []

    def kubectl(*words: str) -> str:
        asked.append(words[0])
        return listed

    monkeypatch.setattr(volumes, "kubectl", kubectl)
    assert volumes.reopen() == []
    assert asked == ["get"]
