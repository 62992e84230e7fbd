"""A release of the chart on the cluster: what Helm does with it, and what is seen of it from outside."""

import base64
import json
import logging
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml

from tests.e2e.waiting import until
from tools.cluster.target import Target
from tools.demo.rendered import CHART, REPOSITORY

logger = logging.getLogger(__name__)

#: Helm's own timeout for an install, and ours for what follows it, in seconds.
INSTALL_TIMEOUT_S = 900
#: For as long Helm itself waits.
WAIT = ("--wait", f"--timeout={INSTALL_TIMEOUT_S}s")
#: A change of the Serve config to be in force; engines that start meanwhile take a minute or two.
CHANGE_TIMEOUT_S = 600
#: Serve's states of a replica that serves.
LIVE = ("RUNNING", "UPDATING")
#: Serve's own deployment beside every proxy: it comes and goes with nodes, and no model or stream is in it.
ROUTER = "LLMRouter"
#: Prints what the head tells of Serve, to those who have Ray's token, as the head's container has.
SERVE_PROGRAM = """
import os, urllib.request
token = {"Authorization": "Bearer " + os.environ["RAY_AUTH_TOKEN"]}
request = urllib.request.Request("http://127.0.0.1:8265/api/serve/applications/", headers=token)
print(urllib.request.urlopen(request).read().decode())
"""
#: What `kubectl exec` runs on a head for that.
SERVE_API = ("--container=ray", "--", "python", "-c", SERVE_PROGRAM)
#: What `kubectl exec` runs on a Ray pod to find the workers that its raylet has killed: it looks at the memory that the
#: pod takes, and ends the youngest actors before the kernel ends the pod.
RAYLET_LOG = "/tmp/ray/session_latest/logs/raylet.out"
KILLED = ("--container=ray", "--", "grep", "-hE", "OOM kill reason|^Selected to kill", RAYLET_LOG)
#: For any answer: a request to a model that starts is held until it has started.
CLIENT_TIMEOUT_S = CHANGE_TIMEOUT_S


#: A helm that goes on by itself.
Begun = subprocess.Popen[str]


@dataclass(frozen=True)
class Running:
    """What runs of a release, by identity: two that are equal mean that nothing was replaced or restarted."""

    pods: dict[str, tuple[str, int]]
    """Each Ray pod's uid and the restarts of its containers."""
    replicas: dict[str, list[str]]
    """Each application's replicas, deployment by deployment."""


