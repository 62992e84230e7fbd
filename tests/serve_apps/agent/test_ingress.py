import itertools
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from serve_apps.common.protocol import DEGRADED_HEADER, INTERNAL_HEADER, TENANT_HEADER
from tests.serve_apps.agent.conftest import LOOPBACK, AgentServer
from tests.serve_apps.agent.fake_models import Calls, FakeModels, Refuses, Says
from tests.serve_apps.agent.tasks import TOOLS
from tests.serve_apps.agent.tool_server import ToolServer
from tests.serve_apps.gateway.servers import PATIENCE_S

Start = Callable[..., AgentServer]
CALCULATOR: dict[str, Any] = {"calculate": {"calculator": {}}}
ANSWER = Says({"tool": "answer"})


def calculates(expression: str) -> Says:
    return Says({"tool": "calculate", "arguments": {"expression": expression}})


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    content: str = response.json()["choices"][0]["message"]["content"]
    return content


def test_a_model_that_babbles_what_the_schema_allows_still_comes_to_an_answer(agent: Start, models: FakeModels) -> None:
    words = itertools.cycle(["2 + 2", "7 *", "", "1 " * 99])

    def babble(request: dict[str, Any]) -> Says:
        held = request.get("response_format")
        if held is None:
            return Says("I think so.")
        choice = held["json_schema"]["schema"]["anyOf"][len(models.turns) % 2]["properties"]
        argument = {"calculate": "expression", "docs": "question"}[choice["tool"]["const"]]
        return Says({"tool": choice["tool"]["const"], "arguments": {argument: next(words) or "?"}})

    models.improvise = babble
    answer = agent(tools=TOOLS, limits={"toolCalls": 5, "sameCall": 10}).chat("Well?", include_steps=True).json()
    assert answer["choices"][0]["message"]["content"] == "I think so."
    assert (answer["end_reason"], len(answer["steps"])) == ("tool_calls", 5)
    sums = [step["result"] for step in answer["steps"] if step["tool"] == "calculate"]
    assert sums == ["Error: not an arithmetic expression"] * 2


def test_the_models_own_calls_are_done_together_and_told_one_by_one(agent: Start, models: FakeModels) -> None:
    both = Calls((("calculate", {"expression": "1 + 1"}), ("calculate", {"expression": "2 * 8"})))
    models.script = [both, Says("Two and sixteen.")]
    answer = agent(tools=CALCULATOR, toolCalling="native").chat("Well?", include_steps=True).json()
    assert answer["choices"][0]["message"]["content"] == "Two and sixteen."
    assert [step["result"] for step in answer["steps"]] == ["2", "16"]
    told = [message for message in models.turns[1]["messages"] if message["role"] == "tool"]
    assert [message["content"] for message in told] == ["2", "16"]
    assert models.turns[0]["tools"][0]["function"]["name"] == "calculate"


def test_arguments_that_are_no_json_are_an_error_the_model_can_mend(agent: Start, models: FakeModels) -> None:
    models.script = [
        Calls((("calculate", '{"expression": '),)),
        Calls((("calculate", {"expression": "2 * 3"}),)),
        Says("6"),
    ]
    answer = agent(tools=CALCULATOR, toolCalling="native").chat("2 * 3?", include_steps=True).json()
    assert [(step["result"], step["failed"]) for step in answer["steps"]] == [
        ("Error: the arguments are not a JSON object", True),
        ("6", False),
    ]


def test_what_is_said_before_a_call_belongs_to_the_answer(agent: Start, models: FakeModels) -> None:
    models.script = [Calls((("calculate", {"expression": "1 + 1"}),), before="Let me see."), Says("It is 2.")]
    server = agent(tools=CALCULATOR, toolCalling="native")
    payloads = server.stream("1 + 1?")
    streamed = "".join(c["delta"].get("content", "") for each in payloads[:-1] for c in each["choices"])
    models.script = [Calls((("calculate", {"expression": "1 + 1"}),), before="Let me see."), Says("It is 2.")]
    assert streamed == text_of(server.chat("1 + 1?")) == "Let me see.\n\nIt is 2."


def test_usage_is_that_of_all_models_together(agent: Start, models: FakeModels) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    models.pipelines["docs"] = {"answer": "32", "citations": [], "usage": usage}
    models.script = [Says({"tool": "docs", "arguments": {"question": "How large?"}}), ANSWER, Says("32")]
    answer = agent(tools=TOOLS).chat("How large?").json()
    assert answer["usage"] == {"prompt_tokens": 121, "completion_tokens": 29, "total_tokens": 150}


