import asyncio
import json
import random
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from serve_apps.common.errors import InvalidRequest
from serve_apps.gateway.headers import RawHeaders
from serve_apps.gateway.request import Wish, is_multipart, read

JSON: RawHeaders = [(b"content-type", b"application/json")]
CHAT = "/v1/chat/completions"
GENERATING = [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"]


def wish(body: bytes | dict[str, Any], path: str = CHAT, headers: RawHeaders = JSON) -> Wish:
    return read(path, headers, body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(body: bytes | dict[str, Any], path: str = CHAT, headers: RawHeaders = JSON) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        wish(body, path, headers)
    return caught.value


# What is read


def test_model_and_stream_are_read() -> None:
    seen = wish(b'{"model": "chat", "stream": true, "messages": []}')
    assert (seen.model, seen.stream) == ("chat", True)


@pytest.mark.parametrize("body", [b"{}", b'{"stream": false}', b'{"stream": null}'])
def test_a_body_without_them_names_no_model_and_does_not_stream(body: bytes) -> None:
    seen = wish(body)
    assert (seen.model, seen.stream) == (None, False)


def test_of_two_models_the_upstreams_is_read() -> None:
    body = b'{"model": "a", "messages": [], "model": "b"}'

    async def upstreams() -> Any:
        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        return await Request({"type": "http", "method": "POST", "headers": JSON}, receive).json()

    assert wish(body).model == asyncio.run(upstreams())["model"] == "b"
    assert json.loads(wish(body).outbound(model="c"))["model"] == "c"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b'{"model": "chat"', b'{"model": "\xff"}', b'{"a": NaN}', b"[" * 10_000, b"\x1f\x8b\x08\x00"),
        *(
            b'{"a":' * 10_000,
            b'{"a": 1e400}',
            b'{"a": "\x00"}',
            b'{"a": "\\ud800"}',
            b"{} {}",
            b"\xef\xbb\xbf{}",
            b"{'a': 1}",
        ),
    ],
)
def test_a_body_that_is_not_json_in_utf8_is_refused(body: bytes) -> None:
    error = refused(body)
    assert error.message.startswith("The request body is not JSON in UTF-8: ")
    assert error.code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b'"chat"', b"null", b"1"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    assert refused(body).message == "The request body must be a JSON object."


@pytest.mark.parametrize("given", [b"application/json", b"Application/JSON; charset=utf-8"])
def test_json_is_taken_as_json(given: bytes) -> None:
    assert wish(b"{}", headers=[(b"content-type", given)]).document == {}


@pytest.mark.parametrize(
    "headers", [[], [(b"content-type", b"text/plain")], [(b"content-type", b"application/x-www-form-urlencoded")]]
)
def test_json_under_another_name_is_refused_as_vllm_does(headers: RawHeaders) -> None:
    error = refused(b"{}", headers=headers)
    given = headers[0][1].decode() if headers else "none"
    assert error.message == f"This path takes JSON: send the header content-type: application/json, not {given}."
    assert error.code == "unsupported_media_type"


@pytest.mark.parametrize(
    ("path", "fields", "length"),
    [
        (CHAT, {"max_completion_tokens": 5}, 5),
        (CHAT, {"max_tokens": 6}, 6),
        (CHAT, {"max_completion_tokens": 5, "max_tokens": 6}, 6),
        (CHAT, {"max_completion_tokens": None}, None),
        ("/v1/completions", {"max_tokens": 7}, 7),
        ("/v1/responses", {"max_output_tokens": 8, "max_tokens": 9}, 8),
        ("/v1/messages", {"max_tokens": 9}, 9),
        ("/v1/embeddings", {"max_tokens": "x"}, None),
    ],
)
def test_the_length_asked_for_is_read_from_the_paths_own_fields(
    path: str, fields: dict[str, Any], length: int | None
) -> None:
    assert wish(fields, path).max_tokens == length


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"stream": "true"}, "stream", "expected a boolean, got a string."),
        ({"stream": 1}, "stream", "expected a boolean, got an integer."),
        ({"max_tokens": "5"}, "max_tokens", "expected an integer, got a string."),
        ({"max_tokens": True}, "max_tokens", "expected an integer, got a boolean."),
        ({"max_completion_tokens": 5.0}, "max_completion_tokens", "expected an integer, got a number with a fraction"),
        ({"max_tokens": 10**30}, "max_tokens", "expected an integer, got a number with a fraction or beyond 64 bits."),
        ({"n": [1]}, "n", "expected an integer, got an array."),
        ({"stream_options": "x"}, "stream_options", "expected an object, got a string."),
        (
            {"stream_options": {"include_usage": "yes"}},
            "stream_options.include_usage",
            "expected a boolean, got a string.",
        ),
    ],
)
def test_what_we_hold_clients_to_is_refused_where_upstreams_would_guess(
    fields: dict[str, Any], param: str, message: str
) -> None:
    error = refused(fields)
    assert error.message.startswith(f"Invalid type for '{param}': {message}")
    assert (error.param, error.code) == (param, "invalid_type")


