"""The documents of the steps, and a question only one of them answers."""

import httpx
import openai

from tools.demo.rendered import REPOSITORY

QUESTION = "Which component is the only way in?"
#: The document that says it, as it is named in the store.
SOURCE = "docs/architecture.md"
DOCUMENTS = (SOURCE, "values/README.md", "images/ray-serve/README.md")


def post(client: httpx.Client, pipeline: str = "docs") -> httpx.Response:
    """Post the documents to a pipeline."""
    files = [("files", (name, (REPOSITORY / name).read_bytes(), "text/markdown")) for name in DOCUMENTS]
    return client.post(f"/v1/rag/{pipeline}/documents", files=files)


def upload(client: httpx.Client) -> None:
    """Have the pipeline ``docs`` take the documents in."""
    answer = post(client)
    assert answer.status_code == 200, answer.text
    assert sorted(document["id"] for document in answer.json()["documents"]) == sorted(DOCUMENTS)


def cited(client: openai.OpenAI, pipeline: str = "docs") -> list[str]:
    """Ask a pipeline the question; the documents its answer cites."""
    answer = client.chat.completions.create(model=pipeline, messages=[{"role": "user", "content": QUESTION}])
    assert answer.choices[0].message.content
    notes = answer.choices[0].message.model_dump()["annotations"] or []
    return [note["file_citation"]["document"] for note in notes]