def test_a_cost_limit_ends_the_work_and_counts_the_pipelines_too(agent: Start, models: FakeModels) -> None:
    models.pipelines["docs"] = {"answer": "32", "citations": [], "usage": {"prompt_tokens": 100}}
    # A turn costs 7 x 1 + 3 x 2 = 13 millionths, the pipeline's answer 100.
    settings: dict[str, Any] = {
        "tools": TOOLS,
        "prices": {"chat": {"prompt": 1, "completion": 2}, "docs": {"prompt": 1}},
    }
    looks_up = Says({"tool": "docs", "arguments": {"question": "How large?"}})
    models.script = [looks_up]
    answer = agent(**settings, limits={"cost": 113e-6}).chat("How large?").json()
    assert (answer["end_reason"], answer["choices"][0]["finish_reason"]) == ("cost", "length")
    assert "limit of 0.000113 in cost was reached" in answer["choices"][0]["message"]["content"]
    models.script = [looks_up, ANSWER, Says("32")]
    assert agent(**settings, limits={"cost": 131e-6}).chat("How large?").json()["end_reason"] == "answered"
    assert models.turns[-1]["max_tokens"] == 2  # what is left for it


def test_a_stream_has_the_steps_on_request_and_ends_with_reason_and_usage(agent: Start, models: FakeModels) -> None:
    models.script = [calculates("6 * 7"), ANSWER, Says("It is 42.")]
    *chunks, done = agent(tools=CALCULATOR).stream("6 * 7?", include_steps=True, stream_options={"include_usage": True})
    assert done == "[DONE]"
    (step,) = [each["step"] for each in chunks if "step" in each]
    assert (step["tool"], step["arguments"], step["result"]) == ("calculate", {"expression": "6 * 7"}, "42")
    deltas = [choice["delta"] for each in chunks for choice in each["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:-1]] == ["It ", "is ", "42."]
    *_, finished, usage = chunks
    assert (finished["choices"][0]["finish_reason"], finished["end_reason"]) == ("stop", "answered")
    assert usage["usage"]["total_tokens"] == 30
    assert {each["model"] for each in chunks} == {"helper"}
    assert len({each["id"] for each in chunks}) == 1


def test_a_stream_without_the_request_shows_no_steps(agent: Start, models: FakeModels) -> None:
    models.script = [calculates("6 * 7"), ANSWER, Says("It is 42.")]
    chunks = agent(tools=CALCULATOR).stream("6 * 7?")
    assert not any("step" in each for each in chunks[:-1])


def test_an_agent_without_tools_just_answers(agent: Start, models: FakeModels) -> None:
    models.script = [Says("Hello.")]
    assert text_of(agent(systemPrompt="Be kind.").chat("Hi")) == "Hello."
    assert models.turns[0]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]


def test_the_last_step_is_an_answer(agent: Start, models: FakeModels) -> None:
    models.script = [calculates("1 + 1"), calculates("2 + 2"), Says("Some number.")]
    answer = agent(tools=CALCULATOR, limits={"steps": 3}).chat("Well?").json()
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "Some number."},
        "finish_reason": "length",
    }
    assert answer["end_reason"] == "steps"


@pytest.mark.parametrize("calling", ["json", "native"])
def test_the_same_call_again_and_again_ends_in_an_answer(agent: Start, models: FakeModels, calling: str) -> None:
    again = calculates("1 + 1") if calling == "json" else Calls((("calculate", {"expression": "1 + 1"}),))
    models.script = [again, again, again, Says("2")]
    answer = agent(tools=CALCULATOR, toolCalling=calling).chat("Well?", include_steps=True).json()
    assert (answer["end_reason"], len(answer["steps"])) == ("same_call", 2)
    assert answer["choices"][0]["message"]["content"] == "2"


def test_tokens_that_are_used_up_end_the_work_with_a_reason(agent: Start, models: FakeModels) -> None:
    models.script = [calculates("1 + 1"), calculates("2 + 2")]
    answer = agent(tools=CALCULATOR, limits={"tokens": 20}).chat("Well?").json()
    assert (answer["end_reason"], answer["choices"][0]["finish_reason"]) == ("tokens", "length")
    assert answer["choices"][0]["message"]["content"] == (
        "Stopped without an answer: the agent's limit of 20 tokens was reached."
    )
    assert [turn["max_tokens"] for turn in models.turns] == [20, 10]


def test_time_that_is_up_ends_a_turn_and_keeps_what_was_said(agent: Start, models: FakeModels) -> None:
    models.script = [Says("Once upon a time ", endless=True)]
    server = agent(limits={"wallTimeS": 2})
    answer = server.chat("A story?").json()
    assert (answer["end_reason"], answer["choices"][0]["finish_reason"]) == ("wall_time", "length")
    assert answer["choices"][0]["message"]["content"].startswith("Once upon a time on on")
    assert models.aborted.wait(PATIENCE_S)
    assert server.observed.endings == [("helper", "wall_time")]


def test_a_callers_bound_is_the_answers_and_no_calls(agent: Start, models: FakeModels) -> None:
    models.script = [calculates("6 * 7"), ANSWER, Says("It is", "length")]
    answer = agent(tools=CALCULATOR, maxCallTokens=99).chat("6 * 7?", max_tokens=2).json()
    assert [turn["max_tokens"] for turn in models.turns] == [99, 99, 2]
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_callers_bound_holds_for_a_turn_that_may_be_the_answer(agent: Start, models: FakeModels) -> None:
    models.script = [Says("It is", "length")]
    agent(tools=CALCULATOR, toolCalling="native", maxCallTokens=99).chat("6 * 7?", max_tokens=2).raise_for_status()
    assert [turn["max_tokens"] for turn in models.turns] == [2]


