from typing import Any

import pytest
from pydantic import ValidationError

from serve_apps.agent.config import Agents

HTTP: dict[str, Any] = {
    "url": "https://api.example.com",
    "operations": {"city": {"path": "/{city}", "description": "A city."}},
}


def agents(**tools: Any) -> dict[str, Any]:
    return {"agents": {"helper": {"model": "chat", "tools": tools}}}


@pytest.mark.parametrize(
    ("refused", "message", "accepted"),
    [
        (agents(it={}), "one kind of calculator, rag, http, mcp; got none", agents(it={"calculator": {}})),
        (
            agents(it={"calculator": {}, "rag": {"pipeline": "docs"}}),
            "one kind of calculator, rag, http, mcp; got calculator, rag",
            agents(it={"rag": {"pipeline": "docs"}}),
        ),
        (agents(**{"it.v1": {"calculator": {}}}), "String should match pattern", agents(it_v1={"calculator": {}})),
        (
            agents(answer={"calculator": {}}),
            "tools.answer: the word by which a model says that it answers",
            agents(answers={"calculator": {}}),
        ),
        (agents(it={"http": {**HTTP, "operations": {}}}), "operations: none", agents(it={"http": HTTP})),
        (
            agents(it={"http": {**HTTP, "methods": ["POST"]}}),
            "operations.city.method: GET is not allowed; add it to methods, which are POST",
            agents(it={"http": {**HTTP, "methods": ["POST", "GET"]}}),
        ),
        (
            agents(it={"http": {**HTTP, "url": "https://user:pass@api.example.com"}}),
            "String should match pattern",
            agents(it={"http": {**HTTP, "url": "https://api.example.com:8443/v2"}}),
        ),
        (
            agents(it={"http": {**HTTP, "allowedNetworks": ["10.0.0.1/8"]}}),
            "has host bits set",
            agents(it={"http": {**HTTP, "allowedNetworks": ["10.0.0.0/8", "fd00::/8"]}}),
        ),
        (
            agents(it={"mcp": {"url": "https://mcp.example.com/mcp", "credential": "../internal/token"}}),
            "String should match pattern",
            agents(it={"mcp": {"url": "https://mcp.example.com/mcp", "credential": "tickets"}}),
        ),
        (
            {"agents": {"helper": {"model": "chat", "limits": {"step": 3}}}},
            "Extra inputs are not permitted",
            {"agents": {"helper": {"model": "chat", "limits": {"steps": 3}}}},
        ),
    ],
)
def test_a_rule_refuses_what_breaks_it_and_nothing_near_it(
    refused: dict[str, Any], message: str, accepted: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match=message):
        Agents.model_validate(refused)
    Agents.model_validate(accepted)
