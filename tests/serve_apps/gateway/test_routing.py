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
        ("GET", "/v1/models", "control"),
        ("GET", "/v1/models/chat", "control"),
        ("GET", "/readyz", "control"),
        ("POST", "/v1/rag/docs/query", "pipeline"),
        ("DELETE", "/v1/rag/docs/documents/a/b.md", "pipeline"),
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
        "/internal/chat/v1/completions",
    ],
)
def test_any_other_path_is_not_found(path: str) -> None:
    with pytest.raises(NotFound) as caught:
        routing.kind_of("POST", path)
    assert caught.value.code == "unknown_path"


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
    assert caught.value.message == 'The model "gpt-4" does not exist. Models here: chat, docs, embedder.'
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_model_that_does_not_answer_the_path_is_told_what_does() -> None:
    with pytest.raises(InvalidRequest) as caught:
        routing.model_route(TABLE, CHAT, "embedder")
    assert caught.value.message == (
        'The model "embedder" does not answer /v1/chat/completions; it answers /v1/embeddings. '
        "Models that answer /v1/chat/completions: chat, docs."
    )


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


@pytest.mark.parametrize("name", ["nothing", "chat", ""])
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
    ],
)
def test_only_documents_sent_in_are_uploads(method: str, path: str, upload: bool) -> None:
    assert routing.is_upload(method, path) is upload


def test_with_an_empty_table_there_is_no_model() -> None:
    with pytest.raises(NotFound, match=r"Models here: none\."):
        routing.model_route(RoutingTable(), CHAT, "chat")