def test_fewer_tokens_than_none_cannot_be_asked_for() -> None:
    for fields in ({"max_tokens": -1}, {"max_tokens": -1, "max_completion_tokens": 5}):
        error = refused(fields)
        assert (error.param, error.code) == ("max_tokens", "integer_below_min_value")
    assert wish({"max_tokens": 0}).max_tokens == 0


def test_what_is_none_of_our_business_is_left_to_the_upstream() -> None:
    body = {"temperature": "warm", "messages": 7, "tools": {}, "priority": "x", "user": 3, "unknown": {"a": None}}
    assert wish(body).outbound() == json.dumps(body).encode()


@pytest.mark.parametrize(
    ("path", "fields", "choices"),
    [
        (CHAT, {}, 1),
        (CHAT, {"n": 3, "prompt": ["a", "b"]}, 6),
        (CHAT, {"n": 0}, 1),
        ("/v1/completions", {"prompt": ["a", "b"]}, 2),
        ("/v1/completions", {"prompt": [[1, 2], [3]], "n": 2}, 4),
        ("/v1/completions", {"prompt": [1, 2, 3], "best_of": 2, "n": 1}, 2),
        ("/v1/completions", {"prompt": []}, 1),
        ("/v1/messages", {"n": 3}, 1),
    ],
)
def test_the_answers_asked_for_are_counted(path: str, fields: dict[str, Any], choices: int) -> None:
    assert wish(fields, path).choices == choices


@pytest.mark.parametrize(
    ("path", "fields", "user"),
    [
        (CHAT, {"user": "u"}, "u"),
        (CHAT, {"user": "u", "safety_identifier": "s"}, "s"),
        (CHAT, {"user": {"id": 1}}, None),
        ("/v1/messages", {"metadata": {"user_id": "m"}}, "m"),
        ("/v1/messages", {"metadata": "m"}, None),
    ],
)
def test_the_end_user_is_read(path: str, fields: dict[str, Any], user: str | None) -> None:
    assert wish(fields, path).user == user


def test_a_session_is_the_headers_before_the_bodys() -> None:
    header = (b"x-session-id", b"h")
    assert wish({"prompt_cache_key": "k"}).session == "k"
    assert wish({"prompt_cache_key": "k"}, headers=[*JSON, header]).session == "h"
    assert wish({"prompt_cache_key": 5}).session is None


def test_a_version_is_pinned_by_header() -> None:
    assert wish({}, headers=[*JSON, (b"x-llm-version", b"chat-v2")]).pin == "chat-v2"
    assert wish({}).pin is None


@pytest.mark.parametrize(
    ("path", "fields", "asked"),
    [
        (CHAT, {}, False),
        (CHAT, {"stream_options": {}}, False),
        (CHAT, {"stream_options": {"include_usage": False}}, False),
        (CHAT, {"stream_options": {"include_usage": True}}, True),
        ("/v1/responses", {}, True),
        ("/v1/messages", {}, True),
    ],
)
def test_whether_the_client_gets_the_usage_is_known(path: str, fields: dict[str, Any], asked: bool) -> None:
    assert wish({"stream": True, **fields}, path).include_usage is asked


