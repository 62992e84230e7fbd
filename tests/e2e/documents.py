"""The documents of the steps, and a question only one of them answers."""

import httpx
import openai

from tools.demo.rendered import REPOSITORY

QUESTION = "Which component is the only way in?"
#: The document that says it, as it is named in the store.
SOURCE = "docs/architecture.md"
DOCUMENTS = (SOURCE, "values/README.md", "images/ray-serve/README.md")


def upload(client: httpx.Client) -> None:
    """Post the documents to the pipeline ``docs``."""
    files = [("files", (name, (REPOSITORY / name).read_bytes(), "text/markdown")) for name in DOCUMENTS]
    answer = client.post("/v1/rag/docs/documents", files=files)
    assert answer.status_code == 200, answer.text
    assert sorted(document["id"] for document in answer.json()["documents"]) == sorted(DOCUMENTS)


def cited(client: openai.OpenAI) -> list[str]:
    """Ask the pipeline the question; the documents its answer cites."""
    answer = client.chat.completions.create(model="docs", messages=[{"role": "user", "content": QUESTION}])
    assert answer.choices[0].message.content
    notes = answer.choices[0].message.model_dump()["annotations"] or []
    return [note["file_citation"]["document"] for note in notes]
