"""A real Prometheus scrapes the node: panels and alerts have series, apart from what needs more than this node."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from serve_apps.common.metrics import GATEWAY_WAITING
from tests.serve.conftest import VALUES, Service
from tests.serve.test_autoscaling import load
from tests.serve.waiting import until
from tools.demo.rendered import helm_template
from tools.gotools import helm
from tools.prometheus.proof import without_data
from tools.prometheus.scrape import static
from tools.prometheus.server import prometheus

#: What one node with a fake engine does not have, of tools/prometheus/needs.yaml.
LACKING = ("gpu", "karpenter", "kuberay", "engines", "standalone", "milvus", "agent", "redis", "routes", "incidents")
#: Also how long Ray's agent may take to answer: on a busy machine a second and more.
SCRAPE_INTERVAL = "5s"
#: Of the model chat, two replicas of it (values.yaml).
MORE_THAN_IT_WORKS_ON = 12
LINE = {
    "custom_id": "line",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "chat", "messages": [{"role": "user", "content": "count"}], "max_tokens": 2},
}


def test_every_panel_and_every_alert_has_series(service: Service, tmp_path: Path) -> None:
    settings = ["monitoring.dashboards.enabled=true", "monitoring.alerts.enabled=true"]
    objects = helm_template(helm(), VALUES, settings)
    url = httpx.URL(service.cluster.metrics_url)
    labels = {"ray_io_cluster": "local", "namespace": "llm"}
    configs = [static("ray", [f"{url.host}:{url.port}"], labels, SCRAPE_INTERVAL)]
    # Only two replicas have room for so much that the others wait at the gateway.
    with load(service, clients=MORE_THAN_IT_WORKS_ON):
        until(lambda: GATEWAY_WAITING.series in service.cluster.metrics(), lambda seen: seen)
    with prometheus(tmp_path, configs) as server:

        def missing() -> list[str]:
            ask(service)
            return without_data(server, objects, LACKING)

        until(missing, lambda found: not found)


def ask(service: Service) -> None:
    """A round of requests; one is refused."""
    document = {"id": "a.md", "text": "A lighthouse stands on the cliff.", "contentType": "text/plain"}
    documents = {"documents": [document]}
    upload = httpx.post(f"{service.root}/v1/rag/docs/documents", json=documents, headers=service.headers, timeout=60)
    assert upload.status_code == 200, upload.text
    assert service.chat("docs", max_tokens=2).status_code == 200
    assert service.chat("nobody").status_code == 404
    with ThreadPoolExecutor(MORE_THAN_IT_WORKS_ON) as callers:
        answers = callers.map(lambda _: service.chat(max_tokens=2).status_code, range(MORE_THAN_IT_WORKS_ON))
        assert set(answers) <= {200, 429}
    with service.client() as client:
        for _ in client.chat.completions.create(
            model="chat", stream=True, max_tokens=3, messages=[{"role": "user", "content": "count"}]
        ):
            pass
        file = client.files.create(file=("requests.jsonl", json.dumps(LINE).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        until(lambda: client.batches.retrieve(batch.id), lambda seen: seen.status == "completed")