def test_only_paths_that_generate_do() -> None:
    assert [
        path for path in (*GENERATING, "/v1/embeddings", "/rerank", "/tokenize") if wish({}, path).generates
    ] == GENERATING


# The prompt


@pytest.mark.parametrize(
    ("path", "first", "longer"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "a"}]}, {"messages": [{"role": "user", "content": "a"}, {}]}),
        ("/v1/completions", {"prompt": "once"}, {"prompt": "once upon"}),
        ("/v1/completions", {"prompt": [1, 2]}, {"prompt": [1, 2, 3]}),
        ("/v1/responses", {"input": "a", "instructions": "be"}, {"instructions": "be", "input": "ab"}),
        ("/v1/messages", {"messages": [], "system": "be"}, {"system": "be", "messages": [{"role": "user"}]}),
    ],
)
def test_prompts_that_begin_alike_have_beginnings_alike(
    path: str, first: dict[str, Any], longer: dict[str, Any]
) -> None:
    begin = wish({"model": "a", "temperature": 1} | first, path).prefix()
    assert begin
    assert wish(longer | {"model": "b"}, path).prefix().startswith(begin.rstrip(b"]"))


def test_another_prompt_is_another() -> None:
    assert wish({"messages": ["a"]}).prefix() != wish({"messages": ["b"]}).prefix()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, b"{}"),
        ("/v1/embeddings", b'{"input": "a"}'),
        (CHAT, b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}"),  # orjson reads what it does not write
    ],
)
def test_a_prompt_may_have_no_beginning_to_go_by(path: str, body: bytes) -> None:
    assert wish(body, path).prefix() == b""


# What goes upstream

#: Requests as clients send them, which nobody may change.
UNCHANGED: list[dict[str, Any]] = [
    {"messages": [], "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
    {"messages": [], "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
    {"messages": [], "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
    {"messages": [], "structured_outputs": {"regex": "[a-z]+"}, "logprobs": True, "top_logprobs": 3, "n": 2},
    {"messages": [], "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:;base64,AA=="}}]}]},
    {"messages": [], "seed": 2**70, "logit_bias": {"5": -1e-9}, "chat_template_kwargs": {"x": None}, "é": "😀\u0000"},
]


@pytest.mark.parametrize("fields", UNCHANGED)
def test_a_body_goes_on_as_the_very_one_that_came(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "chat", **fields}).encode()
    assert wish(body).outbound(model="chat", include_usage=True) is body


@pytest.mark.parametrize("fields", UNCHANGED)
def test_a_body_that_must_change_changes_in_that_alone(fields: dict[str, Any]) -> None:
    body = json.dumps({"model": "chat", **fields}).encode()
    out = wish(body).outbound(model="org/other", priority=-3)
    assert out == body.replace(b'"model": "chat"', b'"model": "org/other"')[:-1] + b',"priority":-3}'


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2, 3], [[1], [2, 3]], "é"])
def test_prompts_of_every_kind_pass(prompt: Any) -> None:
    body = json.dumps({"model": "chat", "prompt": prompt, "n": 2}).encode()
    assert wish(body, "/v1/completions").outbound(model="chat", max_tokens=100) is body


@pytest.mark.parametrize(
    ("path", "field"),
    [(CHAT, "max_completion_tokens"), ("/v1/responses", "max_output_tokens"), ("/v1/messages", "max_tokens")],
)
def test_a_length_is_set_where_the_client_sets_none(path: str, field: str) -> None:
    assert json.loads(wish({"a": 1}, path).outbound(max_tokens=50)) == {"a": 1, field: 50}
    assert json.loads(wish({field: None}, path).outbound(max_tokens=50)) == {field: 50}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"max_tokens": 5}),
        (CHAT, {"max_completion_tokens": 70}),
        ("/v1/completions", {}),  # whose answers have 16 tokens unless more are asked for
        ("/v1/embeddings", {}),
        ("/tokenize", {}),
    ],
)
def test_a_length_is_left_where_the_client_or_the_path_has_one(path: str, fields: dict[str, Any]) -> None:
    seen = wish(fields, path)
    assert seen.outbound(max_tokens=50) is seen.body


def test_a_completion_is_kept_to_less_than_it_would_have() -> None:
    assert json.loads(wish({}, "/v1/completions").outbound(max_tokens=8)) == {"max_tokens": 8}