@dataclass(frozen=True)
class Release:
    """One release in its namespace."""

    target: Target
    namespace: str
    name: str
    files: Sequence[Path]
    """Its values files."""
    settings: Sequence[str] = ()
    """``--set`` arguments for every install and upgrade: what this cluster needs."""

    def also(self, *files: Path) -> "Release":
        """The same with more values files."""
        return replace(self, files=(*self.files, *files))

    # Helm

    def helm(self, *arguments: str, timeout_s: float = INSTALL_TIMEOUT_S + 60) -> str:
        """What helm prints.

        Raises:
            AssertionError: helm failed, or took longer than ``timeout_s``.
        """
        command = self._helm(*arguments)
        try:
            done = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=self.target.environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not within {timeout_s:.0f} s: {' '.join(command)}") from None
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def begin_install(self) -> Begun:
        """``helm install --wait``."""
        return self._begin("install", self.name, str(CHART), *self._values(), *WAIT)

    def finish_install(self, begun: Begun) -> None:
        """The end of ``begun``, then the wait that NOTES tell of."""
        self.finish(begun)
        self.wait_until_ready()

    def begin_uninstall(self) -> Begun:
        """``helm uninstall --wait``."""
        return self._begin("uninstall", self.name, *WAIT)

    def finish(self, begun: Begun) -> None:
        """The end of ``begun``, and that all went well."""
        printed, _ = begun.communicate(timeout=INSTALL_TIMEOUT_S + 60)
        assert begun.returncode == 0, f"{begun.args!r}\n{printed}"

    def _begin(self, *arguments: str) -> Begun:
        environment = self.target.environment()
        return subprocess.Popen(
            self._helm(*arguments),
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def upgrade(self, *settings: str, chart: Path = CHART) -> str:
        """A plain ``helm upgrade`` with ``settings`` over the release's values; what Helm printed."""
        return self.helm("upgrade", self.name, str(chart), *self._values(), *(f"--set={one}" for one in settings))

    def rendered(self, *settings: str) -> list[dict[str, Any]]:
        """What the release is made of, with ``settings``; nothing is changed."""
        printed = self.helm("template", self.name, str(CHART), *self._values(), *(f"--set={one}" for one in settings))
        return [one for one in yaml.safe_load_all(printed) if one]

    def installed(self) -> bool:
        """Whether it is there."""
        return self.name in self.helm("list", "--short").split()

    def _helm(self, *arguments: str) -> list[str]:
        command = ["helm", *arguments, "--namespace", self.namespace]
        logger.info(" ".join(command))
        return command

    def _values(self) -> list[str]:
        return [*(f"--values={file}" for file in self.files), *(f"--set={one}" for one in self.settings)]

    def wait_until_ready(self, timeout_s: float = INSTALL_TIMEOUT_S) -> None:
        """Wait for the RayService's condition Ready, as NOTES say, and for all of its applications.

        Ready tells of the Service's endpoints; the first is there before the last model is loaded.
        """
        self.kubectl(
            *("wait", f"rayservice/{self.name}", "--for=condition=Ready", f"--timeout={timeout_s:.0f}s"),
            timeout_s=timeout_s + 30,
        )
        self.wait_until_running(timeout_s)

    # Kubernetes

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True, timeout_s: float = 120) -> str:  # noqa: A002  # as in subprocess
        """What kubectl prints in the release's namespace."""
        return self.target.kubectl(*arguments, input=input, namespace=self.namespace, check=check, timeout_s=timeout_s)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change ``objects``."""
        self.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def objects(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """The objects of a kind; a selector is Kubernetes' own."""
        printed = self.kubectl("get", kind, "-o=json", *([f"--selector={selector}"] if selector else []))
        items: list[dict[str, Any]] = json.loads(printed)["items"]
        return items

    def rayservice(self) -> dict[str, Any]:
        """The RayService."""
        found: dict[str, Any] = json.loads(self.kubectl("get", f"rayservice/{self.name}", "-o=json"))
        return found

    def active_cluster(self) -> str:
        """The name of the RayCluster that serves."""
        name: str = self.rayservice().get("status", {}).get("activeServiceStatus", {}).get("rayClusterName", "")
        return name

    def pods(self, role: str = "") -> list[dict[str, Any]]:
        """The Ray pods, or those of one role: head, or a worker group's name."""
        selectors = [f"app.kubernetes.io/instance={self.name}"]
        if role:
            selectors.append("ray.io/node-type=head" if role == "head" else f"ray.io/group={role}")
        return self.objects("pods", ",".join([*selectors, "ray.io/cluster"]))

    def pod(self, role: str) -> str:
        """The name of the only pod of a role, as ``pods``."""
        (pod,) = self.pods(role)
        name: str = pod["metadata"]["name"]
        return name

    def killed_for_memory(self) -> str:
        """What the raylets of all pods say of workers that they have killed because a pod was at its limit."""
        said = (
            self.kubectl("exec", pod["metadata"]["name"], *KILLED, check=False) for pod in self.pods() if is_ready(pod)
        )
        return "\n".join(filter(None, map(str.strip, said)))

    def serve_image(self) -> str:
        """The image of the head: the programs of the tests run in it."""
        head = self.rayservice()["spec"]["rayClusterConfig"]["headGroupSpec"]
        image: str = head["template"]["spec"]["containers"][0]["image"]
        return image

    # Serve

    def applications(self) -> dict[str, dict[str, Any]]:
        """What Serve says of its applications, as soon as it says anything."""
        return until(f"the head of {self.name} answers", self._applications, bool, CHANGE_TIMEOUT_S)

    def statuses(self) -> dict[str, str]:
        """Each application's status, in Serve's words; nothing while its head is away."""
        return {name: application["status"] for name, application in self._applications().items()}

    def _applications(self) -> dict[str, dict[str, Any]]:
        printed = self.kubectl("exec", f"service/{self.name}-head-svc", *SERVE_API, check=False)
        try:
            applications: dict[str, dict[str, Any]] = json.loads(printed).get("applications", {})
        except json.JSONDecodeError:
            return {}
        return applications

    def wait_until_running(self, timeout_s: float = CHANGE_TIMEOUT_S) -> None:
        """Wait until every application of the Serve config runs."""
        until(
            f"all applications of {self.name} run",
            self.statuses,
            lambda statuses: statuses and set(statuses.values()) == {"RUNNING"},
            timeout_s,
        )

    def running(self) -> Running:
        """What runs now."""
        pods = {
            pod["metadata"]["name"]: (
                pod["metadata"]["uid"],
                sum(one["restartCount"] for one in pod["status"].get("containerStatuses", [])),
            )
            for pod in self.pods()
        }
        replicas = {
            name: sorted(
                replica["replica_id"]
                for deployment_name, deployment in application["deployments"].items()
                for replica in deployment["replicas"]
                if deployment_name != ROUTER and replica["state"] in LIVE
            )
            for name, application in self.applications().items()
        }
        return Running(pods, replicas)

    # Clients

    @property
    def service(self) -> str:
        """The Service that the chart's Ingress routes to."""
        return f"{self.name}-serve-svc"

    @property
    def service_url(self) -> str:
        """Its address inside the cluster."""
        return f"http://{self.service}:8000"

    def key(self) -> str:
        """The API key the chart made, read as NOTES say."""
        secret = json.loads(self.kubectl("get", "secret", f"{self.name}-initial-key", "-o=json"))
        return base64.b64decode(secret["data"]["key"]).decode()

    @contextmanager
    def forwarded(self) -> Iterator[httpx.Client]:
        """An HTTP client with a key, through ``kubectl port-forward`` to the Service."""
        command = ["kubectl", f"--namespace={self.namespace}", "port-forward", f"svc/{self.service}", ":8000"]
        with subprocess.Popen(
            command, env=self.target.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as forward:
            try:
                assert forward.stdout is not None
                told = forward.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", told)
                assert found, f"{' '.join(command)}: {told}{forward.stdout.read() if forward.poll() else ''}"
                with httpx.Client(
                    base_url=f"http://127.0.0.1:{found[1]}",
                    headers={"authorization": f"Bearer {self.key()}"},
                    timeout=CLIENT_TIMEOUT_S,
                ) as client:
                    yield client
            finally:
                forward.terminate()

    @contextmanager
    def client(self, max_retries: int = 0) -> Iterator[openai.OpenAI]:
        """The unmodified SDK, by the same way."""
        with self.forwarded() as http, sdk(http, max_retries) as client:
            yield client


def sdk(http: httpx.Client, max_retries: int = 0) -> openai.OpenAI:
    """The unmodified SDK, for the address and the key of ``http``."""
    key = http.headers["authorization"].removeprefix("Bearer ")
    return openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=max_retries)


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is Ready and stays."""
    conditions = pod["status"].get("conditions", [])
    going = "deletionTimestamp" in pod["metadata"]
    return not going and any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
