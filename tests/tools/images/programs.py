"""Stand-ins for the programs that build images."""

from pathlib import Path


def program(folder: Path, name: str, *, works: bool) -> None:
    """Put a program into ``folder`` that records in ``calls`` how it was called."""
    file = folder / name
    file.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\necho {name} was here\nexit {0 if works else 1}\n')
    file.chmod(0o755)
