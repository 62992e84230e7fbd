"""Figures of PDF documents, from the upload to the model that sees."""

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from serve_apps.common.errors import Unavailable
from serve_apps.common.protocol import TENANT_HEADER
from serve_apps.rag import retriever
from tests.serve_apps.rag.conftest import RagServer
from tests.serve_apps.rag.fake_gateway import FakeGateway, refusal
from tests.serve_apps.rag.in_memory import InMemoryStore
from tests.serve_apps.rag.pdf import Page, pdf, picture, zigzag

Rag = Callable[..., RagServer]

QUESTION = "How long is the wing?"


def chart(colour: tuple[int, int, int]) -> bytes:
    """A JPEG of one colour."""
    file = BytesIO()
    Image.new("RGB", (80, 80), colour).save(file, "JPEG")
    return file.getvalue()


WING, BOAT = chart((200, 0, 0)), chart((0, 0, 200))


def on_page(file: bytes) -> bytes:
    return picture(80, 80, file, more="/Filter /DCTDecode")


#: Long enough for chunks of their own.
WINGS = "The wing is as long as the figure shows. " * 6
PAPER = pdf(
    "About this paper.", Page(WINGS, (on_page(WING),)), Page("The boat floats on water. " * 8, (on_page(BOAT),))
)


@pytest.fixture
def server(rag: Rag) -> RagServer:
    """A pipeline that sees, its documents in a file, and among them a paper with figures."""
    running = rag(stored=True, vision="eyes", topK=1, chunking={"maxTokens": 64, "overlapTokens": 0})
    send(running, PAPER)
    return running


def send(server: RagServer, content: bytes, name: str = "paper.pdf") -> None:
    server.client.post("/v1/rag/docs/documents", files={"files": (name, content)}).raise_for_status()


def asked(gateway: FakeGateway) -> tuple[str, Any]:
    """Who was asked last, and the parts of the question."""
    body = gateway.bodies("/v1/chat/completions")[-1]
    return body["model"], body["messages"][-1]["content"]


def shown(content: Any) -> list[bytes]:
    """The files among the parts."""
    if isinstance(content, str):
        return []
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    return [base64.b64decode(url.partition(";base64,")[2], validate=True) for url in urls]


def test_the_model_that_sees_gets_the_figure_beside_what_was_found(server: RagServer, gateway: FakeGateway) -> None:
    citation = server.ask(QUESTION).raise_for_status().json()["citations"][0]
    assert (citation["page"], citation["figures"]) == (2, [{"page": 2}])
    model, content = asked(gateway)
    assert (model, shown(content)) == ("eyes", [WING])
    assert content[1] == {"type": "text", "text": "Figure of source [1], page 2:"}
    annotations = server.chat("Which boat floats on water?").json()["choices"][0]["message"]["annotations"]
    assert [each["file_citation"]["figures"] for each in annotations] == [[{"page": 3}]]
    assert shown(asked(gateway)[1]) == [BOAT]


def test_a_page_with_a_chart_is_shown_as_it_looks(server: RagServer, gateway: FakeGateway) -> None:
    send(server, pdf("About this paper.", Page(WINGS, drawing=zigzag(200)), "The boat floats on water. " * 8))
    citation = server.ask(QUESTION).raise_for_status().json()["citations"][0]
    assert (citation["page"], citation["figures"]) == (2, [{"page": 2}])
    [page] = shown(asked(gateway)[1])
    colours = Image.open(BytesIO(page)).convert("RGB").getcolors()
    assert colours is not None
    assert {(255, 255, 255), (0, 0, 0), (255, 0, 0)} <= {colour for _, colour in colours}


def test_a_scanned_page_is_shown_beside_the_text_before_it(server: RagServer, gateway: FakeGateway) -> None:
    scan = picture(600, 400, bytes(600 * 400 * 4), space="/DeviceCMYK")
    send(server, pdf(WINGS, Page("", (scan,)), "The boat floats on water. " * 8))
    citation = server.ask(QUESTION).raise_for_status().json()["citations"][0]
    assert (citation["page"], citation["figures"]) == (1, [{"page": 2}])
    assert len(shown(asked(gateway)[1])) == 1


def test_without_a_figure_beside_the_sources_nobody_has_to_see(server: RagServer, gateway: FakeGateway) -> None:
    server.send({"id": "tea.md", "text": "Tea is a hot drink."}).raise_for_status()
    assert "figures" not in server.ask("Is tea a hot drink?").json()["citations"][0]
    assert asked(gateway)[0] == "chat"


