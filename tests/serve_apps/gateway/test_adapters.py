from typing import Any

import pytest

from serve_apps.gateway.adapters import Adapted, Adapters
from serve_apps.gateway.config import RoutingTable
from serve_apps.gateway.releases import Releases
from serve_apps.gateway.request import Wish

CHAT = "/v1/chat/completions"
TABLE = RoutingTable.model_validate(
    {
        "models": {
            "chat": {
                "url": "http://host/internal/chat",
                "task": "generate",
                "adapters": {"sql": {}, "acme": {"tenants": ["acme"]}, "both": {}, "assistant": {}, "gpt": {}},
            },
            "large": {
                "url": "http://host/internal/large",
                "task": "generate",
                "adapters": {"both": {}},
                "otherAdapters": True,
            },
            "plain": {"url": "http://host/internal/plain", "task": "generate"},
        },
        "routes": {"assistant": {"versions": [{"model": "chat"}], "aliases": ["gpt", "large:both"]}},
    }
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("chat:sql", Adapted("chat", "sql")),
        ("sql", Adapted("chat", "sql")),
        ("chat:both", Adapted("chat", "both")),
        ("both", None),  # of which of the two models?
        ("assistant", None),  # a route
        ("gpt", None),  # an alias
        ("chat:assistant", Adapted("chat", "assistant")),
        ("large:any-folder_1.2", Adapted("large", "any-folder_1.2")),
        ("any-folder_1.2", None),
        ("chat:any-folder_1.2", None),
        ("plain:sql", None),
        ("nobody:sql", None),
    ],
)
def test_a_name_means_one_adapter_of_one_model(name: str, meant: Adapted | None) -> None:
    assert Adapters(TABLE).find(name, "somebody") == meant


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "..", ".hidden", "a/b", "a\\b", "a\0b", "a b", "", "sql\n", "a:b", "x" * 64, "ä"]
)
def test_a_path_is_no_adapter_even_where_any_folder_may_be(name: str) -> None:
    adapters = Adapters(TABLE)
    assert adapters.find(f"large:{name}", "somebody") is None
    assert adapters.find(name, "somebody") is None


def test_an_adapter_of_a_tenant_is_there_for_it_alone() -> None:
    adapters = Adapters(TABLE)
    for name in ("acme", "chat:acme"):
        assert adapters.find(name, "acme") == Adapted("chat", "acme")
        assert adapters.find(name, "somebody") is None
    assert {"acme", "chat:acme"} <= adapters.listed("acme").keys()
    assert not {"acme", "chat:acme"} & adapters.listed("somebody").keys()


def test_every_name_that_leads_to_an_adapter_is_listed() -> None:
    listed = Adapters(TABLE).listed("somebody")
    assert sorted(listed) == ["chat:assistant", "chat:both", "chat:gpt", "chat:sql", "sql"]
    assert all(Adapters(TABLE).find(name, "somebody") == one for name, one in listed.items())


def planned(name: str, tenant: str = "somebody", **what: Any) -> Any:
    return Releases(TABLE).plan(CHAT, Wish(CHAT, b"", None, name, **what), tenant, lambda _: frozenset())


@pytest.mark.parametrize("name", ["sql", "chat:sql"])
def test_a_request_for_an_adapter_goes_to_its_model(name: str) -> None:
    plan = planned(name)
    (candidate,) = plan.candidates
    assert (plan.named, candidate.version, candidate.adapter) == ("chat", "chat", "sql")
    assert candidate.url == f"http://host/internal/chat{CHAT}"


@pytest.mark.parametrize("name", ["chat", "assistant", "gpt"])
def test_a_request_for_a_model_or_a_route_names_no_adapter(name: str) -> None:
    assert planned(name).candidates[0].adapter is None