def test_an_answer_cut_by_max_tokens_says_so(agent: Start, models: FakeModels) -> None:
    models.script = [Says("It is", finish_reason="length")]
    answer = agent().chat("Well?", max_tokens=2).json()
    assert (answer["choices"][0]["finish_reason"], answer["end_reason"]) == ("length", "answered")
    assert models.turns[0]["max_tokens"] == 2


def test_a_call_cut_short_is_asked_for_again(agent: Start, models: FakeModels) -> None:
    models.script = [Says('{"tool": "calc', finish_reason="length"), calculates("1 + 1"), ANSWER, Says("2")]
    assert text_of(agent(tools=CALCULATOR).chat("1 + 1?")) == "2"
    assert models.turns[1]["messages"][-1]["content"].startswith("That was no call.")


def test_a_model_that_refuses_keeps_its_status(agent: Start, models: FakeModels) -> None:
    models.script = [Refuses(429, "slow down")]
    response = agent(tools=CALCULATOR).chat("Well?", stream=True)
    assert (response.status_code, response.json()["error"]["message"]) == (429, "slow down")


def test_a_model_that_breaks_off_ends_a_stream_with_an_error(agent: Start, models: FakeModels) -> None:
    models.script = [Says("It is", breaks_off=True)]
    *_, last = agent().stream("Well?")
    assert last["error"]["message"] == "The answer broke off: the model's stream ended early."


def test_a_client_that_goes_away_ends_the_models_turn(agent: Start, models: FakeModels) -> None:
    models.script = [Says("On ", endless=True)]
    server = agent()
    body = {"model": "helper", "messages": [{"role": "user", "content": "?"}], "stream": True}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_bytes())
        assert models.began.wait(PATIENCE_S)
    assert models.aborted.wait(PATIENCE_S)


def test_a_server_that_cannot_be_reached_is_flagged_and_done_without(agent: Start, models: FakeModels) -> None:
    models.script = [Says({"tool": "answer"}), Says("No idea.")]
    tools = {**CALCULATOR, "files": {"mcp": {"url": "http://127.0.0.1:1/mcp", **LOOPBACK}}}
    response = agent(tools=tools).chat("Well?")
    assert text_of(response) == "No idea."
    assert (response.json()["degraded"], response.headers[DEGRADED_HEADER]) == (["files"], "files")


def test_the_callers_credential_goes_to_models_only(
    agent: Start, models: FakeModels, tool_url: str, tool_server: ToolServer
) -> None:
    operation = {"path": "/cities/{city}", "description": "A city.", "parameters": CITY}
    http = {"url": tool_url, "operations": {"city": operation}, "credential": "weather", **LOOPBACK}
    models.script = [Says({"tool": "weather_city", "arguments": {"city": "Bonn"}}), ANSWER, Says("Fine.")]
    server = agent(tools={"weather": {"http": http}})
    server.client.headers["authorization"] = "Bearer sk-acme-secret"
    assert text_of(server.chat("Bonn?")) == "Fine."
    (seen,) = tool_server.asked
    assert seen["headers"]["authorization"] == "Bearer weather-key"
    assert not {INTERNAL_HEADER, TENANT_HEADER} & seen["headers"].keys()
    assert "sk-acme-secret" not in json.dumps([each.headers for each in models.asked])
    assert {each.headers[TENANT_HEADER] for each in models.asked} == {"acme"}
    assert server.observed.calls == [("helper", "weather", False)]


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tools": [{}]}, "tools: an agent's tools are those of its values; leave it out"),
        ({"n": 2}, "n: an agent gives one answer, got 2; leave it out"),
        ({"include_steps": "yes"}, "include_steps: must be true or false, got 'yes'"),
        ({"model": None}, "model: required, the agent's name"),
    ],
)
def test_a_request_an_agent_cannot_do_is_refused(agent: Start, more: dict[str, Any], message: str) -> None:
    response = agent().chat("Well?", **more)
    assert (response.status_code, response.json()["error"]["message"]) == (400, message)


def test_an_unknown_agent_is_named(agent: Start) -> None:
    response = agent().chat("Well?", model="helpr")
    assert (response.status_code, response.json()["error"]["message"]) == (
        404,
        "no such agent 'helpr'; there are helper",
    )


def test_without_the_internal_credential_nobody_gets_in(agent: Start) -> None:
    server = agent()
    server.client.headers[INTERNAL_HEADER] = "guess"
    assert server.chat("Well?").status_code == 401


def test_without_redis_there_are_no_runs(agent: Start) -> None:
    response = agent().client.post("/v1/agents/helper/runs", json={"messages": [{"role": "user", "content": "Well?"}]})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "no_runs")
