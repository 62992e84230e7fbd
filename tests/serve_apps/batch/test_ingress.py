"""The routes, asked by OpenAI's client."""

import json
import threading
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from serve_apps.common.protocol import INTERNAL_HEADER, TENANT_HEADER
from tests.serve_apps.batch.conftest import BatchApp, client_of, jsonl, line
from tests.serve_apps.batch.fake_gateway import TOKEN, Asked, FakeGateway, Says, echo, refuses
from tests.serve_apps.gateway.servers import PATIENCE_S, until

Start = Callable[..., BatchApp]


def test_a_batch_is_answered_line_by_line(batch_app: Start, gateway: FakeGateway) -> None:
    app = batch_app()
    batch = app.start(jsonl(line("a"), line("b")), metadata={"night": "1"})
    assert (batch.object, batch.status, batch.endpoint, batch.completion_window) == (
        "batch",
        "validating",
        "/v1/chat/completions",
        "24h",
    )
    assert batch.expires_at == batch.created_at + 24 * 3600
    ended = app.ended(batch)
    assert (ended.status, ended.errors, ended.error_file_id, ended.metadata) == (
        "completed",
        None,
        None,
        {"night": "1"},
    )
    assert ended.request_counts
    assert ended.request_counts.model_dump() == {"total": 2, "completed": 2, "failed": 0}
    assert ended.in_progress_at
    assert ended.finalizing_at
    assert ended.completed_at
    records = app.records(ended.output_file_id)
    assert sorted(records) == ["a", "b"]
    assert records["a"]["error"] is None
    assert records["a"]["response"]["status_code"] == 200
    assert records["a"]["response"]["body"]["choices"][0]["message"]["content"] == "a"
    assert records["a"]["id"] == records["a"]["response"]["request_id"]
    assert {(asked.tenant, asked.background) for asked in gateway.asked} == {("acme", True)}
    assert {asked.request_id for asked in gateway.asked} == {record["id"] for record in records.values()}
    until(lambda: app.observed.endings == ["completed"])  # told a moment after it is stored


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [("/v1/completions", {"model": "chat", "prompt": "x"}), ("/v1/embeddings", {"model": "embedder", "input": "x"})],
)
def test_completions_and_embeddings_are_answered_too(
    batch_app: Start, gateway: FakeGateway, endpoint: str, body: dict[str, Any]
) -> None:
    app = batch_app()
    ended = app.ended(app.start(jsonl(line("a", url=endpoint, body=body)), endpoint))
    assert ended.status == "completed"
    assert (gateway.asked[0].path, gateway.asked[0].body) == (endpoint, body)


def test_lines_that_models_refuse_are_in_the_error_file(batch_app: Start, gateway: FakeGateway) -> None:
    gateway.answer = lambda asked: echo(asked) if asked.said == "a" else refuses(404, "model_not_found")
    app = batch_app()
    ended = app.ended(app.start(jsonl(line("a"), line("x"))))
    assert ended.status == "completed"
    assert ended.request_counts
    assert ended.request_counts.model_dump() == {"total": 2, "completed": 1, "failed": 1}
    assert list(app.records(ended.output_file_id)) == ["a"]
    response = app.records(ended.error_file_id)["x"]["response"]
    assert (response["status_code"], response["body"]["error"]["code"]) == (404, "model_not_found")


def test_a_file_with_wrong_lines_fails_with_each_and_runs_none(batch_app: Start, gateway: FakeGateway) -> None:
    app = batch_app()
    content = jsonl(line("a"), line("a"), line("b", url="/v1/embeddings"), line("c", method="GET")) + b"{\n"
    ended = app.ended(app.start(content))
    assert ended.status == "failed"
    assert ended.failed_at
    assert ended.errors
    assert [(error.line, error.code, error.param) for error in ended.errors.data or []] == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "invalid_url", "url"),
        (4, "invalid_method", "method"),
        (5, "invalid_json_line", None),
    ]
    assert gateway.asked == []


