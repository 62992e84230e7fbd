"""A model's folder on a claim or in an image, looked at before an engine is started for it."""

from pathlib import Path

#: A model has one of these: Hugging Face's, or Mistral's own.
CONFIGS = ("config.json", "params.json")


def check(path: Path, *, config_elsewhere: bool = False) -> None:
    """See that a model is at ``path``: a file, or a folder with the model's config, unless that is somewhere else.

    Raises:
        FileNotFoundError: There is none; the message says what is missing, and where the path comes from.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; see the model's source and what its claim or image has")
    if path.is_dir() and not config_elsewhere and not any((path / name).is_file() for name in CONFIGS):
        raise FileNotFoundError(f"{path} is no model, it has no {CONFIGS[0]}; see the path in the model's source")


def check_where_mounted(path: Path, root: Path, *, config_elsewhere: bool = False) -> None:
    """As `check`, where the claim or image is mounted below ``root`` here; of any other source nothing is known yet."""
    if root in path.parents and (root / path.relative_to(root).parts[0]).is_dir():
        check(path, config_elsewhere=config_elsewhere)
