from typing import Any

import pytest

from serve_apps.agent.config import Agent
from serve_apps.agent.conversation import read
from serve_apps.common.errors import InvalidRequest

AGENT = Agent(model="chat", max_tokens=100)
QUESTION = {"role": "user", "content": "Rain?"}


def body(*before: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "helper", "messages": [*before, QUESTION], **more}


def test_the_clients_instructions_are_told_apart_from_the_conversation() -> None:
    asked = read(
        body(
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": [{"type": "text", "text": "Hi"}], "tool_calls": []},
            {"role": "developer", "content": "Be brief."},
        ),
        AGENT,
    )
    assert asked.instruction == "Be kind.\n\nBe brief."
    assert [each["content"] for each in asked.messages] == ["Hello", "Hi", "Rain?"]


def test_an_image_is_the_models_business() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]
    assert read({"messages": [{"role": "user", "content": parts}]}, AGENT).messages == [
        {"role": "user", "content": parts}
    ]


def test_sampling_is_passed_on_and_length_bounded() -> None:
    asked = read(body(temperature=0.5, seed=1, max_tokens=500, max_completion_tokens=50, metadata={}), AGENT)
    assert asked.sampling == {"temperature": 0.5, "seed": 1, "max_tokens": 50}
    assert read(body(max_tokens=500), AGENT).sampling == {"max_tokens": 100}
    assert read(body(), AGENT).sampling == {}


def test_a_stream_and_its_options_are_read() -> None:
    asked = read(body(stream=True, include_steps=True, stream_options={"include_usage": True}), AGENT)
    assert (asked.stream, asked.include_steps, asked.include_usage) == (True, True, True)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": ["Rain?"]}, "messages[0]"),
        (body({"role": "tool", "content": "42", "tool_call_id": "1"}), "messages[0]"),
        (body({"role": "user", "content": 7}), "messages[0].content"),
        (body({"role": "assistant", "content": [{"type": "image_url"}]}), "messages[0].content"),
        (body(max_tokens=0), "max_tokens"),
        (body(max_tokens=True), "max_tokens"),
        (body(response_format={"type": "json_object"}), "response_format"),
        (body(tool_choice="auto"), "tool_choice"),
        (body(stream="yes"), "stream"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_where_it_does_not(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(given, AGENT)
    assert caught.value.param == param
