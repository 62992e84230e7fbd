from pathlib import Path

import pytest

from serve_apps.llm import folder


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/nowhere is not there; see the model's source"):
        folder.check(tmp_path / "nowhere")


def test_a_folder_of_models_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"^{tmp_path} is no model, it has no config\.json"):
        folder.check(tmp_path)
    folder.check(tmp_path, config_elsewhere=True)


@pytest.mark.parametrize("config", folder.CONFIGS)
def test_a_model_passes(tmp_path: Path, config: str) -> None:
    (tmp_path / config).write_text("{}")
    folder.check(tmp_path)


def test_so_does_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    folder.check(tmp_path / "model.gguf")


def test_where_its_claim_is_mounted_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "claim" / "chat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        folder.check_where_mounted(tmp_path / "claim" / "nowhere", tmp_path)
    with pytest.raises(FileNotFoundError, match="chat is no model"):
        folder.check_where_mounted(tmp_path / "claim" / "chat", tmp_path)
    folder.check_where_mounted(tmp_path / "claim" / "chat", tmp_path, config_elsewhere=True)


@pytest.mark.parametrize("path", ["/elsewhere/nowhere", "org/chat", "pyarrow-s3://bucket/chat"])
def test_of_what_is_not_mounted_here_nothing_is_known(tmp_path: Path, path: str) -> None:
    folder.check_where_mounted(tmp_path / "claim" / "nowhere", tmp_path)
    folder.check_where_mounted(Path(path), tmp_path)
