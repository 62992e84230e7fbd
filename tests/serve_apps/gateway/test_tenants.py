from typing import Any

import pytest

from serve_apps.common.errors import InvalidRequest, PermissionDenied
from serve_apps.gateway import tenants
from serve_apps.gateway.config import RoutingTable, Tenant
from serve_apps.gateway.request import Wish

TABLE = RoutingTable.model_validate(
    {"tenants": {"acme": {"requestsPerMinute": 7}}, "otherTenants": {"requestsPerMinute": 3}}
)


def wish(max_tokens: int | None = None) -> Wish:
    return Wish("/v1/chat/completions", b"{}", {}, "chat", max_tokens=max_tokens)


def test_a_named_tenant_has_rules_of_its_own_and_everybody_else_the_others() -> None:
    assert tenants.rules(TABLE, "acme").requests_per_minute == 7
    assert tenants.rules(TABLE, "somebody").requests_per_minute == 3


def test_only_named_tenants_become_series() -> None:
    assert tenants.label(TABLE, "acme") == "acme"
    assert tenants.label(TABLE, "somebody") == "other"


@pytest.mark.parametrize(
    ("models", "allowed"), [(None, True), (("chat", "large"), True), (("large",), False), ((), False)]
)
def test_a_tenant_may_use_what_its_rules_list_or_everything(models: Any, allowed: bool) -> None:
    rules = Tenant(models=models)
    assert tenants.may_use(rules, "chat") is allowed
    if allowed:
        tenants.check(rules, "chat", wish())
    else:
        with pytest.raises(PermissionDenied):
            tenants.check(rules, "chat", wish())


def test_a_model_that_is_not_the_tenants_is_refused_with_those_that_are() -> None:
    with pytest.raises(PermissionDenied) as caught:
        tenants.check(Tenant(models=("small", "embed")), "chat")
    error = caught.value
    assert error.message == 'You do not have access to the model "chat". Models you may use: embed, small.'
    assert (error.status, error.code, error.param) == (403, "model_not_found", "model")


@pytest.mark.parametrize("asked", [None, 1, 100])
def test_so_many_tokens_may_be_asked_for(asked: int | None) -> None:
    tenants.check(Tenant(max_tokens=100), "chat", wish(asked))


def test_one_token_more_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        tenants.check(Tenant(max_tokens=100), "chat", wish(101))
    assert caught.value.message == "max_tokens is 101; one request of yours may have 100 tokens generated."
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, "max_tokens", "max_tokens_exceeded")
