import pytest

from serve_apps.common.errors import InvalidRequest, MethodNotAllowed, NotFound
from serve_apps.gateway import routing
from serve_apps.gateway.config import RoutingTable

TABLE = RoutingTable.model_validate(
    {
        "models": {
            "chat": {"url": "http://host/internal/chat", "task": "generate"},
            "embedder": {"url": "http://host/internal/embedder", "task": "embed"},
            "docs": {"url": "http://host/internal/rag", "task": "pipeline"},
            "helper": {"url": "http://host/internal/agent", "task": "agent"},
        }
    }
)
ROUTED = RoutingTable.model_validate(
    TABLE.model_dump()
    | {
        "routes": {
            "assistant": {"versions": [{"model": "gone"}, {"model": "chat"}], "aliases": ["gpt-4o", "openai/gpt-4o"]},
            "later": {"versions": [{"model": "gone"}], "aliases": ["gpt-5"]},
            "embedder": {"versions": [{"model": "gone"}], "fallback": ["embedder"], "aliases": ["later"]},
        }
    }
)
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", CHAT, "model"),
        ("POST", "/v1/embeddings", "model"),
        ("POST", "/v1/rerank", "model"),
        ("POST", "/v1/responses", "model"),
        ("POST", "/v1/messages/count_tokens", "model"),
        ("POST", "/tokenize", "model"),
        ("POST", "/v1/audio/transcriptions", "model"),
        ("GET", "/v1/usage", "control"),
        ("GET", "/v1/models", "control"),
        ("GET", "/v1/models/chat", "control"),
        ("GET", "/readyz", "control"),
        ("POST", "/v1/rag/docs/query", "pipeline"),
        ("DELETE", "/v1/rag/docs/documents/a/b.md", "pipeline"),
        ("POST", "/v1/agents/helper/runs", "pipeline"),
        ("GET", "/v1/agents/helper/runs/7", "pipeline"),
    ],
)
def test_a_path_is_answered_by_the_gateway_a_model_or_a_pipeline(method: str, path: str, kind: str) -> None:
    assert routing.kind_of(method, path) == kind


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/chat/completions/",
        "/V1/chat/completions",
        "/invocations",
        "/metrics",
        "/v1/rag",
        "/v1/messages/batches",
        "/v1/messages/render",
        "/v1/audio/speech",
        "/v1/realtime",
        "/pooling",
        "/internal/chat/v1/completions",
    ],
)
def test_any_other_path_is_not_found(path: str) -> None:
    with pytest.raises(NotFound) as caught:
        routing.kind_of("POST", path)
    assert caught.value.code == "unknown_path"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/responses/resp_1/input_items"]
)
def test_a_stored_response_is_not_found_since_none_is_stored(method: str, path: str) -> None:
    with pytest.raises(NotFound) as caught:
        routing.kind_of(method, path)
    assert caught.value.message == (
        "Response with id 'resp_1' not found: responses are not stored here. Send the whole conversation in \"input\"."
    )
    assert caught.value.code == "response_not_found"


@pytest.mark.parametrize(
    "path", ["/v1/rag/docs/../../internal/chat", "/v1/rag/./docs", "/v1/rag/docs/..", "/v1/rag/docs\\..\\x"]
)
def test_a_path_that_could_lead_out_of_its_pipeline_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        routing.kind_of("POST", path)


