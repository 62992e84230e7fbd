import re
from pathlib import Path

import pytest

from tools.lock import LOCKS, OWN, REPOSITORY, TORCH, Lock, constraining, split_lock

FILES = [file for lock in LOCKS for file in lock.files]
#: How the packages of one lock look in the file.
LOCKED = re.compile(r"[a-z0-9][a-z0-9._-]*==[^\s\\]+ \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+(?:    #.*\n)*")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_every_package_is_pinned_and_hashed(file: Path) -> None:
    _, packages = split_lock(file.read_text())
    assert packages
    assert [package for package in packages if not LOCKED.fullmatch(package)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_a_lock_names_no_index_and_no_folder_of_ours(file: Path) -> None:
    assert not re.search(r"index-url|find-links|https?://| /", file.read_text())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.file)
def test_a_lock_has_all_that_its_intent_names(lock: Lock) -> None:
    locked = {name for file in lock.files for name in re.findall(r"(?m)^([a-z0-9-]+)==", file.read_text())}
    assert intended(REPOSITORY / lock.intent) <= locked


def intended(file: Path) -> set[str]:
    """The packages that a requirements.in names, those of the files it includes among them."""
    names: set[str] = set()
    for line in file.read_text().splitlines():
        if line.startswith("-r "):
            names |= intended(file.parent / line.split()[1])
        elif found := re.match(r"[A-Za-z0-9-]+", line):
            names.add(found[0].lower())
    return names


def test_a_lock_is_split_into_its_packages() -> None:
    header, packages = split_lock("# by uv\n#    make lock\na==1 \\\n    --hash=sha256:0\n    # via b\nb==2\n")
    assert header == "# by uv\n#    make lock\n"
    assert packages == ["a==1 \\\n    --hash=sha256:0\n    # via b\n", "b==2\n"]


def test_a_lock_follows_another_in_all_but_what_each_has_for_itself() -> None:
    (own,) = OWN
    text = f"# by uv\na==1 \\\n    --hash=sha256:0\n{own}==2 \\\n    --hash=sha256:1\n    # via b\n"
    assert constraining(text) == f"a==1 \\\n    --hash=sha256:0\n{own}>=0\n"


def test_torch_is_told_from_packages_that_begin_alike() -> None:
    assert TORCH.match("torch==2.13.0")
    assert TORCH.match("nvidia-cublas==13.1")
    assert not TORCH.match("torch-c-dlpack-ext==0.1")
