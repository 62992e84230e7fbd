from typing import Any

import pytest
from pydantic import ValidationError

from serve_apps.agent.config import Agent
from serve_apps.agent.graph_config import When, filled

END: dict[str, Any] = {"say": "Done."}


def agent(start: str = "a", /, **steps: Any) -> dict[str, Any]:
    return {
        "model": "chat",
        "tools": {"docs": {"rag": {"pipeline": "docs"}}},
        "graph": {"start": start, "steps": steps},
    }


def to(*ways: str | dict[str, Any]) -> dict[str, Any]:
    """A step that asks, and goes on by these ways."""
    return {"ask": {}, "next": [{"to": way} if isinstance(way, str) else way for way in ways]}


@pytest.mark.parametrize(
    ("refused", "message", "accepted"),
    [
        (agent("b", a=END), "start: no such step 'b'; there are a", agent(a=END)),
        (agent(a=to("c"), b=END), "steps.a.next: no such step 'c'; there are a, b", agent(a=to("b"), b=END)),
        (
            agent(a=to("b"), b={"say": "{c}"}),
            "steps.b.say: no such step 'c'; there are a, b",
            agent(a=to("b"), b={"say": '{a} {question} {"json": 1}'}),
        ),
        (
            agent(a=to({"to": "b", "when": {"step": "c", "failed": True}}, "b"), b=END),
            "steps.a.next.when.step: no such step 'c'; there are a, b",
            agent(a=to({"to": "b", "when": {"step": "a", "failed": True}}, "b"), b=END),
        ),
        (
            agent(a=to("b"), b=END, c=END),
            "steps.c: no way leads to it from 'a'; lead there or take it out",
            agent(a=to({"to": "c", "atMost": 1}, "b"), b=END, c=END),
        ),
        (
            agent(a=to("b"), b=to("a")),
            "steps.a, b: lead in a circle without end; set atMost on a way back",
            agent(a=to("b"), b=to({"to": "a", "atMost": 2}, "c"), c=END),
        ),
        (
            agent(a=to({"to": "a", "when": {"equals": "again"}}, "b"), b=END),
            "steps.a: lead in a circle without end",
            agent(a=to({"to": "a", "when": {"equals": "again"}, "atMost": 3}, "b"), b=END),
        ),
        (
            agent(a=to({"to": "b", "when": {"equals": "yes"}}), b=END),
            "next: the last way on must have neither when nor atMost",
            agent(a=to({"to": "b", "when": {"equals": "yes"}}, "c"), b=END, c=END),
        ),
        (agent(a={**END, "ask": {}}), "one kind of ask, call, parallel, say; got ask, say", agent(a=END)),
        (
            agent(a={"parallel": ["b", "c"]}, b=END, c=END),
            "next: required after parallel",
            agent(a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b=END, c=END, d=END),
        ),
        (
            agent(a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b=to("d"), c=END, d=END),
            "steps.b: is done in parallel, so it must be a single step",
            agent(a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b={"ask": {}}, c=END, d=END),
        ),
        (
            agent(a={"parallel": ["b", "c"], "next": [{"to": "b"}]}, b=END, c=END),
            "steps.b: is done in parallel, so it must be a single step",
            agent(a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b=END, c=END, d={"say": "{b} {c}"}),
        ),
        (
            agent(a={"call": {"function": "wiki"}}),
            "graph.steps.a.call.function: no tool has 'wiki'; there are docs",
            agent(a={"call": {"function": "docs", "arguments": {"question": "{question}"}}}),
        ),
        (
            agent(a=to({"to": "b", "when": {}}, "b"), b=END),
            "nothing to hold; set one of equals, contains, above, below, failed",
            agent(a=to({"to": "b", "when": {"below": 0}}, "b"), b=END),
        ),
        (agent("question", question=END), "steps.question: the word for what the user asks", agent(a=END)),
    ],
)
def test_a_rule_refuses_what_breaks_it_and_nothing_near_it(
    refused: dict[str, Any], message: str, accepted: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError) as caught:
        Agent.model_validate(refused)
    assert message in str(caught.value)
    Agent.model_validate(accepted)


@pytest.mark.parametrize(
    ("when", "text", "failed", "holds"),
    [
        ({"equals": "yes"}, " yes\n", False, True),
        ({"equals": "yes"}, "Yes", False, False),
        ({"contains": "Refund"}, "A refund, please.", False, True),
        ({"above": 3}, "3.5", False, True),
        ({"above": 3}, "3", False, False),
        ({"above": 3}, "four", False, False),
        ({"above": 0, "below": 10}, "10", False, False),
        ({"failed": True}, "Error: gone", True, True),
        ({"failed": False, "contains": "a"}, "a", True, False),
    ],
)
def test_a_condition_holds_if_all_of_it_does(when: dict[str, Any], text: str, failed: bool, holds: bool) -> None:
    assert When.model_validate(when).holds(text, failed) is holds


def test_a_result_with_braces_is_not_read_again() -> None:
    assert filled("{a} {b} {c} {1}", {"a": "{b}", "b": "x"}) == "{b} x  {1}"
