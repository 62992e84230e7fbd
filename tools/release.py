"""``make release VERSION=…``: the chart as it is published, and the text of its release.

What changed stands in CHANGELOG.md only; the chart's annotation for Artifact Hub is made of it here.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tools.gotools import ToolUnavailable, helm

REPOSITORY = Path(__file__).parents[1]
CHART = REPOSITORY / "charts" / "llm-serving"
#: Artifact Hub's kinds of changes, which are Keep a Changelog's headings.
KINDS = ("added", "changed", "deprecated", "removed", "fixed", "security")


class CannotRelease(Exception):
    """Something does not fit the version; the message says what."""


def section(changelog: str, version: str) -> str:
    """What a changelog says of a version.

    Raises:
        CannotRelease: it has no such heading.
    """
    found = re.search(rf"(?ms)^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", changelog)
    if not found:
        raise CannotRelease(f"CHANGELOG.md has no heading `## {version}`; rename `## Unreleased`")
    return found[1].strip()


def changes(section: str) -> list[dict[str, str]]:
    """The entries of a section, as Artifact Hub has them."""
    entries = []
    for heading, body in re.findall(r"(?ms)^### (\w+)\n(.*?)(?=^### |\Z)", section):
        if heading.lower() not in KINDS:
            raise CannotRelease(f"CHANGELOG.md: `### {heading}` is none of {', '.join(KINDS)}")
        entries += [
            {"kind": heading.lower(), "description": " ".join(entry.split())}
            for entry in re.findall(r"(?ms)^- (.*?)(?=^- |\Z)", body)
        ]
    return entries


def annotated(chart: str, section: str) -> str:
    """Chart.yaml with what changed. ``chart`` ends with its annotations, so that every comment in it stays."""
    text = yaml.safe_dump(changes(section), sort_keys=False, width=1_000_000, allow_unicode=True)
    return f"{chart.rstrip()}\n  artifacthub.io/changes: |\n" + "".join(f"    {line}\n" for line in text.splitlines())


def release(version: str, folder: Path, sign_key: str | None = None) -> list[Path]:
    """Write the packaged chart and ``notes.md`` into ``folder``.

    Raises:
        CannotRelease: the chart or the changelog is of another version, or Helm failed.
    """
    chart = (CHART / "Chart.yaml").read_text()
    stated = yaml.safe_load(chart)
    for key in ("version", "appVersion"):
        if stated[key] != version:
            raise CannotRelease(f"charts/llm-serving/Chart.yaml: {key} is {stated[key]}, not {version}; set it first")
    told = section((REPOSITORY / "CHANGELOG.md").read_text(), version)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / CHART.name
        shutil.copytree(CHART, copy)
        (copy / "Chart.yaml").write_text(annotated(chart, told))
        command = [str(helm()), "package", str(copy), "--destination", str(folder)]
        if sign_key:
            command += ["--sign", "--key", sign_key, "--keyring", str(Path.home() / ".gnupg" / "secring.gpg")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRelease(f"helm package: {done.stderr.strip()}")
    notes = folder / "notes.md"
    notes.write_text(f"{told}\n\nHow to verify what this release consists of: docs/releases.md.\n")
    return [folder / f"{CHART.name}-{version}.tgz", notes]


def main() -> int:
    """Make the files and name them; 1 if something does not fit."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", help="as in Chart.yaml; a tag's `v` before it is left out")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "dist")
    parser.add_argument("--sign-key", help="of your keyring: writes a provenance file beside the chart (SIGN_KEY=)")
    arguments = parser.parse_args()
    try:
        for path in release(arguments.version.removeprefix("v"), arguments.folder, arguments.sign_key):
            print(path)
    except (CannotRelease, ToolUnavailable) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
