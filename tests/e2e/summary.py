"""The table at the end: every step, how long it took, and what it proved."""

from collections.abc import Sequence
from dataclasses import dataclass

HEADINGS = ("", "seconds", "step", "proves")


@dataclass(frozen=True)
class Step:
    """One test that ran."""

    outcome: str
    """pytest's word: passed, failed or skipped."""
    seconds: float
    """Of its fixtures, too."""
    name: str
    """Module and test."""
    proves: str
    measured: Sequence[str] = ()
    """What it found out, or the reason why it was skipped."""


def table(steps: Sequence[Step]) -> list[str]:
    """The lines of the table, with the time in all."""
    rows = [(step.outcome, f"{step.seconds:.0f}", step.name, step.proves) for step in steps]
    widths = [max(len(row[column]) for row in [HEADINGS, *rows]) for column in range(3)]
    lines = [_line(HEADINGS, widths)]
    for row, step in zip(rows, steps, strict=True):
        lines.append(_line(row, widths))
        lines += [_line(("", "", "", f"  {measured}"), widths) for measured in step.measured]
    minutes, seconds = divmod(round(sum(step.seconds for step in steps)), 60)
    return [*lines, f"{len(steps)} steps in {minutes} min {seconds} s"]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    outcome, seconds, name, proves = row
    return f"{outcome:{widths[0]}}  {seconds:>{widths[1]}}  {name:{widths[2]}}  {proves}".rstrip()
