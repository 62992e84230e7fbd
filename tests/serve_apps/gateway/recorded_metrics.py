"""Stands in for ``ray.serve.metrics`` where no Ray runs: the same three classes, which remember what they are told."""

from types import ModuleType
from typing import Any

from serve_apps.gateway.exchange import Telemetry


class RecordedMetrics:
    """Everything that was counted, in order."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, float, dict[str, str]]] = []

    def telemetry(self) -> Telemetry:
        """A Telemetry that counts here."""
        calls = self._calls

        class Recorder:
            def __init__(self, name: str, **_: Any) -> None:
                self._name = name

            def inc(self, value: float = 1, tags: dict[str, str] | None = None) -> None:
                calls.append((self._name, value, tags or {}))

            observe = set = inc

        module = ModuleType("recorded_metrics")
        for kind in ("Counter", "Gauge", "Histogram"):
            setattr(module, kind, Recorder)
        return Telemetry(module)

    def tags(self, name: str) -> list[dict[str, str]]:
        """The labels each time ``name`` was counted."""
        return [tags for called, _, tags in self._calls if called == name]

    def values(self, name: str) -> list[float]:
        """The values ``name`` was given."""
        return [value for called, value, _ in self._calls if called == name]