def test_dots_inside_a_name_lead_nowhere() -> None:
    assert routing.kind_of("GET", "/v1/rag/docs/documents/..a/b...md") == "pipeline"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("POST", "/v1/models", "GET"),
        ("OPTIONS", "/v1/rag/docs/query", "GET, POST, PUT, DELETE"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(method: str, path: str, allow: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        routing.kind_of(method, path)
    assert caught.value.headers()["allow"] == allow


def test_the_model_named_is_the_one_asked() -> None:
    assert routing.model_route(TABLE, CHAT, "chat").url == "http://host/internal/chat/v1/chat/completions"


def test_a_pipeline_is_asked_like_a_model() -> None:
    assert routing.model_route(TABLE, CHAT, "docs").url == "http://host/internal/rag/v1/chat/completions"


def test_an_unknown_model_is_told_the_models_there_are() -> None:
    with pytest.raises(NotFound) as caught:
        routing.model_route(TABLE, CHAT, "gpt-4")
    assert caught.value.message == 'The model "gpt-4" does not exist. Models here: chat, docs, embedder, helper.'
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_model_that_does_not_answer_the_path_is_told_what_does() -> None:
    with pytest.raises(InvalidRequest) as caught:
        routing.model_route(TABLE, CHAT, "embedder")
    assert caught.value.message == (
        'The model "embedder" does not answer /v1/chat/completions; it answers /detokenize, /tokenize, /v1/embeddings. '
        "Models that answer /v1/chat/completions: chat, docs, helper."
    )


def test_a_route_answers_what_the_first_of_its_models_does() -> None:
    assert routing.listed(ROUTED) == {
        "assistant": "generate",
        "chat": "generate",
        "docs": "pipeline",
        "embedder": "embed",
        "helper": "agent",
    }


def test_an_alias_is_another_name_of_a_route_unless_it_is_a_routes_own() -> None:
    assert routing.aliases(ROUTED) == {"gpt-4o": "assistant", "openai/gpt-4o": "assistant", "gpt-5": "later"}


def test_routes_are_named_among_the_models_there_are() -> None:
    assert routing.unknown_model(ROUTED, "gpt-4").message == (
        'The model "gpt-4" does not exist. Models here: assistant, chat, docs, embedder, helper.'
    )


def test_routes_are_named_among_those_that_answer_a_path() -> None:
    with pytest.raises(InvalidRequest, match=r"Models that answer /v1/completions: assistant, chat\.$"):
        routing.check_answers(ROUTED.models["embedder"], "/v1/completions", "embedder", ROUTED)


def test_a_path_that_is_answered_is_no_error() -> None:
    routing.check_answers(ROUTED.models["chat"], "/v1/messages", "chat", ROUTED)
    assert routing.upstream_url(ROUTED.models["chat"], "/tokenize") == "http://host/internal/chat/tokenize"


@pytest.mark.parametrize("model", [None, "", 7, ["chat"], {"id": "chat"}])
def test_a_request_that_names_no_model_is_told_to(model: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        routing.model_route(TABLE, CHAT, model)
    assert caught.value.param == "model"
    assert "chat, docs, embedder" in caught.value.message


def test_a_long_name_is_not_quoted_back_whole() -> None:
    with pytest.raises(NotFound) as caught:
        routing.model_route(TABLE, CHAT, "x" * 10_000)
    assert len(caught.value.message) < 300


def test_a_pipelines_path_goes_to_it_whole() -> None:
    route = routing.pipeline_route(TABLE, "/v1/rag/docs/query", "top=3")
    assert (route.model, route.url) == ("docs", "http://host/internal/rag/v1/rag/docs/query?top=3")


def test_what_a_path_was_decoded_from_is_encoded_again() -> None:
    route = routing.pipeline_route(TABLE, "/v1/rag/docs/documents/a b?#%2e.md")
    assert route.url == "http://host/internal/rag/v1/rag/docs/documents/a%20b%3F%23%252e.md"


def test_an_agents_path_goes_to_it_whole() -> None:
    route = routing.pipeline_route(TABLE, "/v1/agents/helper/runs/7")
    assert (route.model, route.url) == ("helper", "http://host/internal/agent/v1/agents/helper/runs/7")


@pytest.mark.parametrize("name", ["nothing", "docs", ""])
def test_an_unknown_agent_is_told_the_agents_there_are(name: str) -> None:
    with pytest.raises(NotFound, match=r"Agents here: helper\."):
        routing.pipeline_route(TABLE, f"/v1/agents/{name}/runs")


@pytest.mark.parametrize("name", ["nothing", "chat", "helper", ""])
def test_an_unknown_pipeline_is_told_the_pipelines_there_are(name: str) -> None:
    with pytest.raises(NotFound, match=r"Pipelines here: docs\."):
        routing.pipeline_route(TABLE, f"/v1/rag/{name}/query")


@pytest.mark.parametrize(
    ("method", "path", "upload"),
    [
        ("POST", "/v1/rag/docs/documents", True),
        ("PUT", "/v1/rag/docs/documents/a.md", True),
        ("GET", "/v1/rag/docs/documents", False),
        ("POST", "/v1/rag/docs/query", False),
        ("POST", "/v1/rag/documents/query", False),
        ("POST", "/v1/files", True),
        ("GET", "/v1/files", False),
        ("POST", "/v1/batches", False),
    ],
)
def test_only_documents_and_files_sent_in_are_uploads(method: str, path: str, upload: bool) -> None:
    assert routing.is_upload(method, path) is upload


@pytest.mark.parametrize("path", ["/v1/files", "/v1/files/file-1/content", "/v1/batches", "/v1/batches/batch_1"])
def test_files_and_batches_have_an_application(path: str) -> None:
    assert routing.kind_of("GET", path) == "batch"
    table = RoutingTable(batch="http://host/internal/batch")
    assert routing.batch_url(table, path, "limit=2") == f"http://host/internal/batch{path}?limit=2"


@pytest.mark.parametrize("path", ["/v1/filesystem", "/v1/batch", "/v1/files/../models", "/v1/batches/.."])
def test_what_only_looks_like_files_is_unknown(path: str) -> None:
    with pytest.raises(NotFound):
        routing.kind_of("GET", path)


def test_files_are_not_put() -> None:
    with pytest.raises(MethodNotAllowed, match="answers GET, POST, DELETE, not PUT"):
        routing.kind_of("PUT", "/v1/files")


def test_with_an_empty_table_there_are_no_batches() -> None:
    with pytest.raises(NotFound, match="there are no batches here"):
        routing.batch_url(RoutingTable(), "/v1/files")


def test_with_an_empty_table_there_is_no_model() -> None:
    with pytest.raises(NotFound, match=r"Models here: none\."):
        routing.model_route(RoutingTable(), CHAT, "chat")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/models", "/v1/models"),
        ("/v1/models/chat", "/v1/models/…"),
        ("/v1/rag/docs/documents/secret.pdf", "/v1/rag/…"),
        ("/v1/agents/helper/runs", "/v1/agents/…"),
        ("/v1/files/file-1", "/v1/files/…"),
        ("/made/up", "unknown"),
    ],
)
def test_a_path_is_told_without_what_clients_put_into_it(path: str, shown: str) -> None:
    assert routing.template(path) == shown
