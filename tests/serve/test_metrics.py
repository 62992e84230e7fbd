"""Our metrics stand in the node's scrape under the names that dashboards and alerts use."""

import os
import re
import signal

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serve_apps.common.metrics import GATEWAY_DURATION, GATEWAY_REQUESTS, GATEWAY_TTFB, RAG_CHUNKS, RAG_STAGE, Metric
from tests.serve.conftest import Service
from tests.serve.waiting import until
from tools.demo.rendered import CHART


def exported(service: Service) -> dict[str, set[str]]:
    """The series of one scrape, each with the label names it carries."""
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(service.cluster.metrics()):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def sample_name(metric: Metric) -> str:
    """A sample's name that a metric always has."""
    return metric.series + ("_count" if metric.kind == "Histogram" else "")


def test_metrics_are_scraped_with_their_labels(service: Service) -> None:
    documents = {
        "documents": [{"id": "a.md", "text": "A lighthouse stands on the cliff.", "contentType": "text/plain"}]
    }
    upload = httpx.post(f"{service.root}/v1/rag/docs/documents", json=documents, headers=service.headers, timeout=60)
    assert upload.status_code == 200, upload.text
    assert service.chat("docs", max_tokens=2).status_code == 200
    wanted = [GATEWAY_REQUESTS, GATEWAY_TTFB, GATEWAY_DURATION, RAG_CHUNKS, RAG_STAGE]
    scrape = until(lambda: exported(service), lambda seen: {sample_name(metric) for metric in wanted} <= seen.keys())
    for metric in wanted:
        assert {*metric.tags, "application", "deployment", "replica"} <= scrape[sample_name(metric)]


def test_serves_own_series_that_alerts_are_about_are_scraped(service: Service) -> None:
    alerts = "".join(file.read_text() for file in (CHART / "alerts").glob("*.yaml"))
    wanted = set(re.findall(r"\bray_serve_\w+", alerts))
    assert wanted
    # The series of failed health checks begins with a replica that has died.
    (died,) = until(lambda: service.cluster.live_pids("chat", "VLLMServer:chat"), lambda seen: len(seen) == 1)
    os.kill(died, signal.SIGKILL)
    assert until(lambda: wanted & exported(service).keys(), lambda seen: seen == wanted)
    until(lambda: service.chat(max_tokens=1).status_code, lambda status: status == 200)


def test_a_bucket_is_named_as_the_alert_on_late_answers_has_it(service: Service) -> None:
    assert service.chat(max_tokens=1).status_code == 200
    bucket = f"{GATEWAY_TTFB.series}_bucket"
    (bound,) = set(re.findall(r'le="([^"]+)"', (CHART / "alerts" / "SlowFirstByte.yaml").read_text()))
    families = until(
        lambda: list(text_string_to_metric_families(service.cluster.metrics())),
        lambda found: any(sample.name == bucket for family in found for sample in family.samples),
    )
    bounds = {sample.labels["le"] for family in families for sample in family.samples if sample.name == bucket}
    assert bound in bounds
