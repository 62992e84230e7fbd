"""Whether every panel and every alert has series, or says in needs.yaml what it needs for them."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.prometheus import expressions
from tools.prometheus.expressions import Expression, Selector
from tools.prometheus.server import Prometheus

NEEDS = Path(__file__).with_name("needs.yaml")


@dataclass(frozen=True)
class Need:
    """Something that not every release has."""

    exporter: str
    """Who exports the series, and when."""
    series: tuple[str, ...]
    """Names of metrics, as patterns, or whole selectors."""

    def has(self, selector: Selector) -> bool:
        """Whether a selector selects its series."""
        return any(selector.text == one or re.fullmatch(one, selector.name) for one in self.series)


def needs() -> dict[str, Need]:
    """All of needs.yaml."""
    return {
        name: Need(need["exporter"], tuple(need["series"])) for name, need in yaml.safe_load(NEEDS.read_text()).items()
    }


def without_data(server: Prometheus, objects: Iterable[dict[str, Any]], lacking: Collection[str]) -> list[str]:
    """Expressions of rendered ``objects`` that have no data, though nothing they need is ``lacking`` here; why.

    A panel's expression must return a number. An alert's returns nothing by design, so each of its selectors must
    select a series.
    """
    objects = [*objects]
    known = needs()
    excused = [known[name] for name in lacking]
    panels = [one for dashboard in expressions.dashboards(objects) for one in expressions.of_panels(dashboard)]
    alerts = [one for group in expressions.groups(objects) for one in expressions.of_rules(group)]
    found = [_of_panel(server, one, excused) for one in panels] + [_of_alert(server, one, excused) for one in alerts]
    return [one for one in found if one]


def _of_panel(server: Prometheus, expression: Expression, excused: list[Need]) -> str:
    if server.values(expression.promql):
        return ""
    empty = _empty(server, expression)
    # Series of what is lacking may be there from an earlier time, and stand still.
    suspects = empty or expressions.selectors(server.parsed(expression.promql))
    if suspects and all(_excused(one, excused) for one in suspects):
        return ""
    return _told(expression, empty) if empty else f"{expression.place}: its series give no number: {expression.promql}"


def _of_alert(server: Prometheus, expression: Expression, excused: list[Need]) -> str:
    empty = [one for one in _empty(server, expression) if not _excused(one, excused)]
    return _told(expression, empty) if empty else ""


def _empty(server: Prometheus, expression: Expression) -> list[Selector]:
    found = expressions.selectors(server.parsed(expression.promql))
    return [one for one in found if not server.has_series(one.text)]


def _excused(selector: Selector, excused: list[Need]) -> bool:
    return any(need.has(selector) for need in excused)


def _told(expression: Expression, empty: list[Selector]) -> str:
    return f"{expression.place}: no series of {', '.join(one.text for one in empty)}"
