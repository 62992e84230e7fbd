"""Rounds: every system is measured once in each, in an order that turns, so that the machine's moods meet all alike."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.gateway.measures import Failed
from bench.gateway.systems import System

#: Figures of systems, round by round.
Figures = dict[str, dict[str, list[float]]]


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def order(count: int, number: int) -> list[int]:
    """Who comes when in a round: each round begins with another one."""
    return [(number + index) % count for index in range(count)]


@dataclass
class Rounds:
    """What was measured so far."""

    figures: Figures = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Systems that failed, and how; a system that fails once is left out, whole."""

    def prepare(self, systems: Sequence[System], warm_up: Callable[[System], None]) -> None:
        """Have every system do some work unmeasured."""
        for system in systems:
            try:
                warm_up(system)
            except Failed as error:
                self.leave_out(system.name, str(error))

    @property
    def complete(self) -> int:
        """How many rounds every system has."""
        return min((len(rounds) for measures in self.figures.values() for rounds in measures.values()), default=0)

    def run(self, systems: Sequence[System], rounds: int, measure: Callable[[System], dict[str, float]]) -> None:
        """Measure every system ``rounds`` times. Of a round that is interrupted nothing is kept."""
        for number in range(rounds):
            found: dict[str, dict[str, float]] = {}
            for index in order(len(systems), number):
                system = systems[index]
                if system.name in self.failures:
                    continue
                began = time.monotonic()
                try:
                    found[system.name] = measure(system)
                except Failed as error:
                    self.leave_out(system.name, str(error))
                    continue
                say(f"  round {number + 1} of {rounds}: {system.title} ({time.monotonic() - began:.0f} s)")
            for system_name, measures in found.items():
                for name, value in measures.items():
                    self.figures.setdefault(system_name, {}).setdefault(name, []).append(value)

    def leave_out(self, name: str, problem: str) -> None:
        """Drop a system that failed."""
        say(f"  left out: {problem}")
        self.failures[name] = problem
        self.figures.pop(name, None)
