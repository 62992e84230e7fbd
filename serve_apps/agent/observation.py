"""What the app reports about its work; ``app`` turns it into Ray's metrics."""

from typing import Protocol

from serve_apps.agent.progress import Ending


class Observer(Protocol):
    """Told what happens, by agent."""

    def turned(self, agent: str, duration_s: float) -> None:
        """The agent's model had a turn."""

    def called(self, agent: str, tool: str, *, failed: bool, duration_s: float) -> None:
        """A tool was called."""

    def ended(self, agent: str, ending: Ending, duration_s: float) -> None:
        """A request is answered; ``ending`` says why its work ended."""
