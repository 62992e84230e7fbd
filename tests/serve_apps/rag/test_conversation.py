from typing import Any

import pytest

from serve_apps.common.errors import InvalidRequest
from serve_apps.rag import conversation
from serve_apps.rag.config import Pipeline


def said(*messages: tuple[str, Any]) -> conversation.Conversation:
    return conversation.read({"messages": [{"role": role, "content": content} for role, content in messages]})


def test_the_last_message_is_the_question_and_the_rest_is_history() -> None:
    read = said(("system", "Be brief."), ("user", "Hi"), ("assistant", None), ("user", " What? "))
    assert read.question == "What?"
    assert read.history == ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""})
    assert read.instruction == "Be brief."


def test_text_parts_are_joined() -> None:
    assert said(("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])).question == "a\nb"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "messages: required, a list that ends with a user's message"),
        ({"messages": []}, "messages: required, a list that ends with a user's message"),
        ({"messages": ["hi"]}, "messages[0]: must be an object with role and content"),
        (
            {"messages": [{"role": "assistant", "content": "hi"}]},
            "messages: the last must be a user's, and hold the question",
        ),
        (
            {"messages": [{"role": "user", "content": " "}]},
            "messages: the last must be a user's, and hold the question",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content: a pipeline takes text and images only, got 'input_audio'",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content: a pipeline takes text and images only, got 'int'",
        ),
    ],
)
def test_what_is_no_conversation_says_why(body: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        conversation.read(body)
    assert raised.value.message == message


PNG = "data:image/png;base64,iVBORw0KGgo="


def asking(*urls: Any) -> list[dict[str, Any]]:
    """A question with images."""
    return [
        {"type": "text", "text": "What is it?"},
        *({"type": "image_url", "image_url": {"url": url}} for url in urls),
    ]


def test_the_images_of_the_question_are_kept_and_those_before_it_left_out() -> None:
    read = said(("user", asking(PNG)), ("assistant", "A cat."), ("user", asking(PNG, PNG)))
    assert (read.question, read.images) == ("What is it?", (PNG, PNG))
    assert read.history[0] == {"role": "user", "content": "What is it?"}


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "data:text/html;base64,aGk=",
        "data:image/png;base64,",
        "data:image/png;base64,not base64",
        None,
    ],
)
def test_an_image_that_is_not_inside_the_request_is_refused(url: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=r"messages\[0\]\.content: image_url\.url must be data:.*nothing is fetched"
    ):
        said(("user", asking(url)))


def test_a_question_has_few_images() -> None:
    assert len(said(("user", asking(*[PNG] * 8))).images) == 8
    with pytest.raises(InvalidRequest, match="9 images; send 8 or fewer"):
        said(("user", asking(*[PNG] * 9)))


def test_images_go_to_the_model_that_sees() -> None:
    seeing = PIPELINE.model_copy(update={"vision": "eyes"})
    assert conversation.model_for(seeing, said(("user", asking(PNG)))) == "eyes"
    assert conversation.model_for(seeing, said(("user", "What is it?"))) == "chat"


def test_without_one_they_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="this pipeline has no model that sees them") as raised:
        conversation.model_for(PIPELINE, said(("user", asking(PNG))))
    assert raised.value.code == "images_not_supported"


PIPELINE = Pipeline.model_validate(
    {"llm": "chat", "embedder": "e", "vectorStore": {"uri": "a.db"}, "maxTokens": 100, "temperature": 0.3}
)


def request_for(body: dict[str, Any]) -> dict[str, Any]:
    return conversation.request_for(PIPELINE, "chat", body, [{"role": "user", "content": "prompt"}])


def test_the_request_to_the_model_has_the_pipelines_model_prompt_and_defaults() -> None:
    assert request_for({"model": "docs", "messages": [], "seed": 1}) == {
        "model": "chat",
        "messages": [{"role": "user", "content": "prompt"}],
        "temperature": 0.3,
        "max_tokens": 100,
        "seed": 1,
    }


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("asked", "granted"), [(7, 7), (1000, 100)])
def test_a_request_may_ask_for_fewer_tokens_but_not_for_more(name: str, asked: int, granted: int) -> None:
    request = request_for({name: asked, "temperature": 1})
    assert request[name] == granted
    assert request["temperature"] == 1
    assert len({"max_tokens", "max_completion_tokens"} & request.keys()) == 1


@pytest.mark.parametrize("length", [0, "7", 1.5])
def test_a_length_that_is_no_whole_number_is_refused(length: Any) -> None:
    with pytest.raises(InvalidRequest, match="max_tokens: must be a whole number from 1"):
        request_for({"max_tokens": length})