def test_a_priority_is_ours_whatever_the_client_says() -> None:
    assert json.loads(wish({"priority": -100, "a": 1}).outbound(priority=5)) == {"priority": 5, "a": 1}
    assert json.loads(wish({}, "/v1/embeddings").outbound(priority=5)) == {"priority": 5}


@pytest.mark.parametrize("path", ["/v1/messages", "/tokenize"])
def test_a_priority_is_not_set_where_vllm_knows_none(path: str) -> None:
    assert wish({}, path).outbound(priority=5) == b"{}"


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (b"{}", b"{}"),
        (b'{"stream":true}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (
            b'{"stream":true,"stream_options":{"include_usage":false,"x":1.0}}',
            b'{"stream":true,"stream_options":{"include_usage":true,"x":1.0}}',
        ),
        (
            b'{"stream":true,"stream_options":{"continuous_usage_stats":true}}',
            b'{"stream":true,"stream_options":{"continuous_usage_stats":false,"include_usage":true}}',
        ),
    ],
)
def test_a_streams_usage_is_asked_for_and_nothing_else(given: bytes, becomes: bytes) -> None:
    assert wish(given).outbound(include_usage=True) == becomes
    assert wish(given).outbound(include_usage=False) is given


def test_of_ten_thousand_damaged_bodies_each_is_refused_or_goes_on_as_json() -> None:
    chance = random.Random(29)
    seeds = [json.dumps({"model": "chat", "stream": True, **fields}).encode() for fields in UNCHANGED]
    pieces = [
        b'"model":',
        b'"model"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b'"',
        b"\\",
        b"\\u006d",
        b"1e9",
        b"-",
        b"null",
        b"\x00",
        b"\xff",
    ]
    taken = 0
    for _ in range(10_000):
        body = bytearray(chance.choice(seeds))
        for _ in range(chance.choice([1, 1, 2, 5])):
            at = chance.randrange(len(body))
            body[at : at + chance.choice([0, 0, 1, 9])] = chance.choice(pieces)
        path = chance.choice([*GENERATING, "/rerank"])
        try:
            seen = wish(bytes(body), path)
        except InvalidRequest:
            continue
        taken += 1
        seen.prefix()
        out = seen.outbound(model="other", max_tokens=5, priority=1, include_usage=True)
        assert json.loads(out)["model"] == "other", body
    assert taken > 1000


# Forms


def form(**fields: str) -> tuple[RawHeaders, bytes]:
    request = httpx.Request("POST", "http://host/", files={"file": ("a.wav", b"RIFF\xff")}, data=fields)
    return [(b"content-type", request.headers["content-type"].encode())], request.read()


AUDIO = "/v1/audio/transcriptions"


def test_a_forms_model_is_read_and_the_form_goes_on_as_it_came() -> None:
    headers, body = form(model="whisper", language="de")
    seen = wish(body, AUDIO, headers)
    assert (seen.model, seen.stream, seen.document, seen.prefix()) == ("whisper", False, None, b"")
    assert seen.outbound(model="whisper", max_tokens=5, priority=3, include_usage=True) is body


def test_a_forms_model_is_renamed_in_its_place() -> None:
    headers, body = form(model="whisper", language="whisper")
    out = wish(body, AUDIO, headers).outbound(model="openai/whisper-large-v3")
    assert out == body.replace(b'name="model"\r\n\r\nwhisper', b'name="model"\r\n\r\nopenai/whisper-large-v3')


def test_a_form_may_ask_for_a_stream() -> None:
    headers, body = form(model="whisper", stream="true")
    assert wish(body, AUDIO, headers).stream


def test_a_form_without_a_model_names_none() -> None:
    headers, body = form(language="de")
    assert wish(body, AUDIO, headers).model is None


def test_only_the_paths_for_audio_take_forms() -> None:
    assert is_multipart(AUDIO)
    assert not is_multipart(CHAT)
    assert refused(b"{}", AUDIO).code == "unsupported_media_type"
    headers, body = form(model="whisper")
    assert refused(body, CHAT, headers).code == "invalid_json"
