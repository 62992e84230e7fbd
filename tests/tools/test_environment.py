import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools import environment
from tools.environment import CannotBuild, check_disk, check_python, digest, link, locked_version, make_once, run_pip


def test_another_python_is_refused_with_the_one_to_install() -> None:
    with pytest.raises(CannotBuild, match=r"^this is Python 3\.12; install Python 3\.11, or name it"):
        check_python((3, 12))


def test_python_3_11_is_accepted() -> None:
    check_python((3, 11))


def test_a_python_without_ensurepip_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotBuild, match=r"python3\.11-venv$"):
        check_python((3, 11))


def test_a_full_disk_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CannotBuild, match=r"^3 GB are free at .*, 12 GB are needed; .*LLM_SERVING_CACHE"):
        check_disk(tmp_path, int(3e9))


def test_enough_disk_is_accepted(tmp_path: Path) -> None:
    check_disk(tmp_path, int(13e9))


@pytest.mark.parametrize(
    ("named", "taken"),
    [
        ([], "/usr/bin/python3.11" if Path("/usr/lib/python3.11/ensurepip").exists() else "python3.11"),
        (["PYTHON=/opt/python"], "/opt/python"),
    ],
)
def test_make_takes_debians_python_unless_another_is_named(named: list[str], taken: str) -> None:
    alone = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKEOVERRIDES")}
    command = ["make", "--dry-run", "--no-print-directory", "environment", *named]
    told = subprocess.run(command, cwd=environment.REPOSITORY, env=alone, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == f'"{taken}" -m tools.environment'


def test_an_environment_is_made_once(tmp_path: Path) -> None:
    make_once(tmp_path / "venv", Path.mkdir)
    make_once(tmp_path / "venv", must_not_run)


def must_not_run(folder: Path) -> None:
    raise AssertionError(f"{folder} was made twice")


def test_one_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "venv"

    def cut_short(target: Path) -> None:
        target.mkdir()
        (target / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(folder, cut_short)
    make_once(folder, Path.mkdir)
    assert [path.name for path in folder.iterdir()] == [environment.MARKER]


def test_runs_side_by_side_make_one(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(target: Path) -> None:
        target.mkdir()
        made.append(target)

    with ThreadPoolExecutor(4) as runs:
        list(runs.map(lambda _: make_once(tmp_path / "venv", make), range(4)))
    assert made == [tmp_path / "venv"]


def test_another_lock_makes_another_name(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("a==1\n")
    before = digest((lock,))
    assert digest((lock,)) == before
    lock.write_text("a==2\n")
    assert digest((lock,)) != before


def test_a_link_is_replaced(tmp_path: Path) -> None:
    name = tmp_path / ".venv"
    link(name, tmp_path / "old")
    link(name, tmp_path / "new")
    assert name.readlink() == tmp_path / "new"
    assert [path.name for path in tmp_path.iterdir()] == [".venv"]


def test_a_folder_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    with pytest.raises(CannotBuild, match=r"\.venv is not a link that make has set; remove it$"):
        link(tmp_path / ".venv", tmp_path / "new")


def test_pips_last_words_are_shown(tmp_path: Path) -> None:
    program = "import sys; print('Collecting a'); print('ERROR: no such package'); sys.exit(1)"
    with pytest.raises(CannotBuild, match=r"^pip failed; its last lines:\nCollecting a\nERROR: no such package$"):
        run_pip([sys.executable, "-c", program], 1)


def test_progress_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    run_pip([sys.executable, "-c", "for _ in range(25): print('Collecting a')"], 25)
    assert [line.split(" (")[0] for line in capfd.readouterr().err.splitlines()] == [
        "  fetching package 20 of 25",
        "  fetching package 25 of 25",
    ]


def test_torch_has_a_lock_of_its_own() -> None:
    assert locked_version("torch", environment.TORCH)
    with pytest.raises(LookupError, match="does not pin torch"):
        locked_version("torch", environment.PACKAGES)
