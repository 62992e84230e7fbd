import asyncio
from typing import Any

import pytest

from serve_apps.agent.config import Http
from serve_apps.agent.http_tools import BODY, Endpoint, from_openapi, http_functions, request_of
from serve_apps.agent.tools import Function, ToolFailed
from serve_apps.common.protocol import INTERNAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER
from serve_apps.common.secrets import UpstreamKeys
from tests.serve_apps.agent.conftest import CALLER, LOOPBACK
from tests.serve_apps.agent.tool_server import DOCUMENT, ToolServer
from tests.serve_apps.gateway.servers import PATIENCE_S

BASE = "https://api.example.com/v2/"


def endpoint(method: str, path: str, body: str | None = None) -> Endpoint:
    return Endpoint(method, path, "Does it.", {"type": "object"}, body)


@pytest.mark.parametrize(
    ("made", "arguments", "url", "body"),
    [
        (endpoint("GET", "/cities/{city}"), {"city": "Bonn"}, "cities/Bonn", None),
        (endpoint("GET", "/cities/{city}"), {"city": "a/b?c#d"}, "cities/a%2Fb%3Fc%23d", None),
        (
            endpoint("GET", "/cities"),
            {"q": "a&b", "days": 3, "tag": ["x", "y"]},
            "cities?q=a%26b&days=3&tag=x&tag=y",
            None,
        ),
        (endpoint("DELETE", "/cities/{id}"), {"id": 7}, "cities/7", None),
        (endpoint("POST", "/cities/{id}"), {"id": 7, "name": "Bonn"}, "cities/7", b'{"name":"Bonn"}'),
        (
            endpoint("POST", "/cities", BODY),
            {"dry": True, "body": {"name": "Bonn"}},
            "cities?dry=true",
            b'{"name":"Bonn"}',
        ),
    ],
)
def test_arguments_go_into_the_path_the_query_or_the_body(
    made: Endpoint, arguments: dict[str, Any], url: str, body: bytes | None
) -> None:
    assert request_of(BASE, made, arguments) == (BASE + url, body)


@pytest.mark.parametrize("city", ["..", ".", "", "a/../b", "%2e%2E", "..\\\\b", "x%2f.."])
def test_an_argument_cannot_lead_out_of_its_path(city: str) -> None:
    with pytest.raises(ToolFailed, match=r"arguments\.city: .* cannot stand in a path"):
        request_of(BASE, endpoint("GET", "/cities/{city}/x"), {"city": city})


def test_a_document_gives_the_operations_that_are_wanted_and_no_others() -> None:
    found = from_openapi(DOCUMENT, ("forecast", "report.create"), ("GET", "POST"))
    assert sorted(found) == ["forecast", "report_create"]
    assert found["forecast"].path == "/cities/{city}/forecast"
    assert found["forecast"].parameters == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "description": "How far"}},
        "required": ["city"],
        "additionalProperties": False,
    }
    body = found["report_create"].parameters["properties"][BODY]
    assert body["properties"]["text"] == {"type": "string"}
    assert body["properties"]["parent"]["properties"]["parent"]["type"] == "object"
    assert found["report_create"].parameters["required"] == [BODY]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("forget",), "forget is DELETE, and only GET, POST are allowed"),
        (("forecast", "nothing"), "the OpenAPI document has 1 of the 2 operations forecast, nothing"),
        (("keyed",), "keyed needs 'x-key' in its header"),
        (("elsewhere",), "elsewhere has the path '@evil.example/x', which does not begin with /"),
    ],
)
def test_what_a_document_does_not_give_is_said(wanted: tuple[str, ...], message: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        from_openapi(DOCUMENT, wanted, ("GET", "POST"))
    assert str(caught.value) == message


def functions(url: str, keys: UpstreamKeys, **more: Any) -> dict[str, Function]:
    operations = {
        name: {"path": f"/{name}", "description": "Does it."}
        for name in ("hello", "redirect", "huge", "slow", "broken")
    }
    http = Http.model_validate({"url": url, "operations": operations, "timeoutS": PATIENCE_S, **LOOPBACK, **more})
    return {each.name: each for each in asyncio.run(http_functions("weather", http, keys))}


def call(function: Function, arguments: dict[str, Any] | None = None) -> str:
    return asyncio.run(function.call(arguments or {}, CALLER)).text


def test_a_call_has_the_credential_of_its_tool(tool_url: str, tool_server: ToolServer, keys: UpstreamKeys) -> None:
    found = functions(
        tool_url, keys, credential="weather", credentialHeader="x-key", credentialScheme="", headers={"a": "b"}
    )
    assert '"path":"/hello"' in call(found["weather_hello"])
    headers = tool_server.asked[0]["headers"]
    assert (headers["x-key"], headers["a"]) == ("weather-key", "b")
    # And nothing of whom it is called for.
    assert not {"authorization", INTERNAL_HEADER, TENANT_HEADER, REQUEST_ID_HEADER} & set(headers)
    assert not {CALLER.tenant, CALLER.request_id} & set(headers.values())


def test_a_call_without_its_credential_is_not_made(tool_url: str, tool_server: ToolServer, keys: UpstreamKeys) -> None:
    found = functions(tool_url, keys, credential="other")
    with pytest.raises(ToolFailed, match="the server's credential is missing"):
        call(found["weather_hello"])
    assert tool_server.asked == []


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ("redirect", "status 307: the server redirects, and redirects are not followed"),
        ("huge", "the answer is larger than 262144 bytes"),
        ("slow", "no answer within 0.5 s"),
        ("broken", "status 500: out of order"),
    ],
)
def test_what_goes_wrong_is_told_in_words(tool_url: str, keys: UpstreamKeys, operation: str, message: str) -> None:
    patience_s = 0.5 if operation == "slow" else PATIENCE_S
    with pytest.raises(ToolFailed) as caught:
        call(functions(tool_url, keys, timeoutS=patience_s)[f"weather_{operation}"])
    assert str(caught.value) == message


def test_operations_come_from_the_servers_document(tool_url: str, tool_server: ToolServer, keys: UpstreamKeys) -> None:
    openapi = {"path": "/openapi.json", "operations": ["forecast"]}
    found = functions(tool_url, keys, openapi=openapi, operations={})
    assert '"path":"/cities/Bonn/forecast","query":"days=3"' in call(
        found["weather_forecast"], {"city": "Bonn", "days": 3}
    )
    # Whatever servers the document names.
    assert [each["path"] for each in tool_server.asked] == ["/openapi.json", "/cities/Bonn/forecast"]


def test_a_document_that_is_no_json_is_an_error(tool_url: str, keys: UpstreamKeys) -> None:
    with pytest.raises(ToolFailed, match="status 500"):
        functions(tool_url, keys, openapi={"path": "/broken", "operations": ["forecast"]})
