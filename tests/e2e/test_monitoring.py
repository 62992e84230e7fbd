"""A real Prometheus scrapes the release, told by the chart's own monitors; every panel and every alert has series."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.documents import SOURCE, cited, upload
from tests.e2e.evidence import FOLDER
from tests.e2e.night import NIGHT
from tests.e2e.release import CHANGE_TIMEOUT_S, Release, sdk
from tests.e2e.test_batches import jsonl, lines
from tests.e2e.waiting import until
from tools.cluster.control_plane import CONTROL
from tools.prometheus import expressions
from tools.prometheus.plot import draw
from tools.prometheus.proof import without_data
from tools.prometheus.scrape import KINDS, scrape_configs
from tools.prometheus.server import Prometheus, prometheus

logger = logging.getLogger(__name__)

#: What this cluster and this release do not have, of tools/prometheus/needs.yaml.
LACKING = ("gpu", "karpenter", "standalone", "milvus", "tools", "load", "incidents")
#: Everything to look at. The operator runs beside the cluster, and its Service stands in the release's namespace.
MONITORING = (
    *(f"monitoring.{what}.enabled=true" for what in ("podMonitor", "serviceMonitor", "dashboards", "alerts")),
    *(f"monitoring.{what}.interval=5s" for what in ("podMonitor", "serviceMonitor")),
)
#: What brings numbers that a quiet release has not: prices, a budget, and a model that does not answer, as a version
#: that is taken out, as a shadow, and asked for by its name. All of it is the gateway's routing table.
ROUTES = (
    "models.gone.runtime=external",
    "models.gone.url=http://127.0.0.1:9",
    "models.chat.price.prompt=1",
    "models.chat.price.completion=1",
    "gateway.tenants.admin.monthlyBudget=1000",
    "gateway.routes.assistant.versions[0].model=chat",
    "gateway.routes.assistant.versions[0].weight=50",
    "gateway.routes.assistant.versions[1].model=gone",
    "gateway.routes.assistant.versions[1].weight=50",
    "gateway.routes.assistant.sticky=none",
    "gateway.routes.assistant.fallback[0]=chat",
    "gateway.routes.assistant.shadow.model=gone",
    "gateway.routes.assistant.shadow.percent=100",
    "gateway.routes.assistant.canary.maxErrorRate=0",
    "gateway.routes.assistant.canary.minRequests=2",
    "gateway.routes.assistant.canary.windowS=600",
)
#: The name of KubeRay's operator, of its Service and in its label.
OPERATOR = "kuberay-operator"
BATCH = jsonl(lines("/v1/embeddings", model="embedder", input="a cat on a mat")).encode()
#: A few scrapes, and rounds of requests that a busy machine takes its time for.
PATIENCE_S = 900
#: Of the release, in its pictures.
DRAWN_S = 300


@pytest.mark.usefixtures("night")
def test_every_panel_and_every_alert_has_series(
    release: Release, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Prometheus finds the pods by the rendered monitors; every expression has data, or lacks what is listed."""
    if release.target.kind != "ours":
        pytest.skip("pods of this cluster are not reached from here, so a Prometheus here cannot scrape them")
    release.apply(*operator_service())
    settings = (*MONITORING, f"monitoring.serviceMonitor.operatorNamespace={release.namespace}")
    objects = release.rendered(*settings)
    configs = [
        config
        for one in objects
        if one["kind"] in KINDS
        for config in scrape_configs(one, release.namespace, release.target.kubeconfig)
    ]
    try:
        release.upgrade(*NIGHT, *ROUTES)
        with prometheus(tmp_path, configs, expressions.groups(objects)) as server, release.forwarded() as client:
            until("the routes are there", lambda: models(client), lambda found: "assistant" in found, CHANGE_TIMEOUT_S)
            upload(client)
            until("every monitor's targets are up", lambda: down(server, configs), lambda found: not found, PATIENCE_S)
            until("all rules are evaluated", lambda: unwell(server), lambda found: not found, PATIENCE_S)

            def missing() -> list[str]:
                ask(client)
                return without_data(server, objects, LACKING)

            until("every panel and every alert has series", missing, lambda found: not found, PATIENCE_S)
            record_property("measured", f"{len(server.targets())} targets, {len(server.rules())} alerts")
            FOLDER.mkdir(parents=True, exist_ok=True)
            for file in draw(server, expressions.dashboards(objects), FOLDER, DRAWN_S):
                logger.info("drawn: %s", file)
    finally:  # the steps after this one know nothing of these
        release.kubectl("delete", "service,endpointslice", OPERATOR)
        release.upgrade(*NIGHT)


def operator_service() -> list[dict[str, Any]]:
    """The Service of KubeRay's chart for its operator, by its label and port; here it leads beside the cluster."""
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": OPERATOR, "labels": {"app.kubernetes.io/name": OPERATOR}},
        "spec": {"clusterIP": "None", "ports": [port]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": OPERATOR, "labels": {"kubernetes.io/service-name": OPERATOR}},
        "addressType": "IPv4",
        "ports": [port],
        "endpoints": [{"addresses": [CONTROL.address]}],
    }
    return [service, endpoints]


def models(client: httpx.Client) -> list[str]:
    """The names of the models there are."""
    return [one["id"] for one in client.get("/v1/models").json()["data"]]


def ask(http: httpx.Client) -> None:
    """A round of requests: all that the panels of a healthy release are about, and some that fail."""
    with sdk(http) as client:
        client.embeddings.create(model="embedder", input="a cat on a mat")
        assert SOURCE in cited(client)
        file = client.files.create(file=("requests.jsonl", BATCH), purpose="batch")
        client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        client.chat.completions.create(model="helper", messages=[{"role": "user", "content": "What is 17 plus 25?"}])
        for model in ("chat", "assistant", "assistant", "gone", "nobody"):
            with contextlib.suppress(openai.APIStatusError):  # gone and nobody fail
                for _ in client.chat.completions.create(
                    model=model, stream=True, max_tokens=8, messages=[{"role": "user", "content": "Count to ten."}]
                ):
                    pass


def down(server: Prometheus, configs: list[dict[str, Any]]) -> list[str]:
    """Monitors that have found no target, and targets that are not scraped; why."""
    targets = server.targets()
    found = {one["scrapePool"] for one in targets}
    without = [f"{one['job_name']}: no target" for one in configs if one["job_name"] not in found]
    return without + [f"{one['scrapePool']}: {one['lastError']}" for one in targets if one["health"] != "up"]


def unwell(server: Prometheus) -> list[str]:
    """Rules that have not been evaluated without an error."""
    return [f"{one['name']}: {one.get('lastError', '')}" for one in server.rules() if one["health"] != "ok"]