def test_a_cancelled_batch_keeps_what_is_answered(batch_app: Start, gateway: FakeGateway) -> None:
    held = threading.Event()

    def answer(asked: Asked) -> Says:
        held.set()
        return echo(asked) if asked.said == "a" else refuses(503, "model_unavailable", retry_after="60")

    gateway.answer = answer
    app = batch_app()
    batch = app.start(jsonl(line("a"), line("x"), line("y")))
    assert held.wait(20)
    cancelling = app.client.batches.cancel(batch.id)
    assert (cancelling.status, bool(cancelling.cancelling_at)) == ("cancelling", True)
    ended = app.ended(batch)
    assert (ended.status, bool(ended.cancelled_at), bool(ended.cancelling_at)) == ("cancelled", True, True)
    errors = app.records(ended.error_file_id)
    assert {"x", "y"} <= set(errors) <= {"a", "x", "y"}
    assert (errors["x"]["response"], errors["x"]["error"]["code"]) == (None, "batch_cancelled")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'cancelled'"):
        app.client.batches.cancel(batch.id)


def test_other_tenants_find_nothing(batch_app: Start) -> None:
    app = batch_app()
    batch = app.ended(app.start(jsonl(line("a"))))
    assert batch.output_file_id
    with client_of(app.url, "other") as other:
        for ask in (
            lambda: other.files.retrieve(batch.input_file_id),
            lambda: other.files.content(batch.output_file_id or ""),
            lambda: other.files.delete(batch.input_file_id),
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
        ):
            with pytest.raises(openai.NotFoundError):
                ask()
        assert other.files.list().data == []
        assert other.batches.list().data == []
        with pytest.raises(openai.BadRequestError, match="No such File object"):
            other.batches.create(
                input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
    assert app.client.files.retrieve(batch.input_file_id).id == batch.input_file_id


def test_batches_are_listed_newest_first_page_by_page(batch_app: Start) -> None:
    app = batch_app()
    started = [app.start(jsonl(line("a"))).id for _ in range(3)]
    first = app.client.batches.list(limit=2)
    assert ([batch.id for batch in first.data], first.has_more) == ([started[2], started[1]], True)
    second = app.client.batches.list(limit=2, after=first.data[-1].id)
    assert ([batch.id for batch in second.data], second.has_more) == ([started[0]], False)
    assert [batch.id for batch in app.client.batches.list(limit=1)] == started[::-1]  # the client's own paging


def test_files_are_listed_read_and_deleted(batch_app: Start) -> None:
    app = batch_app()
    content = jsonl(line("a"))
    first, second = app.upload(content), app.upload(content)
    assert [file.id for file in app.client.files.list()] == [second, first]
    assert [file.id for file in app.client.files.list(order="asc", limit=1)] == [first, second]
    assert app.client.files.list(purpose="batch_output").data == []
    file = app.client.files.retrieve(first)
    assert (file.bytes, file.filename, file.purpose, file.object) == (len(content), "in.jsonl", "batch", "file")
    assert file.expires_at == file.created_at + 720 * 3600
    response = app.client.files.content(first)
    assert response.content == content
    assert response.response.headers["content-disposition"] == "attachment; filename*=UTF-8''in.jsonl"
    assert app.client.files.delete(first).deleted
    with pytest.raises(openai.NotFoundError, match="No such File object"):
        app.client.files.content(first)


def test_a_client_may_have_its_files_kept_for_less(batch_app: Start) -> None:
    app = batch_app()
    kept = app.upload(jsonl(line("a")), expires_after={"anchor": "created_at", "seconds": 100_000})
    file = app.client.files.retrieve(kept)
    assert file.expires_at == file.created_at + 100_000
    batch = app.client.batches.create(
        input_file_id=kept,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 3600},
    )
    output = app.client.files.retrieve(app.ended(batch).output_file_id or "")
    assert output.expires_at == output.created_at + 3600


