"""Files a tool writes: written, or with ``--check`` only compared."""

import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def write_or_check(files: Mapping[Path, str], command: str, folder: Path | None = None) -> int:
    """Write each text to its path; with ``--check`` among the arguments, name the files that differ instead.

    ``folder`` holds nothing but these files: others in it are removed, or named.

    Returns the exit status: 1 if a file differs.
    """
    left = sorted(path for path in folder.rglob("*") if path.is_file() and path not in files) if folder else []
    if "--check" not in sys.argv[1:]:
        for path in left:
            path.unlink()
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return 0
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in [*stale, *left]:
        print(f"{path.relative_to(REPOSITORY)} is out of date; run `{command}`", file=sys.stderr)
    return 1 if stale or left else 0
