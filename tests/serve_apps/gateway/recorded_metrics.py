"""Stands in for ``ray.serve.metrics`` where no Ray runs: the same three classes, which remember what they are told."""

import time
from types import ModuleType
from typing import Any

from serve_apps.gateway.telemetry import Telemetry
from tests.serve_apps.gateway.servers import PATIENCE_S


class RecordedMetrics:
    """Everything that was counted, in order; metrics that ``refused`` names raise, as Ray's may."""

    def __init__(self, *refused: str) -> None:
        self._refused = refused
        self._calls: list[tuple[str, float, dict[str, str]]] = []

    def telemetry(self) -> Telemetry:
        """A Telemetry that counts here."""
        return Telemetry(self.module())

    def module(self) -> ModuleType:
        """What takes the place of ``ray.serve.metrics``."""
        calls, refused = self._calls, self._refused

        class Recorder:
            def __init__(self, name: str, **_: Any) -> None:
                self._name = name

            def inc(self, value: float = 1, tags: dict[str, str] | None = None) -> None:
                if self._name in refused:
                    raise ValueError("refused")
                calls.append((self._name, value, tags or {}))

            observe = set = inc

        module = ModuleType("recorded_metrics")
        for kind in ("Counter", "Gauge", "Histogram"):
            setattr(module, kind, Recorder)
        return module

    def tags(self, name: str) -> list[dict[str, str]]:
        """The labels each time ``name`` was counted."""
        return [tags for called, _, tags in self._calls if called == name]

    def next_tags(self, name: str) -> dict[str, str]:
        """The labels of the first time ``name`` was counted, once it was: a server counts after it has answered."""
        deadline = time.monotonic() + PATIENCE_S
        while not (tags := self.tags(name)):
            assert time.monotonic() < deadline, f"{name} was not counted"
            time.sleep(0.01)
        return tags[0]

    def values(self, name: str) -> list[float]:
        """The values ``name`` was given."""
        return [value for called, value, _ in self._calls if called == name]
