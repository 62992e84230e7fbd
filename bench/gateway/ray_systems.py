"""The systems that are Ray Serve: as it comes, and our gateway as the chart deploys it, on Ray nodes of their own."""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import ray

from bench.gateway.systems import Backend, CannotStart, Groups, System, redis, tree
from serve_apps.common.logging import CONTAINER_LOG
from serve_apps.common.secrets import new_api_key
from tools.demo.cluster import LocalCluster
from tools.demo.rendered import REPOSITORY, RenderedService, helm_template, ray_service
from tools.gotools import helm
from tools.ports import free_port

READY_TIMEOUT_S = 300
#: A process has one core in Python; vllm-router, beside it, has a thread for each.
GATEWAYS = psutil.cpu_count() or 1
#: How ray.serve.llm is told of another engine than vLLM's.
MOCK_ENGINE = {"RAYLLM_VLLM_ENGINE_CLS": "bench.gateway.stock.MockEngine"}
#: The deployments that are a model, by the part of a replica's name that says so.
MODEL_DEPLOYMENTS = ("MockModel", "LLMServer", "VLLMServer", ":Model")
#: Ray's own processes that bytes of a request pass through.
PROXIES = ("haproxy", "ray::ProxyActor", "ray::HAProxyManager", "ray::FallbackProxy")
#: Serve's replicas get ports from here, 1,000 for each node that is up, so that nodes do not take each other's. Those
#: above the kernel gives to whoever connects.
_REPLICA_PORTS = cycle(range(29000, 32000, 1000))


def node_environment() -> dict[str, str]:
    """What lets several nodes stand on one machine, each as busy with itself as it is in a cluster."""
    first = next(_REPLICA_PORTS)
    return {
        "RAY_metrics_report_interval_ms": "10000",  # Ray's default; the demo has metrics every two seconds
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 999),
    }


def processes(cluster: LocalCluster, application: str | None = None, extra: tuple[int, ...] = ()) -> Groups:
    """The node's processes by their part in a request; of its replicas only those of ``application``, if it is given.

    HAProxy and Serve's proxies (``proxy``) and every replica that is no model are in the path; Ray's own (raylet, GCS,
    controller, dashboard and its agents) stand around it. Replicas of other applications are elsewhere.
    """
    groups: Groups = {"path": list(extra), "proxy": [], "model": [], "around": [], "elsewhere": []}
    for process in node_processes(cluster):
        try:
            name = " ".join([process.name(), *process.cmdline()])
        except psutil.Error:
            continue
        groups[part_of(name, application)].append(process.pid)
    groups["path"] += groups["proxy"]
    return groups


def node_processes(cluster: LocalCluster) -> list[psutil.Process]:
    """Every process of a node: those that name its folder, and what they started."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            if any(str(cluster.folder) in word for word in process.cmdline()):
                found |= {one.pid: one for one in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue
    return list(found.values())


def part_of(name: str, application: str | None) -> str:
    """The group of a process on a Ray node, by its name and command line."""
    if "ray::ServeReplica:" in name:
        if application and f"ray::ServeReplica:{application}:" not in name:
            return "elsewhere"
        return "model" if any(one in name for one in MODEL_DEPLOYMENTS) else "path"
    if any(one in name for one in PROXIES):
        return "proxy"
    return "model" if any(one in name for one in ("VLLM", "EngineCore")) else "around"


@contextmanager
def stock() -> Iterator[list[System]]:
    """Ray Serve as it comes, twice: ray.serve.llm's default ingress, and a FastAPI deployment with a handle."""
    port = free_port()
    applications = {"llm": "/", "handle": "/handle"}
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {"name": name, "route_prefix": prefix, "import_path": f"bench.gateway.stock:build_{name}_app", "args": {}}
            for name, prefix in applications.items()
        ],
    }
    with LocalCluster({**node_environment(), **MOCK_ENGINE}, {}) as cluster:
        cluster.deploy(config)
        cluster.wait(list(applications), READY_TIMEOUT_S)
        node = partial(node_processes, cluster)
        yield [
            System("stock", "Ray Serve LLM, defaults", port, lambda: processes(cluster, "llm"), node=node),
            System(
                "handle",
                "Ray Serve, two deployments, defaults",
                port,
                lambda: processes(cluster, "handle"),
                prefix="/handle",
                node=node,
            ),
        ]


#: What "features on" adds: every limit there is, none of them ever reached, a price, and the audit log.
FEATURES: dict[str, Any] = {
    "args": {"auth": "apiKeys", "auditLog": True},
    "table": {
        "otherTenants": {
            "requestsPerMinute": 10_000_000,
            "tokensPerMinute": 10_000_000_000,
            "maxConcurrentRequests": 100_000,
            "monthlyBudget": 1e9,
        }
    },
    "model": {"price": {"prompt": 0.1, "completion": 0.3}},
}