def test_an_input_must_outlive_the_window_of_its_batch(batch_app: Start) -> None:
    app = batch_app()
    kept = app.upload(jsonl(line("a")), expires_after={"anchor": "created_at", "seconds": 88_000})
    ask: dict[str, Any] = {"input_file_id": kept, "endpoint": "/v1/chat/completions"}
    with pytest.raises(openai.BadRequestError, match="expires within an hour after the completion window"):
        app.client.batches.create(completion_window="24h", **ask)
    assert app.client.batches.create(completion_window="23h", **ask).status == "validating"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "content", "problem"),
    [({"max_file_bytes": 1024}, b"x" * 1025, "larger than the 1024 bytes"), ({}, b"", "The file is empty")],
)
def test_a_file_that_is_too_large_or_empty_is_refused(
    batch_app: Start, settings: dict[str, Any], content: bytes, problem: str
) -> None:
    app = batch_app(**settings)
    with pytest.raises(openai.APIStatusError, match=problem):
        app.upload(content)
    assert app.client.files.list().data == []


def test_a_file_of_the_largest_size_is_taken(batch_app: Start) -> None:
    app = batch_app(max_file_bytes=1024)
    assert app.client.files.retrieve(app.upload(b"x" * 1024)).bytes == 1024


def test_a_tenants_files_have_so_much_room_and_others_their_own(batch_app: Start) -> None:
    app = batch_app(max_stored_bytes=2000)
    first = app.upload(b"x" * 1000)
    with pytest.raises(openai.APIStatusError, match="delete some") as refused:
        app.upload(b"x" * 1000)  # what is known of a file takes some, too
    assert (refused.value.status_code, refused.value.code) == (413, "storage_limit_exceeded")
    assert [file.id for file in app.client.files.list()] == [first]
    with client_of(app.url, "other") as other:
        other.files.create(file=("in.jsonl", b"x" * 1000), purpose="batch")
    app.client.files.delete(first)
    assert app.client.files.retrieve(app.upload(b"x" * 1000)).bytes == 1000


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/audio/transcriptions"}, "endpoint"),
        ({"completion_window": "24"}, "completion_window"),
        ({"completion_window": "30d"}, "completion_window"),
        ({"completion_window": None}, "completion_window"),
        ({"input_file_id": "file-../../x"}, "input_file_id"),
        ({"metadata": {"key": "v" * 513}}, "metadata"),
        ({"metadata": {"key": 1}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
    ],
)
def test_a_wrong_batch_is_refused_with_its_parameter(batch_app: Start, changes: dict[str, Any], param: str) -> None:
    app = batch_app()
    body = {
        "input_file_id": app.upload(jsonl(line("a"))),
        "endpoint": "/v1/chat/completions",
        "completion_window": "1h",
    }
    assert app.client.post("/batches", body=body, cast_to=httpx.Response).status_code == 200
    with pytest.raises(openai.BadRequestError) as refused:
        app.client.post("/batches", body=body | changes, cast_to=httpx.Response)
    assert refused.value.param == param


def test_only_the_gateway_may_ask_and_only_for_these_paths(batch_app: Start) -> None:
    app = batch_app()
    headers = {INTERNAL_HEADER: TOKEN, TENANT_HEADER: "acme"}
    with httpx.Client(base_url=app.url, timeout=PATIENCE_S) as client:
        assert client.get("/v1/files", headers=headers).status_code == 200
        assert client.get("/v1/files", headers={TENANT_HEADER: "acme"}).status_code == 401
        assert client.get("/metrics", headers=headers).status_code == 404
        assert client.put("/v1/files", headers=headers).status_code == 405
        wrong = client.post("/v1/files", headers=headers, data={"purpose": "batch"})
    assert (wrong.status_code, json.loads(wrong.text)["error"]["param"]) == (400, "file")
