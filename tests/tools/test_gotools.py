import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import gotools
from tools.gotools import Tool, ToolUnavailable

GREETER = """package main

import "fmt"

var version = "none"

func main() { fmt.Println("greeter", version) }
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pinned tools with one, greeter, whose source lies beside it; the cache is empty."""
    folder = tmp_path / "go" / "greeter"
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "go.mod").write_text("module example.test/greeter\n\ngo 1.24\n")
    (source / "main.go").write_text(GREETER)
    (folder / "go.mod").write_text(
        "module greeter-pin\n\ngo 1.24\n\n"
        "require example.test/greeter v1.2.3\n\nreplace example.test/greeter => ./source\n\ntool example.test/greeter\n"
    )
    (folder / "go.sum").touch()
    monkeypatch.setattr(gotools, "MODULES", folder.parent)
    greeter = Tool(
        "greeter", "example.test/greeter", "example.test/greeter", "no time", (("main.version", "{version}"),)
    )
    monkeypatch.setattr(gotools, "TOOLS", {"greeter": greeter, "helm": greeter})
    monkeypatch.setenv("LLM_SERVING_CACHE", str(tmp_path / "cache"))
    return folder.parent


@pytest.fixture
def no_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Go; the folder is all of its PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv("HELM", raising=False)
    return programs


def program(path: Path, prints: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("modules")
def test_a_tool_is_built_at_its_pinned_version() -> None:
    built = gotools.binary("greeter")
    assert subprocess.check_output([built], text=True) == "greeter v1.2.3\n"


def test_a_built_tool_is_used_again(modules: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = gotools.binary("greeter")
    (modules / "greeter" / "source" / "main.go").write_text("does not compile")
    assert gotools.binary("greeter") == first
    assert capfd.readouterr().err.count("building greeter v1.2.3 (about no time, once) …\n") == 1


def test_another_pinned_version_is_another_build(modules: Path) -> None:
    first = gotools.binary("greeter")
    pins = modules / "greeter" / "go.mod"
    pins.write_text(pins.read_text().replace("v1.2.3", "v1.2.4"))
    second = gotools.binary("greeter")
    assert first != second
    assert subprocess.check_output([second], text=True) == "greeter v1.2.4\n"


def test_another_source_of_our_own_is_another_build(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Tool("greeter", "example.test/greeter", "./ours", "no time")
    monkeypatch.setattr(gotools, "TOOLS", {"ours": ours})
    source = modules / "greeter" / "ours" / "main.go"
    source.parent.mkdir()
    source.write_text(GREETER)
    first = gotools.binary("ours")
    source.write_text(GREETER.replace("greeter", "welcome"))
    assert subprocess.check_output([gotools.binary("ours")], text=True) == "welcome none\n"
    assert subprocess.check_output([first], text=True) == "greeter none\n"


def test_a_failed_build_shows_the_compilers_words_and_leaves_nothing(modules: Path, tmp_path: Path) -> None:
    (modules / "greeter" / "source" / "main.go").write_text("package main\n\nfunc main() { undefinedName() }\n")
    with pytest.raises(ToolUnavailable, match="undefined: undefinedName"):
        gotools.binary("greeter")
    assert [path.name for path in (tmp_path / "cache" / "go-tools").iterdir() if path.is_dir()] == []


@pytest.mark.usefixtures("modules")
def test_parallel_runs_build_once(tmp_path: Path) -> None:
    # The children read the real table, so they are told of the greeter here.
    script = (
        "import pathlib, tools.gotools as g;"
        f"g.MODULES = pathlib.Path({str(tmp_path / 'go')!r});"
        "g.TOOLS = {'greeter': g.Tool('greeter', 'example.test/greeter', 'example.test/greeter', 'no time')};"
        "print(g.binary('greeter'))"
    )
    repository = Path(gotools.__file__).parents[1]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repository)},
        )
        for _ in range(2)
    ]
    printed = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert len({path for path, _ in printed}) == 1
    assert sorted(progress.count("building") for _, progress in printed) == [0, 1]


def test_an_unknown_tool_is_named_with_those_there_are() -> None:
    with pytest.raises(ToolUnavailable, match=r"^helmet: no such tool; there are .*helm, .*kubectl"):
        gotools.binary("helmet")


@pytest.mark.parametrize("name", sorted(gotools.TOOLS))
def test_every_tool_is_pinned(name: str) -> None:
    tool = gotools.TOOLS[name]
    assert tool.version.startswith("v")
    assert f"{tool.module} {tool.version} h1:" in (tool.folder / "go.sum").read_text()


def test_an_unpinned_module_is_an_error(modules: Path) -> None:
    with pytest.raises(LookupError, match=r"go\.mod does not require example\.test/other$"):
        gotools.pinned_version(modules / "greeter", "example.test/other")


@pytest.mark.usefixtures("modules")
def test_helm_of_the_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = program(tmp_path / "my-helm", "v3.16.0")
    monkeypatch.setenv("HELM", str(chosen))
    assert gotools.helm() == chosen


def test_a_wrong_helm_of_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM", "no-such-helm")
    with pytest.raises(ToolUnavailable, match=r"^helm: HELM=no-such-helm is not a program; set it"):
        gotools.helm()


@pytest.mark.usefixtures("modules")
def test_helm_is_built_even_if_there_is_one_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELM", raising=False)
    program(tmp_path / "helm", "v3.20.0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gotools.helm() == gotools.binary("helm")


@pytest.mark.usefixtures("modules")
def test_without_go_a_recent_helm_on_path_is_used(no_go: Path) -> None:
    installed = program(no_go / "helm", "v3.16.2")
    assert gotools.helm() == installed


@pytest.mark.usefixtures("modules")
def test_without_go_an_old_helm_on_path_is_refused(no_go: Path) -> None:
    installed = program(no_go / "helm", "v3.15.4")
    with pytest.raises(ToolUnavailable, match=rf"^helm: {installed} is older than 3\.16; install helm 3\.16\+ or Go"):
        gotools.helm()


@pytest.mark.usefixtures("modules", "no_go")
def test_without_helm_and_go_the_error_says_what_to_install() -> None:
    with pytest.raises(ToolUnavailable, match=r"^helm: not found; install helm 3\.16\+ or Go 1\.26\+[^\n]*$"):
        gotools.helm()


@pytest.mark.usefixtures("modules")
def test_without_go_a_cached_tool_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = gotools.binary("helm")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gotools.binary("helm") == built


@pytest.mark.usefixtures("modules")
def test_the_command_prints_paths(capsys: pytest.CaptureFixture[str]) -> None:
    assert gotools.main(["greeter"]) == 0
    assert capsys.readouterr().out == f"{gotools.binary('greeter')}\n"


def test_the_command_fails_in_one_line_for_an_unknown_tool(capsys: pytest.CaptureFixture[str]) -> None:
    assert gotools.main(["helmet"]) == 1
    assert capsys.readouterr().err.startswith("helmet: no such tool")
