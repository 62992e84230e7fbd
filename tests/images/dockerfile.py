"""A Dockerfile as data: enough of the format for what the tests ask."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stage:
    """What follows one FROM."""

    base: str
    name: str | None
    #: (instruction, its text), continuation lines joined.
    instructions: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        """The texts of every ``instruction``, in order."""
        return [text for name, text in self.instructions if name == instruction]


@dataclass(frozen=True)
class Dockerfile:
    """A file of stages; ``head`` is what stands before the first."""

    head: Stage
    stages: list[Stage]

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def final(self) -> Stage:
        """What is shipped: the last stage, after the one that it begins with."""
        last = self.stages[-1]
        begin = self.stage(last.base)
        return Stage(begin.base, last.name, [*begin.instructions, *last.instructions])


def dockerfile(image: str) -> Dockerfile:
    """The Dockerfile of ``images/<image>``."""
    text = (REPOSITORY / "images" / image / "Dockerfile").read_text()
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    stages = [Stage("", None, [])]
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name or None, []))
        else:
            stages[-1].instructions.append((instruction, re.sub(r"\s+", " ", rest)))
    return Dockerfile(stages[0], stages[1:])
