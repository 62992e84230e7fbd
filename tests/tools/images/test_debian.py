import os
from dataclasses import replace
from pathlib import Path

import pytest

from tools.images.debian import Base

DEBOOTSTRAP = """#!/bin/sh
for last; do :; done
mkdir -p "$last/usr/bin" "$last/usr/lib/python3.11" "$last/usr/share/doc/apt" "$last/var/log/apt" "$last/etc"
touch "$last/usr/lib/python3.11/EXTERNALLY-MANAGED" "$last/etc/resolv.conf" "$last/etc/passwd"
echo "$@"
"""


def test_the_name_follows_the_recipe() -> None:
    base = Base()
    assert base.reference == Base().reference
    assert base.reference.startswith("localhost/")
    others = (replace(base, suite="trixie"), replace(base, packages=("python3",)), replace(base, dockerfile="FROM x"))
    assert len({base.reference, *(other.reference for other in others)}) == 4


def test_debians_files_come_with_a_dockerfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "debootstrap"
    program.write_text(DEBOOTSTRAP)
    program.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    context = tmp_path / "context"
    context.mkdir()

    Base(packages=("python3", "python3-pip")).write(context, tmp_path / "log")

    files = context / "rootfs"
    assert (context / "Dockerfile").read_text() == Base().dockerfile
    assert (tmp_path / "log").read_text() == f"--variant=minbase --include=python3,python3-pip bookworm {files}\n"
    left = {str(path.relative_to(files)) for path in files.rglob("*") if not path.is_dir()}
    assert left == {"usr/bin/python", "etc/passwd"}
    assert (files / "usr/bin/python").readlink() == Path("python3")
