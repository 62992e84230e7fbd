import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from serve_apps.llm.fetching import fetch
from serve_apps.llm.peft import CONFIG, WEIGHTS
from tests.serve_apps.bucket import Bucket
from tests.serve_apps.gateway.servers import serving
from tests.serve_apps.llm.test_peft import made

FILES = (CONFIG, WEIGHTS)


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where claims are mounted."""
    monkeypatch.setenv("LLM_SERVING_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_an_adapter_comes_from_a_claim_with_nothing_else(models: Path, tmp_path: Path) -> None:
    original = made(models / "claim" / "sql")
    (original / "adapter_model.bin").write_bytes(b"pickle")
    fetch("pvc://claim/sql", "", tmp_path / "copy")
    assert {file.name for file in (tmp_path / "copy").iterdir()} == {CONFIG, WEIGHTS}
    assert (tmp_path / "copy" / WEIGHTS).read_bytes() == (original / WEIGHTS).read_bytes()


def test_an_adapter_of_a_directory_comes_from_its_folder(models: Path, tmp_path: Path) -> None:
    made(models / "claim" / "sql")
    fetch("pvc://claim", "sql", tmp_path / "copy")
    assert (tmp_path / "copy" / CONFIG).is_file()


def test_it_is_told_apart_from_others_by_what_is_in_it(models: Path, tmp_path: Path) -> None:
    made(models / "claim" / "a", seed=1)
    made(models / "claim" / "b", seed=2)
    shutil.copytree(models / "claim" / "a", models / "claim" / "c")
    digests = [fetch("pvc://claim", name, tmp_path / name) for name in "abc"]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_file_that_is_not_there_is_named(models: Path, tmp_path: Path, file: str) -> None:
    (made(models / "claim" / "sql") / file).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        fetch("pvc://claim/sql", "", tmp_path / "copy")
    assert caught.value.filename == file


def test_an_adapter_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, file: str, **where: Any) -> str:
        asked.append((repository, file, where))
        return str(made(tmp_path / "hub") / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fetch("hf://org/sql@abc", "", tmp_path / "copy")
    fetch("hf://org/all", "sql", tmp_path / "other")
    assert asked[0] == ("org/sql", CONFIG, {"subfolder": None, "revision": "abc"})
    assert asked[-1] == ("org/all", WEIGHTS, {"subfolder": "sql", "revision": None})


def test_a_hub_that_is_not_reached_says_nothing_about_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(OSError, match="cannot be reached") as caught:
        fetch("hf://org/sql", "", tmp_path / "copy")
    assert not isinstance(caught.value, FileNotFoundError)


def test_an_adapter_comes_from_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "sql")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serving(Bucket({f"adapters/sql/{file}": (tmp_path / "sql" / file).read_bytes() for file in FILES})) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        fetch("s3://bucket/adapters/sql/", "", tmp_path / "copy")
        fetch("s3://bucket/adapters", "sql", tmp_path / "other")
        with pytest.raises(FileNotFoundError) as missing:
            fetch("s3://bucket/adapters", "none", tmp_path / "none")
    assert missing.value.filename == CONFIG
    for file in FILES:
        original = (tmp_path / "sql" / file).read_bytes()
        assert (tmp_path / "copy" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() == original
