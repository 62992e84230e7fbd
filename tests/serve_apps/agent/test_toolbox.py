import asyncio
from typing import Any

from serve_apps.agent.config import Agent
from serve_apps.agent.toolbox import FRESH_S, RETRY_S, Listed, Toolbox
from serve_apps.common.gateway_client import Caller
from serve_apps.common.secrets import UpstreamKeys
from tests.serve_apps.agent.conftest import LOOPBACK
from tests.serve_apps.agent.tool_server import ToolServer


class Gateway:
    """A client that nobody asks here."""

    async def ask(self, path: str, request: dict[str, Any], caller: Caller, whom: str) -> dict[str, Any]:
        raise AssertionError(path)


def toolbox(keys: UpstreamKeys, clock: list[float], **tools: Any) -> Toolbox:
    return Toolbox(Agent.model_validate({"model": "chat", "tools": tools}), Gateway(), keys, lambda: clock[0])


def listed(box: Toolbox, times: int = 1) -> Listed:
    async def ask() -> list[Listed]:
        return await asyncio.gather(*(box.functions() for _ in range(times)))

    return asyncio.run(ask())[0]


def forecast(url: str) -> dict[str, Any]:
    return {"http": {"url": url, "openapi": {"path": "/openapi.json", "operations": ["forecast"]}, **LOOPBACK}}


def test_every_kind_of_tool_becomes_functions(tool_url: str, keys: UpstreamKeys) -> None:
    box = toolbox(keys, [0], sums={"calculator": {}}, docs={"rag": {"pipeline": "docs"}}, weather=forecast(tool_url))
    assert list(listed(box).functions) == ["sums", "docs", "weather_forecast"]


def test_a_tool_does_not_pose_as_another(tool_url: str, keys: UpstreamKeys) -> None:
    posing = forecast(tool_url)
    box = toolbox(keys, [0], weather=posing, weather_forecast={"calculator": {}}, weather_f={"calculator": {}})
    functions = listed(box).functions
    assert {name: function.tool for name, function in functions.items()} == {
        "weather_forecast": "weather_forecast",
        "weather_f": "weather_f",
    }
    assert list(listed(toolbox(keys, [0], weather=posing, weather_fore={"calculator": {}})).functions) == [
        "weather_forecast",
        "weather_fore",
    ]


def test_a_server_is_asked_once_for_a_while_and_then_again(
    tool_url: str, tool_server: ToolServer, keys: UpstreamKeys
) -> None:
    clock = [100.0]
    box = toolbox(keys, clock, weather=forecast(tool_url))
    listed(box, times=5)
    clock[0] += FRESH_S - 1
    listed(box)
    assert len(tool_server.asked) == 1
    clock[0] += 1
    listed(box)
    assert len(tool_server.asked) == 2


def test_a_server_that_is_away_is_missing_and_asked_again_soon(
    tool_url: str, tool_server: ToolServer, keys: UpstreamKeys
) -> None:
    clock = [100.0]
    box = toolbox(keys, clock, sums={"calculator": {}}, weather=forecast(f"{tool_url}/elsewhere"))
    found = listed(box)
    assert (list(found.functions), found.missing) == (["sums"], ("weather",))
    asked = len(tool_server.asked)
    clock[0] += RETRY_S
    listed(box)
    assert len(tool_server.asked) == asked + 1
