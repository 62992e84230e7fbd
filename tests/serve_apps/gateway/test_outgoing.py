import json
from pathlib import Path
from typing import Any

import pytest

from serve_apps.common.errors import Unavailable
from serve_apps.common.secrets import InternalCredential, UpstreamKeys
from serve_apps.gateway.config import Tenant, Upstream
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.headers import RawHeaders
from serve_apps.gateway.outgoing import Outgoing
from serve_apps.gateway.relay import Outbound
from serve_apps.gateway.releases import Candidate
from serve_apps.gateway.replicas import Target
from serve_apps.gateway.request import read

CHAT = "/v1/chat/completions"
HEADERS: RawHeaders = [(b"content-type", b"application/json"), (b"authorization", b"Bearer sk-acme")]


@pytest.fixture
def outgoing(tmp_path: Path) -> Outgoing:
    (tmp_path / "token").write_text("internal")
    (tmp_path / "provider").write_text("sk-theirs")
    return Outgoing(InternalCredential(tmp_path / "token"), UpstreamKeys(tmp_path))


def exchange() -> Exchange:
    return Exchange("r1", "POST", CHAT, tenant="acme")


def sent(
    outgoing: Outgoing,
    adapter: str | None = None,
    rules: Tenant | None = None,
    target: Target | None = None,
    **entry: Any,
) -> Outbound:
    """A chat for ``chat`` as the model is sent it; ``entry`` is the model's in the routing table."""
    upstream = Upstream.model_validate({"url": "http://chat", "task": "generate", **entry})
    candidate = Candidate("chat", upstream, f"http://chat{CHAT}", adapter)
    wish = read(CHAT, HEADERS, b'{"model": "assistant", "messages": [], "stream": true}')
    return outgoing.to_model(HEADERS, exchange(), wish, candidate, rules or Tenant(), target)


def test_a_model_is_shown_the_internal_credential_and_asked_by_its_own_name(outgoing: Outgoing) -> None:
    outbound = sent(outgoing)
    assert (outbound.headers["x-llm-internal"], outbound.headers["x-llm-tenant"]) == ("internal", "acme")
    assert "authorization" not in outbound.headers
    assert json.loads(outbound.body)["model"] == "chat"


def test_a_models_usage_is_asked_for_and_a_pipelines_is_its_own_to_tell(outgoing: Outgoing) -> None:
    assert json.loads(sent(outgoing).body)["stream_options"] == {"include_usage": True}
    assert json.loads(sent(outgoing, task="pipeline").body) == {"model": "assistant", "messages": [], "stream": True}


def test_an_adapter_is_named_in_the_body_and_beside_it(outgoing: Outgoing) -> None:
    outbound = sent(outgoing, adapter="sql")
    assert (json.loads(outbound.body)["model"], outbound.headers["x-llm-adapter"]) == ("sql", "sql")


def test_a_tenants_rules_go_into_the_body(outgoing: Outgoing) -> None:
    body = json.loads(sent(outgoing, rules=Tenant(max_tokens=5, priority=3), takesPriority=True).body)
    assert (body["max_completion_tokens"], body["priority"]) == (5, 3)
    assert "priority" not in json.loads(sent(outgoing, rules=Tenant(priority=3)).body)


def test_a_provider_is_shown_its_key_and_nothing_of_ours(outgoing: Outgoing) -> None:
    outbound = sent(outgoing, runtime="external", credential="provider", servedModel="big")
    assert outbound.headers == {"content-type": "application/json", "authorization": "Bearer sk-theirs"}
    assert json.loads(outbound.body)["model"] == "big"


def test_a_provider_whose_key_is_missing_is_not_asked(outgoing: Outgoing) -> None:
    with pytest.raises(Unavailable):
        sent(outgoing, runtime="external", credential="nobodys")


def test_a_replica_that_is_known_is_dialled(outgoing: Outgoing) -> None:
    assert sent(outgoing, target=Target("one", "10.0.0.7", 30001)).target == ("10.0.0.7", 30001)
    assert sent(outgoing).target is None


def test_an_application_gets_the_body_as_it_came_and_only_once(outgoing: Outgoing) -> None:
    outbound = outgoing.to_application(HEADERS, exchange(), "http://rag/v1/rag/docs/query", b"{}")
    assert (outbound.method, outbound.body, outbound.repeatable) == ("POST", b"{}", False)
    assert outbound.headers["x-llm-internal"] == "internal"
