"""Routes as clients of a real gateway see them: versions, pins, fallbacks, shadows, canaries."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_apps.common.secrets import ApiKeys, InternalCredential
from serve_apps.gateway.auth import Authenticator
from serve_apps.gateway.config import GatewayArgs
from serve_apps.gateway.ingress import Ingress
from tests.serve_apps.gateway.redis import RedisServer
from tests.serve_apps.gateway.servers import PATIENCE_S, Answer, Behaviour, Upstream, serving, until
from tools.demo_canary import Gauges

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
OVERFLOW = {
    "message": "This model's maximum context length is 10 tokens. However, you requested 20 tokens in the messages.",
    "type": "BadRequestError",
    "param": "input_tokens",
    "code": 400,
}
WRONG = {"message": "temperature must be positive", "type": "BadRequestError", "param": "temperature", "code": 400}
FAILURE = {"message": "out of luck", "type": "InternalServerError", "param": None, "code": 500}

Starts = Callable[[Behaviour], tuple[Upstream, str]]


async def waits_for_release(answer: Answer) -> None:
    await answer.released()
    await answer.whole(500, b"{}", JSON)


@dataclass
class Gateway:
    """A gateway and a client."""

    ingress: Ingress
    client: httpx.Client
    gauges: Gauges

    def chat(self, model: str = "chat", pin: str | None = None, **body: Any) -> httpx.Response:
        headers = {} if pin is None else {"x-llm-version": pin}
        return self.client.post(CHAT, json={"model": model, "messages": [], **body}, headers=headers)

    def counted(self, name: str, **tags: str) -> bool:
        return any(
            metric == name and tags.items() <= dict(labels).items() and value
            for (metric, labels), value in [*self.gauges.values.items()]  # which the gateway's thread adds to
        )


Gateways = Callable[..., Gateway]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateways]:
    """Starts gateways that anybody may ask: ``gateway(table, **args)``."""
    (tmp_path / "token").write_text("internal-token")
    with ExitStack() as stack:

        def start(table: dict[str, Any], password_file: Path | None = None, **args: Any) -> Gateway:
            credential = InternalCredential(tmp_path / "token")
            gauges = Gauges()
            ingress = Ingress(
                GatewayArgs.model_validate({"auth": "none", **args}),
                authenticator=Authenticator("none", ApiKeys(tmp_path), credential),
                credential=credential,
                serve_metrics=gauges,
                redis_password=password_file,
            )
            ingress.route_by(table)
            url = stack.enter_context(serving(ingress, lifespan="on"))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False))
            return Gateway(ingress, client, gauges)

        yield start


def answering(status: int = 200, document: Any = None, **headers: str) -> Behaviour:
    """An upstream that says the same to everybody; errors as vLLM writes them."""
    body = {"id": "1"} if document is None else {"error": document}

    async def answer(answer: Answer) -> None:
        await answer.whole(status, json.dumps(body).encode(), JSON | headers)

    return answer


def table(urls: dict[str, str], weights: dict[str, float], **rules: Any) -> dict[str, Any]:
    versions = [{"model": name, "weight": weight} for name, weight in weights.items()]
    models = {name: {"url": url, "task": "generate", "runtime": "standalone"} for name, url in urls.items()}
    return {"models": models, "routes": {"chat": {"versions": versions, **rules}}}


# Versions and pins


def test_the_answer_says_which_version_gave_it_and_a_pin_decides(upstream: Starts, gateway: Gateways) -> None:
    urls = {name: upstream(answering())[1] for name in ("v1", "v2")}
    served = gateway(table(urls, {"v1": 100, "v2": 0}, aliases=["gpt-4o"]))
    assert {served.chat().headers["x-llm-version"] for _ in range(5)} == {"v1"}
    assert served.chat("gpt-4o").headers["x-llm-version"] == "v1"
    assert served.chat(pin="v2").headers["x-llm-version"] == "v2"
    refused = served.chat(pin="v3")
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == 'The model "chat" has no version "v3". Its versions: v1, v2.'


def test_the_version_is_asked_by_its_own_name(upstream: Starts, gateway: Gateways) -> None:
    server, url = upstream(answering())
    served = gateway(table({"v1": url}, {"v1": 100}))
    assert served.chat(temperature=0.5).status_code == 200
    assert json.loads(server.received[0].body) == {"model": "v1", "messages": [], "temperature": 0.5}


# Fallbacks


@pytest.mark.parametrize(
    "behaviour",
    [
        answering(429, FAILURE),
        answering(503, FAILURE, **{"retry-after": "5"}),
        answering(500, FAILURE),
        answering(502, FAILURE),
        answering(400, OVERFLOW),
        answering(403, FAILURE),
        answering(404, FAILURE),
    ],
    ids=["429", "503", "500", "502", "overflow", "locked out", "unknown there"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_where_the_version_refuses_or_fails_the_fallback_answers(
    upstream: Starts, gateway: Gateways, behaviour: Behaviour, stream: bool
) -> None:
    urls = {"v1": upstream(behaviour)[1], "spare": upstream(answering())[1]}
    served = gateway(table(urls, {"v1": 100}, fallback=["spare"]))
    response = served.chat(stream=stream)
    assert (response.status_code, response.headers["x-llm-version"]) == (200, "spare")
    until(lambda: served.counted("llm_gateway_fallbacks", model="chat", version="spare"))


def test_where_the_version_is_not_there_the_fallback_answers(upstream: Starts, gateway: Gateways) -> None:
    served = gateway(
        table({"v1": "http://127.0.0.1:9", "spare": upstream(answering())[1]}, {"v1": 1}, fallback=["spare"])
    )
    assert served.chat().headers["x-llm-version"] == "spare"


def test_where_the_version_does_not_begin_in_time_the_fallback_answers(upstream: Starts, gateway: Gateways) -> None:
    async def waits(answer: Answer) -> None:
        await answer.client_gone()

    slow, slow_url = upstream(waits)
    urls = {"v1": slow_url, "spare": upstream(answering())[1]}
    served = gateway(table(urls, {"v1": 100}, fallback=["spare"], attemptTimeoutS=0.5))
    assert served.chat().headers["x-llm-version"] == "spare"
    assert slow.aborted.wait(PATIENCE_S)


def test_fallbacks_are_asked_in_turn_and_the_last_ones_error_is_the_answer(upstream: Starts, gateway: Gateways) -> None:
    first, first_url = upstream(answering(500, FAILURE))
    second, second_url = upstream(answering(503, FAILURE))
    urls = {"v1": first_url, "spare": second_url, "last": upstream(answering(429, FAILURE))[1]}
    served = gateway(table(urls, {"v1": 100}, fallback=["spare", "last"]))
    assert served.chat().status_code == 429
    assert (len(first.received), len(second.received)) == (1, 1)


@pytest.mark.parametrize("document", [WRONG, {**WRONG, "message": "no such tool"}])
def test_a_wrong_request_is_wrong_everywhere(upstream: Starts, gateway: Gateways, document: dict[str, Any]) -> None:
    spare, spare_url = upstream(answering())
    served = gateway(
        table({"v1": upstream(answering(400, document))[1], "spare": spare_url}, {"v1": 1}, fallback=["spare"])
    )
    response = served.chat()
    assert response.status_code == 400
    assert response.json()["error"]["message"] == document["message"]
    assert spare.received == []


def test_after_the_first_byte_nobody_else_is_asked(upstream: Starts, gateway: Gateways) -> None:
    async def breaks(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(b'data: {"choices": []}\n\n')
        raise ConnectionError("the engine died")

    spare, spare_url = upstream(answering())
    served = gateway(table({"v1": upstream(breaks)[1], "spare": spare_url}, {"v1": 1}, fallback=["spare"]))
    response = served.chat(stream=True)
    assert response.headers["x-llm-version"] == "v1"
    assert '"error"' in response.text
    assert spare.received == []


def test_a_stream_that_begins_with_a_failure_has_not_begun(upstream: Starts, gateway: Gateways) -> None:
    async def fails(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(b'data: {"error": %b}\n\n' % json.dumps(FAILURE).encode())
        await answer.chunk(b"data: [DONE]\n\n", more=False)

    urls = {"v1": upstream(fails)[1], "spare": upstream(answering())[1]}
    served = gateway(table(urls, {"v1": 1}, fallback=["spare"]))
    assert served.chat(stream=True).headers["x-llm-version"] == "spare"
    alone = served.chat(pin="v1", stream=True)
    assert (alone.status_code, alone.json()["error"]["code"]) == (502, "upstream_failed")


def test_a_pinned_version_has_no_fallback(upstream: Starts, gateway: Gateways) -> None:
    spare, spare_url = upstream(answering())
    served = gateway(
        table({"v1": upstream(answering(500, FAILURE))[1], "spare": spare_url}, {"v1": 1}, fallback=["spare"])
    )
    assert served.chat(pin="v1").status_code >= 500
    assert spare.received == []


# Shadows


def test_a_shadow_gets_a_copy_and_the_caller_does_not_wait_for_it(upstream: Starts, gateway: Gateways) -> None:
    shadow, shadow_url = upstream(waits_for_release)
    served = gateway(
        table(
            {"v1": upstream(answering())[1], "next": shadow_url}, {"v1": 100}, shadow={"model": "next", "percent": 100}
        )
    )
    response = served.chat(user="u")
    assert (response.status_code, response.headers["x-llm-version"]) == (200, "v1")
    assert shadow.asked.wait(PATIENCE_S)
    assert not served.counted("llm_gateway_shadow_requests")
    shadow.release.set()
    until(lambda: served.counted("llm_gateway_shadow_requests", version="next", status="500"))
    (copy,) = shadow.received
    assert copy.headers["x-llm-shadow"] == "true"
    assert json.loads(copy.body) == {"model": "next", "messages": [], "user": "u"}


def test_a_client_cannot_pass_as_a_shadow(upstream: Starts, gateway: Gateways) -> None:
    server, url = upstream(answering())
    served = gateway(table({"v1": url}, {"v1": 100}))
    served.client.post(CHAT, json={"model": "chat", "messages": []}, headers={"x-llm-shadow": "true"})
    assert "x-llm-shadow" not in server.received[0].headers


# Canaries

RULES: dict[str, Any] = {"maxErrorRate": 0.2, "minRequests": 5, "windowS": 60}


def test_a_version_that_fails_is_taken_out_until_the_values_change(upstream: Starts, gateway: Gateways) -> None:
    urls = {"good": upstream(answering())[1], "bad": upstream(answering(500, FAILURE))[1]}
    served = gateway(table(urls, {"good": 50, "bad": 50}, canary=RULES))
    for _ in range(5):
        assert served.chat(pin="bad").status_code >= 500
    until(lambda: served.counted("llm_gateway_version_off", model="chat", version="bad", rule="max_error_rate"))
    assert {served.chat().status_code for _ in range(20)} == {200}
    assert served.chat(pin="bad").status_code >= 500
    served.ingress.route_by(table(urls, {"good": 50, "bad": 50}, canary=RULES))
    assert {served.chat().status_code for _ in range(20)} == {200}
    served.ingress.route_by(table(urls, {"good": 51, "bad": 49}, canary=RULES))
    until(lambda: not served.counted("llm_gateway_version_off", version="bad"))
    assert any(served.chat().status_code >= 500 for _ in range(40))


def test_a_version_that_is_not_there_counts_as_failing_though_its_fallback_answers(
    upstream: Starts, gateway: Gateways
) -> None:
    urls = {"good": upstream(answering())[1], "bad": "http://127.0.0.1:9"}
    served = gateway(
        table(urls, {"good": 1, "bad": 99}, sticky="none", canary=RULES | {"minRequests": 3}, fallback=["good"])
    )
    # The version with the highest weight is stable: nothing happens to it, whatever it does.
    assert {served.chat().status_code for _ in range(5)} == {200}
    served.ingress.route_by(table(urls, {"good": 50, "bad": 50}, canary=RULES | {"minRequests": 3}, fallback=["good"]))
    until(lambda: served.chat().status_code == 200 and served.counted("llm_gateway_version_off", version="bad"))


def test_a_failure_counts_once(upstream: Starts, gateway: Gateways) -> None:
    async def crashes(answer: Answer) -> None:
        await answer.whole(500, b"Traceback", {"content-type": "text/plain"})

    urls = {"v1": upstream(answering())[1], "v2": upstream(crashes)[1], "v3": upstream(crashes)[1]}
    served = gateway(table(urls, {"v1": 98, "v2": 1, "v3": 1}, canary=RULES))
    for version, failures in (("v2", RULES["minRequests"] - 1), ("v3", RULES["minRequests"])):
        for _ in range(failures):
            assert served.chat(pin=version).status_code == 502
    until(lambda: served.counted("llm_gateway_version_off", version="v3"))
    assert not served.counted("llm_gateway_version_off", version="v2")


def test_a_version_that_hangs_is_taken_out_while_its_clients_wait(upstream: Starts, gateway: Gateways) -> None:
    hangs, url = upstream(waits_for_release)
    served = gateway(
        table(
            {"v1": upstream(answering())[1], "v2": url}, {"v1": 99, "v2": 1}, canary={"ttftP95S": 0.2, "minRequests": 1}
        )
    )
    asking = threading.Thread(target=served.chat, kwargs={"pin": "v2", "stream": True})
    asking.start()
    until(lambda: served.counted("llm_gateway_version_off", version="v2", rule="ttft_p95_s"))
    hangs.release.set()
    asking.join(PATIENCE_S)


def test_a_version_that_fails_inside_its_streams_is_taken_out(upstream: Starts, gateway: Gateways) -> None:
    async def fails_late(answer: Answer) -> None:
        await answer.begin(200, {"content-type": "text/event-stream"})
        await answer.chunk(b'data: {"choices": [{"delta": {"content": "data: {\\"error\\""}}]}\n\n')
        if answer.upstream is broken:
            await answer.chunk(b'data: {"error": %b}\n\n' % json.dumps(FAILURE).encode())
        await answer.chunk(b"data: [DONE]\n\n", more=False)

    broken, url = upstream(fails_late)
    urls = {"v1": upstream(answering())[1], "v2": upstream(fails_late)[1], "v3": url}
    served = gateway(table(urls, {"v1": 98, "v2": 1, "v3": 1}, canary=RULES))
    for version in ("v2", "v3"):
        for _ in range(RULES["minRequests"]):
            assert served.chat(pin=version, stream=True).status_code == 200
    until(lambda: served.counted("llm_gateway_version_off", version="v3"))
    assert not served.counted("llm_gateway_version_off", version="v2")


def test_wrong_requests_take_nothing_out(upstream: Starts, gateway: Gateways) -> None:
    bad = {"v2": upstream(answering(400, WRONG))[1], "v3": upstream(answering(500, FAILURE))[1]}
    served = gateway(table({"v1": upstream(answering())[1], **bad}, {"v1": 98, "v2": 1, "v3": 1}, canary=RULES))
    for version in ("v2", "v3"):
        for _ in range(5):
            served.chat(pin=version)
    until(lambda: served.counted("llm_gateway_version_off", version="v3"))
    assert not served.counted("llm_gateway_version_off", version="v2")


def test_replicas_agree_through_redis(upstream: Starts, gateway: Gateways, redis_server: RedisServer) -> None:
    urls = {"good": upstream(answering())[1], "bad": upstream(answering(500, FAILURE))[1]}
    routed = table(urls, {"good": 50, "bad": 50}, canary=RULES)
    one, other = (gateway(routed, redis_server.password_file, redis=redis_server.url) for _ in range(2))
    for served in (one, other, one, other, one):  # not enough at either of them
        served.chat(pin="bad")
    for served in (one, other):
        until(lambda served=served: served.counted("llm_gateway_version_off", version="bad"))  # type: ignore[misc]
        assert {served.chat().headers["x-llm-version"] for _ in range(20)} == {"good"}