def test_a_question_with_an_image_of_its_own_is_asked_with_that_alone(server: RagServer, gateway: FakeGateway) -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(BOAT).decode()}"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, image]}]
    server.client.post("/v1/chat/completions", json={"model": "docs", "messages": messages}).raise_for_status()
    assert shown(asked(gateway)[1]) == [BOAT]


def test_a_figure_goes_with_its_document(server: RagServer, gateway: FakeGateway) -> None:
    send(server, pdf(WINGS))
    server.ask(QUESTION).raise_for_status()
    assert asked(gateway)[0] == "chat"
    send(server, PAPER)
    server.client.delete("/v1/rag/docs/documents/paper.pdf").raise_for_status()
    send(server, pdf(WINGS), "other.pdf")
    server.ask(QUESTION).raise_for_status()
    assert asked(gateway)[0] == "chat"


def test_tenants_see_their_own_figures(rag: Rag, gateway: FakeGateway) -> None:
    server = rag(stored=True, vision="eyes", tenancy="tenant")
    for tenant, figure in (("acme", WING), ("other", BOAT)):
        server.client.headers[TENANT_HEADER] = tenant
        send(server, pdf(Page(WINGS, (on_page(figure),))))
    for tenant, figure in (("acme", WING), ("other", BOAT)):
        server.client.headers[TENANT_HEADER] = tenant
        server.ask(QUESTION).raise_for_status()
        assert shown(asked(gateway)[1]) == [figure]


@pytest.mark.parametrize(("most", "files"), [(0, 0), (1, 1), (8, 2)])
def test_as_many_figures_are_shown_as_there_may_be(rag: Rag, gateway: FakeGateway, most: int, files: int) -> None:
    server = rag(vision="eyes", maxFigures=most)
    send(server, pdf(Page(WINGS, (on_page(WING), on_page(BOAT)))))
    server.ask(QUESTION).raise_for_status()
    assert shown(asked(gateway)[1]) == [WING, BOAT][:files]


def test_figures_beyond_what_a_request_may_have_are_left_out(
    server: RagServer, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retriever, "MAX_FIGURES_BYTES", len(WING) - 1)
    server.ask(QUESTION).raise_for_status()
    assert asked(gateway)[0] == "chat"


def test_figures_that_cannot_be_read_cost_an_answer_nothing_else(rag: Rag, gateway: FakeGateway) -> None:
    server = rag(vision="eyes")
    send(server, PAPER)
    store = server.pipelines.find("docs", "acme").store
    assert isinstance(store, InMemoryStore)
    store.figure_failure = Unavailable("down")
    response = server.ask(QUESTION).raise_for_status()
    assert (response.headers["x-rag-degraded"], response.json()["degraded"]) == ("figures", ["figures"])
    assert asked(gateway)[0] == "chat"
    assert server.observed.degradations == [("docs", "figures")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("status", "problem"), [(503, "no replica"), (400, "the prompt is too long")])
def test_without_the_model_that_sees_another_answers_from_the_text(
    server: RagServer, gateway: FakeGateway, stream: bool, status: int, problem: str
) -> None:
    gateway.models_down["eyes"] = refusal(status, problem)
    answers = (server.ask(QUESTION, stream=stream), server.chat(QUESTION, stream=stream))
    for response in answers:
        assert (response.status_code, response.headers["x-rag-degraded"]) == (200, "vision"), response.text
        assert '"figures"' not in response.text
    assert [each["model"] for each in gateway.bodies("/v1/chat/completions")] == ["eyes", "chat"] * 2
    assert shown(asked(gateway)[1]) == []
    assert server.observed.degradations == [("docs", "vision")] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_sees_and_never_answers_costs_its_time_and_no_more(
    rag: Rag, gateway: FakeGateway, stream: bool
) -> None:
    server = rag(vision="eyes", visionTimeoutS=0.1)
    send(server, PAPER)
    gateway.hanging.add("eyes")
    response = server.chat(QUESTION, stream=stream)
    assert (response.status_code, response.headers["x-rag-degraded"]) == (200, "vision"), response.text
    assert asked(gateway)[0] == "chat"


def test_a_limit_that_is_reached_is_not_got_around(server: RagServer, gateway: FakeGateway) -> None:
    gateway.models_down["eyes"] = refusal(429, "too many requests")
    assert server.ask(QUESTION).status_code == 429
    assert [each["model"] for each in gateway.bodies("/v1/chat/completions")] == ["eyes"]