def rendered(port: int) -> RenderedService:
    """What the chart deploys, rendered for this machine: a replica of the gateway for each core."""
    files = [REPOSITORY / "values" / "rag.yaml", REPOSITORY / "values" / "environments" / "local.yaml"]
    replicas = [f"gateway.replicas.{bound}={GATEWAYS}" for bound in ("min", "max")]
    return ray_service(helm_template(helm(), files, [f"gateway.port={port}", "gateway.host=0.0.0.0", *replicas]))


def node_address() -> str:
    """Where a client outside this machine would ask; there the gateway takes connections past HAProxy."""
    return str(ray.util.get_node_ip_address())


def wait_for_bypass(port: int) -> None:
    """Wait until every replica of the gateway listens at the node's address.

    Raises:
        CannotStart: one does not.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    while (listening := _listeners(port)) < GATEWAYS:
        if time.monotonic() > deadline:
            raise CannotStart(f"{listening} of {GATEWAYS} gateways listen at the node's address")
        time.sleep(0.1)


def _listeners(port: int) -> int:
    at = (node_address(), port)
    return sum(one.status == psutil.CONN_LISTEN and one.laddr == at for one in psutil.net_connections("tcp4"))


def gateway_application(
    service: RenderedService, models: dict[str, dict[str, Any]], features: str | None
) -> dict[str, Any]:
    """The chart's gateway application with other models behind it.

    Every option the chart sets stays; only who may call and what is counted is turned off, or on with ``features``, the
    address of a Redis.
    """
    application: dict[str, Any] = next(one for one in service.serve_config["applications"] if one["name"] == "gateway")
    deployment = application["deployments"][0]
    table = {**deployment["user_config"], "models": models}
    args = {**application["args"], "auth": "none", "auditLog": False}
    if features is not None:
        args |= FEATURES["args"] | {"redis": features}
        table |= FEATURES["table"]
        table["models"] = {name: model | FEATURES["model"] for name, model in models.items()}
    return {**application, "args": args, "deployments": [{**deployment, "user_config": table}]}


@contextmanager
def secrets_of(tenant: str) -> Iterator[tuple[Path, str]]:
    """A folder of secrets, and the API key of a tenant in it."""
    with tempfile.TemporaryDirectory(prefix="bench-secrets-") as folder:
        key = new_api_key(tenant)
        for name, content in {"internal/token": secrets.token_hex(32), f"api-keys/{key.key_id}": key.record}.items():
            file = Path(folder) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        yield Path(folder), key.key


@contextmanager
def container_log() -> Iterator[str]:
    """A pipe that is read into a file meanwhile, as a container's runtime does with its log."""
    with tempfile.TemporaryDirectory(prefix="bench-log-") as folder:
        pipe = Path(folder) / "pipe"
        os.mkfifo(pipe)
        with (
            (Path(folder) / "log").open("wb") as file,
            subprocess.Popen(["cat", pipe], stdout=file),
            pipe.open("wb"),  # so that it stays open from before the first replica until after the last
        ):
            yield str(pipe)


@contextmanager
def ours(behind: Backend, *, features: bool = False) -> Iterator[list[System]]:
    """The gateway as the chart deploys it, the mock model behind it as a Serve application and outside Ray."""
    port = free_port()
    service = rendered(port)
    name = "features" if features else "ours"
    with secrets_of("bench") as (folder, key), _redis(features) as (url, redis_pids), container_log() as log:
        models = {
            "mock": {"url": f"http://127.0.0.1:{port}/internal/mock", "task": "generate"},
            "plain": {"url": f"http://127.0.0.1:{behind.port}", "task": "generate", "runtime": "standalone"},
        }
        mock = {
            "name": "mock",
            "route_prefix": "/internal/mock",
            "import_path": "bench.gateway.replica:build_app",
            "args": {},
        }
        config = {
            **service.serve_config,
            "applications": [gateway_application(service, models, url), mock],
        }
        given = {"LLM_SERVING_SECRETS": str(folder), CONTAINER_LOG: log}
        environment = {**service.environment, **node_environment(), **given}
        with LocalCluster(environment, service.labels) as cluster:
            cluster.deploy(config)
            cluster.wait(["gateway", "mock"], READY_TIMEOUT_S)
            wait_for_bypass(port)
            headers = {"authorization": f"Bearer {key}"} if features else {}
            title = "this gateway" + (", auth + limits + metering" if features else "")

            def parts() -> Groups:
                return processes(cluster, extra=redis_pids)

            def outside() -> Groups:
                return {**processes(cluster, "gateway", redis_pids), "model": [behind.pid]}

            at, node = node_address(), partial(node_processes, cluster)
            outer = f"{title}, model outside Ray"
            systems = [
                System(name, title, port, parts, headers=headers, host=at, node=node),
                System(f"{name}-standalone", outer, port, outside, model="plain", headers=headers, host=at, node=node),
            ]
            if not features:
                systems.append(System("proxied", "this gateway, through Ray Serve's HAProxy", port, parts, node=node))
            yield systems


@contextmanager
def _redis(wanted: bool) -> Iterator[tuple[str | None, tuple[int, ...]]]:
    if not wanted:
        yield None, ()
        return
    with redis() as (url, pid):
        yield url, tuple(tree(pid))
