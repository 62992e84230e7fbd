"""An ``Observer`` that remembers what it was told."""

from dataclasses import dataclass, field

from serve_apps.agent.progress import Ending


@dataclass
class Recorded:
    """Everything that was reported, in order."""

    turns: list[str] = field(default_factory=list)
    calls: list[tuple[str, str, bool]] = field(default_factory=list)
    endings: list[tuple[str, Ending]] = field(default_factory=list)

    def turned(self, agent: str, duration_s: float) -> None:
        """Remember a turn."""
        assert duration_s >= 0
        self.turns.append(agent)

    def called(self, agent: str, tool: str, *, failed: bool, duration_s: float) -> None:
        """Remember a call."""
        assert duration_s >= 0
        self.calls.append((agent, tool, failed))

    def ended(self, agent: str, ending: Ending, duration_s: float) -> None:
        """Remember an end."""
        assert duration_s >= 0
        self.endings.append((agent, ending))
