"""The rendered Serve config on real Ray, Serve and HAProxy; only the engine inside the models is fake."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serve_apps.common.secrets import new_api_key
from tests.serve.waiting import PATIENCE_S
from tools.demo.cluster import LocalCluster, serving
from tools.demo.rendered import REPOSITORY, helm_template, ray_service
from tools.gotools import helm
from tools.ports import free_port

#: By name: importing it here would import Ray and vLLM into the tests' own process.
FAKE_ENGINE = "tests.serve_apps.llm.fake_engine.FakeEngine"
VALUES = [
    REPOSITORY / "values" / "rag.yaml",
    REPOSITORY / "values" / "environments" / "local.yaml",
    REPOSITORY / "tests" / "serve" / "values.yaml",
]


@dataclass(frozen=True)
class Service:
    """A running service and what its clients need."""

    cluster: LocalCluster
    config: dict[str, Any]
    key: str
    journal: Path

    @property
    def root(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.config['http_options']['port']}"

    @property
    def headers(self) -> dict[str, str]:
        """What authenticates a client."""
        return {"authorization": f"Bearer {self.key}"}

    def client(self, **options: Any) -> openai.OpenAI:
        """The unmodified SDK, without retries of its own."""
        return openai.OpenAI(base_url=f"{self.root}/v1", api_key=self.key, max_retries=0, **options)

    def chat(self, model: str = "chat", **options: Any) -> httpx.Response:
        """One chat completion over plain HTTP."""
        body = {"model": model, "messages": [{"role": "user", "content": "count"}], **options}
        return httpx.post(f"{self.root}/v1/chat/completions", json=body, headers=self.headers, timeout=PATIENCE_S)

    def application(self, name: str) -> dict[str, Any]:
        """The part of the config that describes one application."""
        found: dict[str, Any] = next(one for one in self.config["applications"] if one["name"] == name)
        return found


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The preset rag with tests/serve/values.yaml, deployed."""
    folder = tmp_path_factory.mktemp("serve")
    key = new_api_key("tester")
    for name, content in {"internal/token": "internal-secret", f"api-keys/{key.key_id}": key.record}.items():
        (folder / "secrets" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "secrets" / name).write_text(content)
    settings = [f"gateway.port={free_port()}", f"batch.storage=file://{folder}/batches"]
    rendered = ray_service(helm_template(helm(), VALUES, settings))
    environment = {
        **rendered.environment,
        "LLM_SERVING_SECRETS": str(folder / "secrets"),
        "LLM_SERVING_DATA": str(folder),
        "RAYLLM_VLLM_ENGINE_CLS": FAKE_ENGINE,
        "FAKE_TOKEN_S": "0.2",
        "FAKE_START_S": "1",
        "FAKE_JOURNAL": str(folder / "journal"),
    }
    (folder / "journal").touch()
    with serving(rendered.serve_config, environment, rendered.labels) as cluster:
        yield Service(cluster, rendered.serve_config, key.key, folder / "journal")
