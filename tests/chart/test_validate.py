"""Every rule of _validate*.tpl: values that break it, with the whole message, and values nearby that do not."""

import re
from copy import deepcopy
from typing import Any

import pytest

from tests.chart.render import CHAT, DOCS, EMBEDDER, RERANKER, RenderRefused, render_chart

MODELS: dict[str, Any] = {"chat": CHAT, "embedder": EMBEDDER, "reranker": RERANKER}
TOOL_PARSER = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
GET_CITY = {"city": {"path": "/{city}", "description": "A city."}}
POST_CITY = {"city": {"path": "/{city}", "description": "A city.", "method": "POST"}}
GPU_TYPES = "A100-40G, A100-80G, A10G, B200, B300, GB200, GB300, H100, H200, L4, L40S, T4, cpu"


#: What a model on CPUs has, and the group that it needs.
CPU = {"type": "cpu", "count": 2}
CPU_GROUP = {"workerGroups": {"cpu-models": {"enabled": True}}}


def chat(**more: Any) -> dict[str, Any]:
    return {"models": {"chat": {**CHAT, **more}}}


def docs(**more: Any) -> dict[str, Any]:
    return {"models": MODELS, "rag": {"docs": {**DOCS, **more}}}


def agent(name: str = "helper", **more: Any) -> dict[str, Any]:
    models = {**MODELS, "tooled": {**CHAT, "engine": {"extra": TOOL_PARSER}}}
    return {"models": models, "rag": {"docs": DOCS}, "agent": {name: {"model": "chat", **more}}}


def batch(storage: str = "s3://bucket/batches", more: dict[str, Any] | None = None, **block: Any) -> dict[str, Any]:
    return {"models": MODELS, "batch": {"enabled": True, "storage": storage, **block}, **(more or {})}


def job(**more: Any) -> dict[str, Any]:
    whole = {"model": "chat", "input": "s3://bucket/in.jsonl", "output": "s3://bucket/out", **more}
    return {"models": MODELS, "batch": {"jobs": {"night": whole}}}


def tool(**kinds: Any) -> dict[str, Any]:
    return agent(tools={"it": kinds})


SAY: dict[str, Any] = {"say": "Done."}


def graph(start: str, **steps: Any) -> dict[str, Any]:
    return agent(tools={"sum": {"calculator": {}}}, graph={"start": start, "steps": steps})


def ask(*ways: str | dict[str, Any]) -> dict[str, Any]:
    """A step that goes on by these ways."""
    return {"ask": {}, "next": [{"to": way} if isinstance(way, str) else way for way in ways]}


def l40s(count: int, **more: Any) -> dict[str, Any]:
    return chat(accelerator={"type": "L40S", "count": count}, **more)


def on_cpu(**more: Any) -> dict[str, Any]:
    return {**chat(accelerator={"type": "cpu"}, **more), "workerGroups": {"cpu-models": {"enabled": True}}}


def group(name: str, **more: Any) -> dict[str, Any]:
    return {"workerGroups": {name: more}}


#: Two workers on demand, and more of the same on spot.
SPOT: dict[str, Any] = {
    "workerGroups": {
        "l4": {"minReplicas": 2, "maxReplicas": 2},
        "l4-spot": {"order": 100, "accelerator": {"type": "L4"}, "maxReplicas": 4},
    }
}


def elsewhere(runtime: str, **more: Any) -> dict[str, Any]:
    return {"models": {"provider": {"runtime": runtime, "url": "https://api.example.com", **more}}}


def route(**more: Any) -> dict[str, Any]:
    """A route with two versions, one of them elsewhere."""
    versions = [{"model": "chat", "weight": 90}, {"model": "provider", "weight": 10}]
    models = {**MODELS, **elsewhere("external")["models"]}
    return {"models": models, "gateway": {"routes": {"assistant": {"versions": versions, **more}}}}


def aliases(**of_routes: list[str]) -> dict[str, Any]:
    routes = {name: {"versions": [{"model": "chat"}], "aliases": names} for name, names in of_routes.items()}
    return {"models": MODELS, "gateway": {"routes": routes}}


def tenant(**more: Any) -> dict[str, Any]:
    return {"models": MODELS, "gateway": {"tenants": {"team-a": more}}}


def lora(adapters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A chat model with adapters."""
    found = {"sql": {"source": "s3://adapters/sql"}} if adapters is None else adapters
    return chat(lora={"adapters": found, **more})


def ingress(host: str, **more: Any) -> dict[str, Any]:
    """An Ingress whose controller may reach the gateway."""
    clients: dict[str, Any] = {"networkPolicy": {"clients": [{"namespaceSelector": {}}]}}
    return {"ingress": {"enabled": True, "host": host}, **clients, **more}


def http_route(parents: Any = None, hostnames: Any = None, **more: Any) -> dict[str, Any]:
    """An HTTPRoute whose controller may reach the gateway."""
    route = {
        "enabled": True,
        "parentRefs": [{"name": "public"}] if parents is None else parents,
        "hostnames": ["llm.example.com"] if hostnames is None else hostnames,
    }
    clients: dict[str, Any] = {"networkPolicy": {"clients": [{"namespaceSelector": {}}]}}
    return {"httpRoute": route, **clients, **more}


def dashboard(
    host: str = "ray.example.com", tls: Any = None, auth: str = "token", annotations: Any = None, **more: Any
) -> dict[str, Any]:
    """An Ingress to the dashboard whose controller may reach it."""
    found = [{"secretName": "ray-tls", "hosts": ["ray.example.com"]}] if tls is None else tls
    ingress = {"enabled": True, "host": host, "tls": found, "annotations": annotations or {}}
    clients: dict[str, Any] = {"networkPolicy": {"dashboardClients": [{"namespaceSelector": {}}]}}
    return {"dashboard": {"auth": auth, "ingress": ingress}, **clients, **more}


#: Where the External Secrets Operator fetches from.
STORE = {"externalSecrets": {"store": {"name": "vault"}}}


def ray_container(owner: str, **more: Any) -> dict[str, Any]:
    return overlay(owner, {"spec": {"containers": [{"name": "ray", **more}]}})


def overlay(owner: str, template: dict[str, Any]) -> dict[str, Any]:
    if owner == "head":
        return {"head": {"podTemplate": template}}
    return group(owner, podTemplate=template)


#: name of the rule: (values that break it, the message, values nearby that do not)
RULES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "a fullname of 48 characters": (
        {"fullnameOverride": "a" * 48},
        f"fullnameOverride: KubeRay allows 47 characters for the RayService's name, got 48 ({'a' * 48}); "
        "set a shorter fullnameOverride or release name",
        {"fullnameOverride": "a" * 47},
    ),
    "a fullname that starts with a digit": (
        {"fullnameOverride": "1st"},
        "fullnameOverride: a RayService's name starts with a letter and has only lower-case letters, digits and "
        "dashes, got 1st; set fullnameOverride",
        {"fullnameOverride": "first-1"},
    ),
    "a model's name in capitals": (
        {"models": {"Chat": CHAT}},
        'models: not a name, got "Chat"; use lower-case letters, digits and dashes, at most 47',
        {"models": {"chat-2": CHAT}},
    ),
    "a pipeline's name with a dot": (
        {"models": MODELS, "rag": {"docs.v1": DOCS}},
        'rag: not a name, got "docs.v1"; use lower-case letters, digits and dashes, at most 47',
        {"models": MODELS, "rag": {"docs-v1": DOCS}},
    ),
    "a worker group's name with an underscore": (
        group("my_group", pipelines=True),
        'workerGroups: not a name, got "my_group"; use lower-case letters, digits and dashes, at most 47',
        group("my-group", pipelines=True),
    ),
    "an override's name too long": (
        {"overrides": {"models": {"a" * 48: {}}}},
        f'overrides.models: not a name, got "{"a" * 48}"; use lower-case letters, digits and dashes, at most 47',
        {"overrides": {"models": {"a" * 47: {}}}},
    ),
    "an agent's name with a dot": (
        agent("helper.v1"),
        'agent: not a name, got "helper.v1"; use lower-case letters, digits and dashes, at most 47',
        agent("helper-v1"),
    ),
    "an agent with a model's name": (
        agent("tooled"),
        "models.tooled: agent.tooled is published as a model of the same name; rename one",
        agent("tools"),
    ),
    "an agent with a pipeline's name": (
        agent("docs"),
        "agent.docs: rag.docs is published as a model of the same name; rename one",
        agent("docs-helper"),
    ),
    "an agent over no model": (
        agent(model="caht"),
        "agent.helper.model: no model of task generate, got caht; one of: chat, tooled",
        agent(model="chat"),
    ),
    "an agent over an embedder": (
        agent(model="embedder"),
        "agent.helper.model: no model of task generate, got embedder; one of: chat, tooled",
        {**agent(model="assistant"), "gateway": {"routes": {"assistant": {"versions": [{"model": "chat"}]}}}},
    ),
    "an agent that calls natively over a model without a parser": (
        agent(toolCalling="native"),
        "agent.helper.toolCalling: native needs a tool parser, and models.chat has none; set models.chat.engine.extra "
        "{enable_auto_tool_choice: true, tool_call_parser: …}, or toolCalling json",
        agent(toolCalling="native", model="tooled"),
    ),
    "an agent that calls natively over a route one version of which has no parser": (
        {
            **agent(toolCalling="native", model="assistant"),
            "gateway": {"routes": {"assistant": {"versions": [{"model": "tooled"}, {"model": "chat"}]}}},
        },
        "agent.helper.toolCalling: native needs a tool parser, and models.chat has none; set models.chat.engine.extra "
        "{enable_auto_tool_choice: true, tool_call_parser: …}, or toolCalling json",
        {
            **agent(toolCalling="native", model="assistant"),
            "gateway": {"routes": {"assistant": {"versions": [{"model": "tooled"}]}}},
        },
    ),
    "a tool's name with a dot": (
        agent(tools={"calc.v1": {"calculator": {}}}),
        "agent.helper.tools.calc.v1: not a tool's name; use letters, digits, dashes and underscores, at most 30",
        agent(tools={"calc_v1": {"calculator": {}}}),
    ),
    "a tool with the word for answering": (
        agent(tools={"answer": {"calculator": {}}}),
        "agent.helper.tools.answer: the word by which a model says that it answers; choose another name",
        agent(tools={"answers": {"calculator": {}}}),
    ),
    "a tool of no kind": (
        tool(description="Does nothing."),
        "agent.helper.tools.it: one kind of calculator, http, mcp, rag; got none",
        tool(calculator={}),
    ),
    "a tool of two kinds": (
        tool(calculator={}, rag={"pipeline": "docs"}),
        "agent.helper.tools.it: one kind of calculator, http, mcp, rag; got calculator, rag",
        tool(calculator=None, rag={"pipeline": "docs"}),
    ),
    "a tool of no pipeline": (
        tool(rag={"pipeline": "wiki"}),
        "agent.helper.tools.it.rag.pipeline: no such enabled pipeline, got wiki; one of: docs",
        tool(rag={"pipeline": "docs"}),
    ),
    "a server with nothing to call": (
        tool(http={"url": "https://api.example.com"}),
        "agent.helper.tools.it.http: nothing to call; set operations or openapi",
        tool(http={"url": "https://api.example.com", "operations": GET_CITY}),
    ),
    "an operation with a method that is not allowed": (
        tool(http={"url": "https://api.example.com", "operations": POST_CITY}),
        "agent.helper.tools.it.http.operations.city.method: POST is not allowed; add it to methods, which are GET",
        tool(http={"url": "https://api.example.com", "operations": POST_CITY, "methods": ["POST"]}),
    ),
    "batches that are kept nowhere": (
        batch(""),
        'batch.storage: not a storage, got ""; one of: s3://bucket/prefix, gs://bucket/prefix, pvc://claim/path, '
        "file:///folder, without a credential",
        {"models": MODELS, "batch": {"storage": ""}},
    ),
    "batches in a bucket with its key": (
        batch("s3://id:secret@bucket"),
        'batch.storage: not a storage, got "s3://id:secret@bucket"; one of: s3://bucket/prefix, gs://bucket/prefix, '
        "pvc://claim/path, file:///folder, without a credential",
        batch("s3://bucket/batches?endpoint_override=minio:9000&scheme=http"),
    ),
    "batches out of their claim": (
        batch("pvc://claim/../other"),
        "batch.storage: leaves its folder, got pvc://claim/../other; set a path without ..",
        batch("pvc://claim/other"),
    ),
    "several replicas of batches without a Redis": (
        batch(replicas=2),
        "batch.replicas: replicas agree through Redis who works on which batch, and there is none, got 2; set "
        "redis.enabled or redis.address (and gateway.sharesRedis), or replicas to 1",
        batch(replicas=2, more={"redis": {"enabled": True}}),
    ),
    "several replicas of batches in a folder": (
        batch("file:///tmp/batches", replicas=2, more={"redis": {"enabled": True}}),
        "batch.replicas: each pod has a folder of its own, and batch.storage is file:///tmp/batches, got 2; set "
        "replicas to 1, or storage to a bucket or a claim",
        batch("file:///tmp/batches", more={"redis": {"enabled": True}}),
    ),
    "large batches in a folder of several pods": (
        batch("file:///tmp/batches", rayData={"fromLines": 1000}),
        "batch.rayData.fromLines: Ray Data sends from every pod of the pipelines, up to 4, and each has a folder "
        "file:///tmp/batches of its own; set fromLines to 0, or storage to a bucket or a claim",
        batch("file:///tmp/batches", {"workerGroups": {"cpu": {"maxReplicas": 1}}}, rayData={"fromLines": 1000}),
    ),
    "files that the gateway would not take": (
        batch(maxFileBytes=33554433),
        "batch.maxFileBytes: files come through the gateway, which takes 33554432 bytes, got 33554433; set less, or "
        "raise gateway.maxUploadBytes",
        batch(maxFileBytes=67108864, more={"gateway": {"maxUploadBytes": 67108864}}),
    ),
    "a job of a model that is not there": (
        job(model="nope"),
        'batch.jobs.night.model: no enabled model that the chart runs, got "nope"; models: chat, embedder, reranker',
        job(model="embedder"),
    ),
    "a job without an input": (
        job(input=""),
        'batch.jobs.night.input: not a place, got ""; one of: s3://bucket/prefix, gs://bucket/prefix, '
        "pvc://claim/path, without a credential",
        job(input="pvc://claim"),
    ),
    "a job that writes into a pod": (
        job(output="file:///tmp/out"),
        'batch.jobs.night.output: not a place, got "file:///tmp/out"; one of: s3://bucket/prefix, gs://bucket/prefix, '
        "pvc://claim/path, without a credential",
        job(output="pvc://claim/out"),
    ),
    "a job out of its claim": (
        job(output="pvc://claim/../other"),
        "batch.jobs.night.output: leaves its folder, got pvc://claim/../other; set a path without ..",
        job(output="pvc://claim/other"),
    ),
    "a job that reads what it writes": (
        job(input="s3://bucket/in", output="s3://bucket/in"),
        "batch.jobs.night.output: its files would be read as input, got s3://bucket/in; set another folder",
        job(input="s3://bucket/in", output="s3://bucket/in/out"),
    ),
    "an agent's cost limit without a price": (
        agent(limits={"cost": 0.5}),
        "agent.helper.limits.cost: no price of chat is known, so nothing is ever spent; set models.<name>.price",
        {**agent(limits={"cost": 0.5}), "models": {**MODELS, "chat": {**CHAT, "price": {"completion": 2}}}},
    ),
    "a graph that begins nowhere": (
        graph("b", a=SAY),
        "agent.helper.graph.start: no such step, got b; one of: a",
        graph("a", a=SAY),
    ),
    "a graph that leads nowhere": (
        graph("a", a=ask("c"), b=SAY),
        "agent.helper.graph.steps.a.next: no such step, got c; one of: a, b",
        graph("a", a=ask("b"), b=SAY),
    ),
    "a prompt with the result of no step": (
        graph("a", a={"say": "{question} {b}"}),
        "agent.helper.graph.steps.a.say: no such step, got b; one of: a",
        graph("a", a={"say": '{question} {a} {"b": 1}'}),
    ),
    "a prompt with the result of a step that has none": (
        graph("a", a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b=SAY, c=SAY, d={"say": "{a}"}),
        "agent.helper.graph.steps.d.say: no such step, got a; one of: b, c, d",
        graph("a", a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b=SAY, c=SAY, d={"say": "{b}"}),
    ),
    "a condition that says nothing": (
        graph("a", a=ask({"to": "b", "when": {"step": "a"}}, "c"), b=SAY, c=SAY),
        "agent.helper.graph.steps.a.next.when: nothing to hold; set one of equals, contains, above, below, failed",
        graph("a", a=ask({"to": "b", "when": {"step": "a", "failed": False}}, "c"), b=SAY, c=SAY),
    ),
    "a step that nothing leads to": (
        graph("a", a=ask("b"), b=SAY, c=SAY),
        "agent.helper.graph.steps.c: no way leads to it from a; lead there or take it out",
        graph("a", a=ask({"to": "c", "when": {"equals": "c"}}, "b"), b=SAY, c=SAY),
    ),
    "a circle without end": (
        graph("a", a=ask("b"), b=ask({"to": "a", "when": {"equals": "no"}}, "c"), c=SAY),
        "agent.helper.graph.steps: a, b lead in a circle without end; set atMost on a way back",
        graph("a", a=ask("b"), b=ask({"to": "a", "when": {"equals": "no"}, "atMost": 3}, "c"), c=SAY),
    ),
    "a step that may not go on": (
        graph("a", a=ask({"to": "b", "when": {"equals": "yes"}}), b=SAY),
        "agent.helper.graph.steps.a.next: the last way on must have neither when nor atMost, so that there always is "
        "one",
        graph("a", a=ask({"to": "b", "when": {"equals": "yes"}}, "c"), b=SAY, c=SAY),
    ),
    "a step of two kinds": (
        graph("a", a={**SAY, "ask": {}}),
        "agent.helper.graph.steps.a: one kind of ask, call, parallel, say; got ask, say",
        graph("a", a={**SAY, "ask": None}),
    ),
    "a branch that goes on by itself": (
        graph("a", a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b=ask("d"), c=SAY, d=SAY),
        "agent.helper.graph.steps.b: is done in parallel, so it must be a single step: without next, not itself "
        "parallel, named by one parallel and by no next",
        graph("a", a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b={"ask": {}}, c=SAY, d=SAY),
    ),
    "parallel steps after which nothing comes": (
        graph("a", a={"parallel": ["b", "c"]}, b=SAY, c=SAY),
        "agent.helper.graph.steps.a.next: required after parallel; name the step that goes on with the results",
        graph("a", a={"parallel": ["b", "c"], "next": [{"to": "d"}]}, b=SAY, c=SAY, d={"say": "{b} {c}"}),
    ),
    "a step that asks an embedder": (
        graph("a", a={"ask": {"model": "embedder"}}),
        "agent.helper.graph.steps.a.ask.model: no model of task generate, got embedder; one of: chat, tooled",
        graph("a", a={"ask": {"model": "tooled"}}),
    ),
    "a step that calls no tool": (
        graph("a", a={"call": {"function": "wiki"}}),
        "agent.helper.graph.steps.a.call.function: no tool has it, got wiki; one of: sum",
        graph("a", a={"call": {"function": "sum", "arguments": {"expression": "{question}"}}}),
    ),
    "a step with the word for the question": (
        graph("question", question=SAY),
        "agent.helper.graph.steps.question: the word for what the user asks; choose another name",
        graph("questions", questions=SAY),
    ),
    "a route's name with a dot": (
        {"models": MODELS, "gateway": {"routes": {"gpt-4.1": {"versions": [{"model": "chat"}]}}}},
        'gateway.routes: not a name, got "gpt-4.1"; use lower-case letters, digits and dashes, at most 47',
        aliases(assistant=["gpt-4.1"]),
    ),
    "an unknown upgrade strategy": (
        {"upgradeStrategy": {"type": "BlueGreen"}},
        "upgradeStrategy.type: not an upgrade strategy, got BlueGreen; one of: NewCluster, None",
        {"upgradeStrategy": {"type": "None"}},
    ),
    "the incremental upgrade strategy": (
        {"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}},
        "upgradeStrategy.type: KubeRay makes no llm-serving-serve-svc under NewClusterWithIncrementalUpgrade, and 1.6 "
        "ignores it unless a feature gate is on; set NewCluster or None",
        {"upgradeStrategy": {"type": "NewCluster"}},
    ),
    "a model with the name of an application": (
        {"models": {"gateway": CHAT}},
        "models.gateway: the name belongs to an application of the chart; reserved are: agent, batch, gateway, rag",
        {"models": {"gateways": CHAT}},
    ),
    "a model with the name of a pipeline": (
        {"models": {**MODELS, "docs": CHAT}, "rag": {"docs": DOCS}},
        "models.docs: rag.docs is published as a model of the same name; rename one",
        {"models": {**MODELS, "docs": CHAT}, "rag": {"docs": {**DOCS, "enabled": False}}},
    ),
    "an image that is not told from those to come": (
        chat(source="oci://registry:5000/ml/chat", runtime="standalone"),
        "models.chat.source: not a source, got oci://registry:5000/ml/chat; one of: hf://org/name[@revision], "
        "s3://bucket/path, gs://bucket/path, pvc://claim/path, oci://registry/name:tag[#path]",
        chat(source="oci://registry:5000/ml/chat:1", runtime="standalone"),
    ),
    "a path out of its image": (
        chat(source="oci://registry/chat:1#a/../../etc", runtime="standalone"),
        "models.chat.source: leaves its image, got oci://registry/chat:1#a/../../etc; set oci://registry/name:tag#path",
        chat(source=f"oci://registry/chat:1@sha256:{'0' * 64}#a/etc", runtime="standalone"),
    ),
    "an image the worker group does not mount": (
        {**chat(source="oci://registry/chat:2#8b"), **group("l4", modelImages=["registry/chat:1"])},
        "models.chat.source: worker group l4 does not mount the image registry/chat:2; add it to "
        "workerGroups.l4.modelImages",
        {**chat(source="oci://registry/chat:2#8b"), **group("l4", modelImages=["registry/chat:1", "registry/chat:2"])},
    ),
    "an image of a job's model that its own pods mount, and those of the job do not": (
        {**job(), **chat(source="oci://registry/chat:1", runtime="standalone")},
        "batch.jobs.night.model: worker group l4 does not mount the image registry/chat:1; add it to "
        "workerGroups.l4.modelImages",
        {
            **job(),
            **chat(source="oci://registry/chat:1", runtime="standalone"),
            **group("l4", modelImages=["registry/chat:1"]),
        },
    ),
    "a bare Hub id as source": (
        chat(source="org/chat"),
        "models.chat.source: not a source, got org/chat; one of: hf://org/name[@revision], s3://bucket/path, "
        "gs://bucket/path, pvc://claim/path, oci://registry/name:tag[#path]",
        chat(source="hf://org/chat"),
    ),
    "a path out of its claim": (
        {**chat(source="pvc://weights/../other"), **group("l4", modelClaims=["weights"])},
        "models.chat.source: leaves its claim, got pvc://weights/../other; set pvc://claim/path",
        {**chat(source="pvc://weights/other"), **group("l4", modelClaims=["weights"])},
    ),
    "a claim the worker group does not mount": (
        {**chat(source="pvc://weights/chat"), **group("l4", modelClaims=["other"])},
        "models.chat.source: worker group l4 does not mount the claim weights; add it to workerGroups.l4.modelClaims",
        {**chat(source="pvc://weights/chat"), **group("l4", modelClaims=["other", "weights"])},
    ),
    "a streamer on CPUs": (
        {**chat(accelerator=CPU, engine={"load_format": "runai_streamer"}), **CPU_GROUP},
        "models.chat.engine.load_format: the image for CPUs has no streamer, got runai_streamer; leave it out",
        chat(engine={"load_format": "runai_streamer"}),
    ),
    "a bucket for a standalone model on CPUs": (
        {**chat(accelerator=CPU, source="s3://models/chat", runtime="standalone"), **CPU_GROUP},
        "models.chat.source: without Ray vLLM streams from a bucket, and the image for CPUs has no streamer, got "
        "s3://models/chat; set runtime to ray, or another source",
        {**chat(accelerator=CPU, source="s3://models/chat"), **CPU_GROUP},
    ),
    "a bucket that a standalone model should download": (
        chat(source="gs://models/chat", runtime="standalone", engine={"load_format": "safetensors"}),
        "models.chat.engine.load_format: without Ray vLLM streams from a bucket, got safetensors; leave it out, or set "
        "runtime to ray",
        chat(source="gs://models/chat", runtime="standalone", engine={"load_format": "auto"}),
    ),
    "shards in a bucket that their loader cannot read": (
        chat(source="gs://models/chat", engine={"load_format": "runai_streamer_sharded"}),
        "models.chat.engine.load_format: runai_streamer_sharded reads s3:// and folders, got gs://models/chat; set "
        "runai_streamer",
        chat(source="s3://models/chat", engine={"load_format": "runai_streamer_sharded"}),
    ),
    "an unknown accelerator": (
        chat(accelerator={"type": "L40"}),
        f'models.chat.accelerator.type: "L40" is not defined; one of: {GPU_TYPES}',
        chat(accelerator={"type": "L40S"}),
    ),
    "an accelerator no group has": (
        chat(accelerator={"type": "H200"}),
        "models.chat.accelerator.type: no enabled worker group has H200; add or enable one under workerGroups",
        {**chat(accelerator={"type": "H200"}), **group("h200", accelerator={"type": "H200"})},
    ),
    "an accelerator only a disabled group has": (
        chat(accelerator={"type": "cpu"}),
        "models.chat.accelerator.type: no enabled worker group has cpu; add or enable one under workerGroups",
        {**chat(accelerator={"type": "cpu"}), **group("cpu-models", enabled=True)},
    ),
    "three GPUs where workers have one or four": (
        l40s(3),
        "models.chat.accelerator.count: no enabled worker group is filled evenly by replicas of 3 x L40S; "
        "set a divisor of one of: 1 (l40s), 4 (l40s-x4)",
        l40s(2),
    ),
    "more GPUs than a worker has": (
        l40s(8),
        "models.chat.accelerator.count: no enabled worker group is filled evenly by replicas of 8 x L40S; "
        "set a divisor of one of: 1 (l40s), 4 (l40s-x4)",
        l40s(4),
    ),
    "a worker group that does not exist": (
        l40s(1, workerGroup="l40"),
        "models.chat.workerGroup: no such enabled group, got l40; one of: a100-40g-x8, cpu, h100-x8, l4, l40s, l40s-x4",
        l40s(1, workerGroup="l40s"),
    ),
    "a worker group of another accelerator": (
        l40s(1, workerGroup="l4"),
        "models.chat.workerGroup: l4 has L4, not L40S; set another group or accelerator.type",
        l40s(1, workerGroup="l40s-x4"),
    ),
    "a worker group without an accelerator": (
        l40s(1, workerGroup="cpu"),
        "models.chat.workerGroup: cpu has no accelerator, not L40S; set another group or accelerator.type",
        l40s(1, workerGroup="l40s"),
    ),
    "a worker group it does not fill evenly": (
        l40s(3, workerGroup="l40s-x4"),
        "models.chat.accelerator.count: replicas must fill a worker of l40s-x4 (4 x L40S) evenly, got 3; "
        "set a divisor of 4",
        l40s(2, workerGroup="l40s-x4"),
    ),
    "an engine argument the chart derives": (
        chat(engine={"extra": {"tensor_parallel_size": 2}}),
        "models.chat.engine.extra.tensor_parallel_size: not set here; set accelerator.count",
        chat(engine={"extra": {"seed": 2}}),
    ),
    "an engine argument in both places": (
        chat(engine={"max_model_len": 4096, "extra": {"max_model_len": 8192}}),
        "models.chat.engine.extra.max_model_len: also set as engine.max_model_len; keep one",
        chat(engine={"max_model_len": 4096, "extra": {"seed": 1}}),
    ),
    "least replicas set twice": (
        chat(replicas={"min": 0}, autoscaling={"min_replicas": 0}),
        "models.chat: min replicas are set twice; keep replicas.min or autoscaling.min_replicas",
        chat(replicas={"min": 0}, autoscaling={"max_replicas": 2}),
    ),
    "most replicas set twice": (
        chat(replicas={"max": 4}, autoscaling={"max_replicas": 4}),
        "models.chat: max replicas are set twice; keep replicas.max or autoscaling.max_replicas",
        chat(replicas={"min": 1}, autoscaling={"max_replicas": 4}),
    ),
    "a model's min above max": (
        chat(replicas={"min": 3, "max": 2}),
        "models.chat.replicas: min is above max, got 3 and 2; set min <= max",
        chat(replicas={"min": 2, "max": 2}),
    ),
    "initial replicas out of bounds": (
        chat(replicas={"min": 1, "max": 2}, autoscaling={"initial_replicas": 3}),
        "models.chat.autoscaling.initial_replicas: outside the bounds 1 and 2, got 3; set one between",
        chat(replicas={"min": 1, "max": 2}, autoscaling={"initial_replicas": 2}),
    ),
    "a model's target above what a replica takes": (
        chat(maxOngoingRequests=8, autoscaling={"target_ongoing_requests": 9}),
        "models.chat.autoscaling.target_ongoing_requests: a replica never has more than "
        "models.chat.maxOngoingRequests (8) requests, so it would never scale, got 9; set 8 or less",
        chat(maxOngoingRequests=8, autoscaling={"target_ongoing_requests": 8}),
    ),
    "the gateway's target above what a replica takes": (
        {"gateway": {"maxConcurrentRequests": 100, "autoscaling": {"target_ongoing_requests": 200}}},
        "gateway.autoscaling.target_ongoing_requests: a replica never has more than "
        "gateway.maxConcurrentRequests (100) requests, so it would never scale, got 200; set 100 or less",
        {"gateway": {"maxConcurrentRequests": 100, "autoscaling": {"target_ongoing_requests": 80}}},
    ),
    "a gateway that may have no replica": (
        {"gateway": {"replicas": {"min": 0}}},
        "gateway.replicas.min: the gateway is the only way in and cannot start by itself, got 0; set 1 or more",
        {"gateway": {"replicas": {"min": 1}}},
    ),
    "the gateway's min above max": (
        {"gateway": {"replicas": {"min": 9}}},
        "gateway.replicas: min is above max, got 9 and 4; set min <= max",
        {"gateway": {"replicas": {"min": 9, "max": 9}}},
    ),
    "a port Ray listens on": (
        {"gateway": {"port": 8265}},
        "gateway.port: Ray itself listens on 8265; set another port, for example 8000",
        {"gateway": {"port": 8001}},
    ),
    "a pipeline's unknown model": (
        docs(llm="caht"),
        "rag.docs.llm: no such enabled model, got caht; models of task generate: chat",
        docs(llm="chat"),
    ),
    "a pipeline's disabled embedder": (
        {**docs(), "models": {**MODELS, "embedder": {**EMBEDDER, "enabled": False}}},
        "rag.docs.embedder: no such enabled model, got embedder; models of task embed: none",
        docs(),
    ),
    "a pipeline's embedder that generates": (
        docs(embedder="chat"),
        "rag.docs.embedder: needs a model of task embed, but chat is of task generate; models of task embed: embedder",
        docs(embedder="embedder"),
    ),
    "a pipeline's model for images that embeds": (
        docs(vision="embedder"),
        "rag.docs.vision: needs a model of task generate, but embedder is of task embed; models of task generate: chat",
        docs(vision="chat"),
    ),
    "a pipeline's reranker that embeds": (
        docs(reranker="embedder"),
        "rag.docs.reranker: needs a model of task score, but embedder is of task embed; models of task score: reranker",
        docs(reranker="reranker"),
    ),
    "a vector store that is neither server nor file": (
        docs(vectorStore={"uri": "milvus:19530"}),
        'rag.docs.vectorStore.uri: neither a server nor a file, got "milvus:19530"; '
        "set http(s)://host:port or a file name ending in .db",
        docs(vectorStore={"uri": "https://milvus:19530"}),
    ),
    "an overlap as long as its chunk": (
        docs(chunking={"maxTokens": 32}),
        "rag.docs.chunking.overlapTokens: must be below maxTokens (32), got 32; set less",
        docs(chunking={"maxTokens": 32, "overlapTokens": 31}),
    ),
    "documents from nowhere": (
        docs(ingest={"source": "/data"}),
        'rag.docs.ingest.source: not a source, got "/data"; '
        "one of: s3://bucket/prefix, gs://bucket/prefix, pvc://claim/path",
        docs(ingest={"source": "s3://bucket"}),
    ),
    "documents from outside their claim": (
        docs(ingest={"source": "pvc://corpus/../other"}),
        "rag.docs.ingest.source: leaves its claim, got pvc://corpus/../other; set pvc://claim/path",
        docs(ingest={"source": "pvc://corpus/other"}),
    ),
    "a RayJob by a schedule": (
        docs(ingest={"source": "s3://bucket", "executor": "ray-data", "schedule": "0 3 * * *"}),
        "rag.docs.ingest.schedule: a RayJob runs once, got 0 3 * * *; leave schedule out, or set executor to job",
        docs(ingest={"source": "s3://bucket", "executor": "job", "schedule": "0 3 * * *"}),
    ),
    "workers of a Job": (
        docs(ingest={"source": "s3://bucket", "workers": 4}),
        "rag.docs.ingest.workers: a Job is one pod, got 4; leave workers out, or set executor to ray-data",
        docs(ingest={"source": "s3://bucket", "executor": "ray-data", "workers": 4}),
    ),
    "resources of a Job": (
        docs(ingest={"source": "s3://bucket", "resources": {"limits": {"memory": "4Gi"}}}),
        "rag.docs.ingest.resources: those of workers, of which a Job has none; leave resources out, or set executor to "
        "ray-data",
        docs(ingest={"source": "s3://bucket", "executor": "ray-data", "resources": {"limits": {"memory": "4Gi"}}}),
    ),
    "documents of nobody": (
        docs(tenancy="tenant", ingest={"source": "s3://bucket"}),
        "rag.docs.ingest.tenant: missing; with tenancy tenant say whose documents they are",
        docs(tenancy="tenant", ingest={"source": "s3://bucket", "tenant": "team-a"}),
    ),
    "documents of tenants that nobody tells apart": (
        {**docs(tenancy="tenant"), "security": {"auth": "none"}},
        "rag.docs.tenancy: with security.auth none all callers are one tenant; "
        "set shared, or security.auth to apiKeys or jwt",
        docs(tenancy="tenant"),
    ),
    "a file for several replicas": (
        docs(vectorStore={"uri": "docs.db"}),
        "rag.docs.vectorStore.uri: a file belongs to one replica, but pipelines may have 4; "
        "set pipelines.replicas.max to 1 or the uri of a Milvus server",
        {**docs(vectorStore={"uri": "docs.db"}), "pipelines": {"replicas": {"max": 1}}},
    ),
    "pipelines' min above max": (
        {"pipelines": {"replicas": {"min": 5}}},
        "pipelines.replicas: min is above max, got 5 and 4; set min <= max",
        {"pipelines": {"replicas": {"min": 4}}},
    ),
    "more documents at a time than a replica reads": (
        {"pipelines": {"reading": {"autoscaling": {"target_ongoing_requests": 3}}}},
        "pipelines.reading.autoscaling.target_ongoing_requests: a replica never has more than its processes (2) "
        "requests, so it would never scale, got 3; set 2 or less",
        {"pipelines": {"reading": {"autoscaling": {"target_ongoing_requests": 2}}}},
    ),
    "a model's drain longer than its pod lives": (
        chat(drainSeconds=301),
        "models.chat.drainSeconds: pods end after maxDrainSeconds (300), got 301; "
        "set 300 or less, or raise maxDrainSeconds (rolls the cluster)",
        chat(drainSeconds=300),
    ),
    "the gateway's drain longer than its pod lives": (
        {"gateway": {"drainSeconds": 600}},
        "gateway.drainSeconds: pods end after maxDrainSeconds (300), got 600; "
        "set 300 or less, or raise maxDrainSeconds (rolls the cluster)",
        {"gateway": {"drainSeconds": 600}, "maxDrainSeconds": 600},
    ),
    "the pipelines' drain longer than their pod lives": (
        {"pipelines": {"drainSeconds": 600}},
        "pipelines.drainSeconds: pods end after maxDrainSeconds (300), got 600; "
        "set 300 or less, or raise maxDrainSeconds (rolls the cluster)",
        {"pipelines": {"drainSeconds": 60}},
    ),
    "a group's minReplicas above maxReplicas": (
        group("l4", minReplicas=3, maxReplicas=2),
        "workerGroups.l4.minReplicas: above maxReplicas, got 3 and 2; set minReplicas <= maxReplicas",
        group("l4", minReplicas=2, maxReplicas=2),
    ),
    "a group's unknown accelerator": (
        group("l40", accelerator={"type": "L40"}),
        f'workerGroups.l40.accelerator.type: "L40" is not defined; one of: {GPU_TYPES}',
        group("l40", accelerator={"type": "L40S", "count": 2}),
    ),
    "a group that hosts nothing": (
        group("idle", maxReplicas=1),
        "workerGroups.idle: hosts nothing; set accelerator, or pipelines: true, or enabled: false",
        group("idle", maxReplicas=1, enabled=False),
    ),
    "models in an image without vLLM": (
        group("l4", image="serve"),
        "workerGroups.l4.image: serve has no vLLM for the models on L4; set vllm",
        group("l4", image="vllm"),
    ),
    "expert parallel on one GPU": (
        chat(parallelism={"experts": True}),
        "models.chat.parallelism.experts: one L4 has all experts; set accelerator.count or parallelism.data to more "
        "than 1, or leave it out",
        chat(parallelism={"experts": True, "data": 2}),
    ),
    "a pipeline over nodes on CPUs": (
        {**chat(accelerator={"type": "cpu", "count": 4}, nodes=2), **group("cpu-models", enabled=True)},
        "models.chat.nodes: vLLM keeps to one node on CPUs, got 2; set 1, or accelerator.type to a GPU",
        {**chat(accelerator={"type": "cpu", "count": 4}), **group("cpu-models", enabled=True)},
    ),
    "ranks of several nodes": (
        l40s(4, nodes=2, parallelism={"data": 2}),
        "models.chat.parallelism.data: not together with nodes, got 2 and 2; set one of the two to 1",
        l40s(4, nodes=2, parallelism={"data": 1}),
    ),
    "prompts read elsewhere for embeddings": (
        {"models": {"embedder": {**MODELS["embedder"], "parallelism": {"prefill": {}}}}},
        "models.embedder.parallelism.prefill: only a model that generates reads a prompt first, got embed; leave it "
        "out",
        {"models": {"embedder": MODELS["embedder"]}},
    ),
    "prompts read elsewhere and ranks": (
        l40s(2, parallelism={"prefill": {}, "data": 2}),
        "models.chat.parallelism.prefill: not together with nodes and parallelism.data, got 1 and 2; set both to 1",
        l40s(2, parallelism={"prefill": {}, "experts": True}),
    ),
    "prompts read elsewhere and adapters": (
        chat(parallelism={"prefill": {}}, lora={"adapters": {"sql": {"source": "s3://bucket/sql"}}}),
        "models.chat.parallelism.prefill: not together with lora, whose adapters are loaded where answers are made "
        "only; leave one of the two out",
        chat(parallelism={"prefill": {}}),
    ),
    "prompts read elsewhere and a cache in the host's memory": (
        chat(parallelism={"prefill": {}}, engine={"extra": {"kv_offloading_size": 8}}),
        "models.chat.parallelism.prefill: not together with engine.extra.kv_offloading_size, which has vLLM move KV "
        "caches to the host's memory instead; leave one of the two out",
        chat(engine={"extra": {"kv_offloading_size": 8}}),
    ),
    "NIXL on CPUs": (
        on_cpu(parallelism={"prefill": {}}),
        "models.chat.parallelism.prefill: NIXL moves KV caches between GPUs, got accelerator.type cpu; set a GPU, or a "
        "connector for CPUs as engine.extra.kv_transfer_config",
        on_cpu(parallelism={"prefill": {}}, engine={"extra": {"kv_transfer_config": {"kv_connector": "Own"}}}),
    ),
    "two models with NIXL in a worker": (
        {"models": {name: {**CHAT, "parallelism": {"prefill": {}}} for name in ("chat", "other")}},
        "models.other.parallelism.prefill: takes the ports that NIXL has in the workers of l4 for chat; set the "
        "workerGroup of one of the two to another group",
        {"models": {"chat": {**CHAT, "parallelism": {"prefill": {}}}, "other": CHAT}},
    ),
    "a pair beyond the group": (
        {**chat(parallelism={"prefill": {"replicas": {"min": 0}}}), **group("l4", maxReplicas=1)},
        "models.chat.parallelism.prefill: a replica that reads and one that answers take 2 x L4, but 1 workers of 1 "
        "have 1; raise workerGroups.l4.maxReplicas",
        {**chat(parallelism={"prefill": {"replicas": {"min": 0}}}), **group("l4", maxReplicas=2)},
    ),
    "least replicas of both kinds beyond the group": (
        {**chat(parallelism={"prefill": {"replicas": {"min": 2, "max": 2}}}), **group("l4", maxReplicas=2)},
        "workerGroups.l4.maxReplicas: the models' least replicas need 3 x L4, but workers of 1 have 2 at most; raise "
        "maxReplicas or lower replicas.min",
        {**chat(parallelism={"prefill": {"replicas": {"min": 2, "max": 2}}}), **group("l4", maxReplicas=3)},
    ),
    "replicas that read prompts, their min above max": (
        chat(parallelism={"prefill": {"replicas": {"min": 3, "max": 2}}}),
        "models.chat.parallelism.prefill.replicas: min is above max, got 3 and 2; set min <= max",
        chat(parallelism={"prefill": {"replicas": {"min": 2, "max": 2}}}),
    ),
    "what replicas that read prompts may not be told": (
        chat(parallelism={"prefill": {"engine": {"extra": {"tensor_parallel_size": 2}}}}),
        "models.chat.parallelism.prefill.engine.extra.tensor_parallel_size: not set here; set accelerator.count",
        chat(parallelism={"prefill": {"engine": {"extra": {"seed": 2}}}}),
    ),
    "prompts of a standalone model read elsewhere": (
        chat(runtime="standalone", parallelism={"prefill": {}}),
        "models.chat.parallelism.prefill: belongs to models that Ray runs; set runtime to ray, or leave it out",
        chat(runtime="standalone", parallelism={"experts": False}),
    ),
    "nodes with workers that are filled in part": (
        l40s(2, nodes=2),
        "models.chat.accelerator.count: with nodes a replica fills a worker on each, and no enabled worker group has "
        "2 x L40S; set one of: 1 (l40s), 4 (l40s-x4)",
        l40s(4, nodes=2),
    ),
    "nodes with workers of a named group that are filled in part": (
        l40s(2, nodes=2, workerGroup="l40s-x4"),
        "models.chat.accelerator.count: with nodes a replica fills a worker of l40s-x4 (4 x L40S) on each, got 2; "
        "set 4",
        l40s(4, nodes=2, workerGroup="l40s-x4"),
    ),
    "a neighbour that leaves parts of a node": (
        {"models": {**l40s(4, nodes=2)["models"], "small": {**CHAT, "accelerator": {"type": "L40S", "count": 2}}}},
        "models.small.accelerator.count: 2 of a worker of l40s-x4 leave chat no whole 4 on a node; set a multiple of "
        "4, or the workerGroup of one of the two to another group",
        {"models": {**l40s(4, nodes=2)["models"], "small": {**CHAT, "accelerator": {"type": "L40S", "count": 4}}}},
    ),
    "a neighbour that leaves parts of a rank": (
        {
            "models": {
                **l40s(2, parallelism={"data": 2}, workerGroup="l40s-x4")["models"],
                "small": {**CHAT, "accelerator": {"type": "L40S"}, "workerGroup": "l40s-x4"},
            }
        },
        "models.small.accelerator.count: 1 of a worker of l40s-x4 leave chat no whole 2 on a node; set a multiple of "
        "2, or the workerGroup of one of the two to another group",
        {
            "models": {
                **l40s(2, parallelism={"data": 2})["models"],
                "small": {**CHAT, "accelerator": {"type": "L40S"}},
            }
        },
    ),
    "a replica beyond the group": (
        {**l40s(4, nodes=2, replicas={"min": 0}), **group("l40s-x4", maxReplicas=1)},
        "models.chat: one replica takes 8 x L40S, but 1 workers of 4 have 4; raise workerGroups.l40s-x4.maxReplicas",
        {**l40s(4, nodes=2, replicas={"min": 0}), **group("l40s-x4", maxReplicas=2)},
    ),
    "least replicas of several nodes beyond the group": (
        {**l40s(4, nodes=2), **group("l40s-x4", maxReplicas=1)},
        "workerGroups.l40s-x4.maxReplicas: the models' least replicas need 8 x L40S, but workers of 4 have 4 at most; "
        "raise maxReplicas or lower replicas.min",
        {**l40s(4, nodes=2), **group("l40s-x4", maxReplicas=2)},
    ),
    "nodes of a standalone model": (
        l40s(4, runtime="standalone", nodes=2),
        "models.chat.nodes: belongs to models that Ray runs; set runtime to ray, or nodes to 1",
        l40s(4, runtime="standalone", nodes=1),
    ),
    "ranks of a standalone model": (
        l40s(2, runtime="standalone", parallelism={"data": 2}),
        "models.chat.parallelism.data: belongs to models that Ray runs; set runtime to ray, or data to 1",
        l40s(2, runtime="standalone", parallelism={"experts": True}),
    ),
    "a pipeline in vLLM's words": (
        chat(engine={"extra": {"pipeline_parallel_size": 2}}),
        "models.chat.engine.extra.pipeline_parallel_size: not set here; set nodes",
        chat(nodes=2),
    ),
    "ranks in vLLM's words": (
        chat(engine={"extra": {"data_parallel_size": 2}}),
        "models.chat.engine.extra.data_parallel_size: not set here; set parallelism.data",
        chat(parallelism={"data": 2}),
    ),
    "experts in vLLM's words": (
        l40s(2, engine={"extra": {"enable_expert_parallel": True}}),
        "models.chat.engine.extra.enable_expert_parallel: not set here; set parallelism.experts",
        l40s(2, parallelism={"experts": True}),
    ),
    "a node pool that may not have the least workers": (
        {
            **l40s(4, nodes=2),
            **group("l40s-x4", nodePool="gpu"),
            "nodePools": {"gpu": {"nodeClass": "default", "limits": {"nvidia.com/gpu": 4}}},
        },
        "nodePools.gpu.limits: the least workers of its groups have 8 GPUs, got nvidia.com/gpu 4; set 8 or more, or "
        "fewer replicas",
        {
            **l40s(4, nodes=2),
            **group("l40s-x4", nodePool="gpu"),
            "nodePools": {"gpu": {"nodeClass": "default", "limits": {"nvidia.com/gpu": 8}}},
        },
    ),
    "an unknown node pool": (
        {**group("l4", nodePool="gpus"), "nodePools": {"gpu": {"nodeClass": "gpu"}}},
        "workerGroups.l4.nodePool: no such pool, got gpus; defined: gpu",
        {**group("l4", nodePool="gpu"), "nodePools": {"gpu": {"nodeClass": "gpu"}}},
    ),
    "resources that forget the GPUs": (
        group("l40s-x4", resources={"requests": {"cpu": "8"}}),
        "workerGroups.l40s-x4.resources.limits: nvidia.com/gpu must be accelerator.count (4), got 0; "
        "set it, or leave resources out",
        group("l40s-x4", resources={"requests": {"cpu": "8"}, "limits": {"nvidia.com/gpu": 4}}),
    ),
    "resources without requests and limits": (
        {"head": {"resources": {"cpu": 4}}},
        "head.resources.cpu: not one of requests, limits and claims; set head.resources.requests.cpu, or limits",
        {"head": {"resources": {"requests": {"cpu": 4}}}},
    ),
    "resources in a unit that Kubernetes does not have": (
        {"redis": {"resources": {"limits": {"memory": "1GB"}}}},
        "redis.resources.limits.memory: not a quantity, got 1GB; write it as Kubernetes does, for example 16Gi or 500m",
        {"redis": {"resources": {"limits": {"memory": "1G"}}}},
    ),
    "least replicas beyond the group": (
        {**chat(replicas={"min": 3, "max": 3}), **group("l4", maxReplicas=2)},
        "workerGroups.l4.maxReplicas: the models' least replicas need 3 x L4, but workers of 1 have 2 at most; "
        "raise maxReplicas or lower replicas.min",
        {**chat(replicas={"min": 2, "max": 3}), **group("l4", maxReplicas=2)},
    ),
    "least replicas beyond the group that a model names": (
        {**chat(workerGroup="l4", replicas={"min": 3, "max": 3}), **SPOT},
        "workerGroups.l4.maxReplicas: the models' least replicas need 3 x L4, but workers of 1 have 2 at most; "
        "raise maxReplicas or lower replicas.min",
        {**chat(replicas={"min": 3, "max": 3}), **SPOT},
    ),
    "no place for the gateway": (
        group("cpu", enabled=False),
        "workerGroups: no enabled group has pipelines: true, so the gateway has no place; "
        "enable cpu or set it on another",
        {"workerGroups": {"cpu": {"enabled": False}, "l4": {"pipelines": True}}},
    ),
    "a node pool without a class": (
        {"nodePools": {"gpu": {}}},
        "nodePools.gpu.nodeClass: missing; set an entry of nodeClasses or the name of an EC2NodeClass that exists",
        {"nodePools": {"gpu": {"nodeClass": "default"}}},
    ),
    "a restart policy the autoscaler cannot work with": (
        overlay("l4", {"spec": {"restartPolicy": "Always"}}),
        "workerGroups.l4.podTemplate.spec.restartPolicy: the Ray autoscaler needs Never, got Always; leave it out",
        overlay("l4", {"spec": {"restartPolicy": "Never"}}),
    ),
    "a label of KubeRay's on the head": (
        overlay("head", {"metadata": {"labels": {"app.kubernetes.io/name": "mine"}}}),
        "head.podTemplate.metadata.labels: KubeRay's Services select pods by app.kubernetes.io/name; take it out",
        overlay("head", {"metadata": {"labels": {"app.kubernetes.io/part-of": "mine"}}}),
    ),
    "a label below ray.io on a worker": (
        overlay("l4", {"metadata": {"labels": {"ray.io/identifier": "mine"}}}),
        "workerGroups.l4.podTemplate.metadata.labels: KubeRay's Services select pods by ray.io/identifier; take it out",
        overlay("l4", {"metadata": {"labels": {"team": "mine"}}}),
    ),
    "a checksum on a pod": (
        overlay("cpu", {"metadata": {"annotations": {"checksum/config": "1"}}}),
        "workerGroups.cpu.podTemplate.metadata: checksum/config changes with every release and each change rolls a new "
        "RayCluster; take it out",
        overlay("cpu", {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}}),
    ),
    "the chart's version on a pod": (
        overlay("head", {"metadata": {"labels": {"helm.sh/chart": "llm-serving-1"}}}),
        "head.podTemplate.metadata: helm.sh/chart changes with every release and each change rolls a new RayCluster; "
        "take it out",
        overlay("head", {"metadata": {"labels": {"cost-centre": "1"}}}),
    ),
    "an autoscaler switch in the head's environment": (
        ray_container("head", env=[{"name": "RAY_enable_autoscaler_v2", "value": "0"}]),
        "head.podTemplate.spec.containers: KubeRay refuses RAY_enable_autoscaler_v2 in the Ray container's env; "
        "take it out",
        ray_container("head", env=[{"name": "RAY_SERVE_HAPROXY_MAXCONN", "value": "8192"}]),
    ),
    "Redis in the head's environment": (
        ray_container("head", env=[{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}]),
        "head.podTemplate.spec.containers: KubeRay refuses RAY_REDIS_ADDRESS in the Ray container's env; take it out",
        ray_container("head", env=[{"name": "RAY_LOG_TO_STDERR", "value": "1"}]),
    ),
    "a serve port of its own": (
        ray_container("cpu", ports=[{"name": "serve", "containerPort": 9000}]),
        "workerGroups.cpu.podTemplate.spec.containers: the port named serve must be gateway.port (8000), got 9000; "
        "take it out or set gateway.port",
        ray_container("cpu", ports=[{"name": "debug", "containerPort": 9000}]),
    ),
    "a grace period shorter than the drain": (
        overlay("l4", {"spec": {"terminationGracePeriodSeconds": 30}}),
        "workerGroups.l4.podTemplate.spec.terminationGracePeriodSeconds: shorter than maxDrainSeconds (300), got 30; "
        "set more, or lower maxDrainSeconds",
        overlay("l4", {"spec": {"terminationGracePeriodSeconds": 900}}),
    ),
    "a model of Ray without a source": (
        {"models": {"chat": {"accelerator": {"type": "L4"}}}},
        "models.chat.source: missing; set hf://org/name[@revision], s3://bucket/path, gs://bucket/path, "
        "pvc://claim/path or oci://registry/name:tag[#path]",
        elsewhere("standalone"),
    ),
    "a model of Ray without an accelerator": (
        {"models": {"chat": {"source": "s3://models/chat"}}},
        f"models.chat.accelerator: missing; set {{type: …, count: 1}} with a type of: {GPU_TYPES}",
        elsewhere("external"),
    ),
    "an address of a model of Ray": (
        chat(url="http://vllm:8000"),
        "models.chat.url: belongs to models that run elsewhere; set runtime to external, or to standalone with a "
        "url, or leave it out",
        elsewhere("standalone", url="http://vllm:8000"),
    ),
    "another name for a model of Ray": (
        chat(servedModel="org/chat"),
        "models.chat.servedModel: belongs to models that run elsewhere; set runtime to external, or to standalone "
        "with a url, or leave it out",
        elsewhere("standalone", servedModel="org/chat"),
    ),
    "an external model without an address": (
        {"models": {"provider": {"runtime": "external"}}},
        "models.provider.url: missing; set where the model answers, for example https://api.example.com",
        elsewhere("external"),
    ),
    "an external model at a bare host": (
        elsewhere("external", url="api.example.com"),
        "models.provider.url: not an address, got api.example.com; set http(s)://host:port, without a query and a / at "
        "its end",
        elsewhere("external", url="https://api.example.com/openai"),
    ),
    "a standalone model without an address or weights": (
        {"models": {"chat": {"runtime": "standalone", "accelerator": {"type": "L4"}}}},
        "models.chat.source: missing; set hf://org/name[@revision], s3://bucket/path, gs://bucket/path, "
        "pvc://claim/path or oci://registry/name:tag[#path]",
        chat(runtime="standalone"),
    ),
    "a standalone model that no group fits": (
        chat(runtime="standalone", accelerator={"type": "T4"}),
        "models.chat.accelerator.type: no enabled worker group has T4; add or enable one under workerGroups",
        chat(runtime="standalone", accelerator={"type": "L40S", "count": 2}),
    ),
    "a standalone model that starts from nothing": (
        chat(runtime="standalone", replicas={"min": 0, "max": 2}),
        "models.chat.replicas.min: a standalone model cannot start for a request, got 0; set 1 or more, or runtime to "
        "ray",
        chat(runtime="standalone", replicas={"min": 1, "max": 2}),
    ),
    "Ray's autoscaling of a standalone model": (
        chat(runtime="standalone", autoscaling={"target_ongoing_requests": 8}),
        "models.chat.autoscaling: belongs to models that Ray runs; set standalone.autoscaler and maxOngoingRequests, "
        "or leave it out",
        chat(runtime="standalone", maxOngoingRequests=8, autoscaling={}),
    ),
    "Ray's queue of a standalone model": (
        chat(runtime="standalone", maxQueuedRequests=8),
        "models.chat.maxQueuedRequests: belongs to models that Ray runs; set queue, or leave it out",
        chat(runtime="standalone", queue={"maxWaiting": 8}),
    ),
    "adapters of a standalone model": (
        chat(runtime="standalone", lora={"directory": "s3://bucket/all"}),
        "models.chat.lora: belongs to models that Ray runs; set runtime to ray, or leave it out",
        chat(lora={"directory": "s3://bucket/all"}),
    ),
    "a port of a standalone model": (
        chat(runtime="standalone", engine={"extra": {"port": 9000}}),
        "models.chat.engine.extra.port: a standalone model's server is the chart's to set up; leave it out",
        chat(runtime="standalone", engine={"extra": {"seed": 1}}),
    ),
    "a standalone model's defaults in vLLM's words": (
        chat(runtime="standalone", engine={"extra": {"override_generation_config": {"temperature": 0}}}),
        "models.chat.engine.extra.override_generation_config: a standalone model's server is the chart's to set up; "
        "leave it out, and set sampling",
        chat(runtime="standalone", sampling={"temperature": 0}),
    ),
    "a default length of a standalone model's answers": (
        chat(runtime="standalone", sampling={"temperature": 0, "max_tokens": 256}),
        "models.chat.sampling.max_tokens: vLLM's own server would cut every answer there, also of requests that ask "
        "for more; leave it out, or set maxTokens of tenants",
        chat(runtime="standalone", sampling={"temperature": 0}),
    ),
    "an argument of vLLM as a flag": (
        chat(engine={"extra": {"scheduling-policy": "priority"}}),
        "models.chat.engine.extra.scheduling-policy: vLLM's arguments are written with underscores; "
        "set scheduling_policy",
        chat(engine={"extra": {"scheduling_policy": "priority"}}),
    ),
    "an argument of a standalone model as a flag": (
        chat(runtime="standalone", engine={"extra": {"api-key": "x"}}),
        "models.chat.engine.extra.api-key: vLLM's arguments are written with underscores; set api_key",
        chat(runtime="standalone", engine={"extra": {"scheduling_policy": "priority"}}),
    ),
    "a standalone model whose Service has too long a name": (
        {"models": {"a" * 46: {**CHAT, "runtime": "standalone"}}},
        f"models.{'a' * 46}: a Service's name has at most 63 characters, got 64 (llm-serving-model-{'a' * 46}); "
        "shorten the model's name or set fullnameOverride",
        {"models": {"a" * 45: {**CHAT, "runtime": "standalone"}}},
    ),
    "KEDA without a Prometheus": (
        {**chat(runtime="standalone", replicas={"max": 2}), "standalone": {"autoscaler": "keda"}},
        "standalone.prometheus: missing, and KEDA asks it how much there is to do; set its address, for example "
        "http://prometheus-operated.monitoring:9090",
        {**chat(runtime="standalone", replicas={"min": 2}), "standalone": {"autoscaler": "keda"}},
    ),
    "an address with the API's version": (
        elsewhere("external", url="https://api.example.com/openai/v1"),
        "models.provider.url: the gateway appends /v1/… itself, got https://api.example.com/openai/v1; "
        "set https://api.example.com/openai",
        elsewhere("external", url="https://api.example.com/openai"),
    ),
    "replicas of a model that runs elsewhere": (
        elsewhere("external", replicas={"max": 2}),
        "models.provider.replicas: belongs to models that the chart runs, and this one is at https://api.example.com; "
        "leave it out",
        elsewhere("external", price={"prompt": 1}),
    ),
    "an accelerator of a model that runs elsewhere": (
        elsewhere("standalone", accelerator={"type": "L4"}),
        "models.provider.accelerator: belongs to models that the chart runs, and this one is at "
        "https://api.example.com; leave it out, or the url",
        elsewhere("standalone", takesPriority=True),
    ),
    "a credential for a standalone model": (
        elsewhere("standalone", credential="provider"),
        "models.provider.credential: a standalone model gets our internal credential; leave it out, or set runtime to "
        "external",
        elsewhere("external", credential="provider"),
    ),
    "priority at another provider": (
        elsewhere("external", takesPriority=True),
        "models.provider.takesPriority: other providers take no priority; leave it out, or set runtime to standalone",
        elsewhere("external", takesPriority=False),
    ),
    "a queue without a bound": (
        elsewhere("external", queue={"maxWaiting": 10}),
        "models.provider.queue.maxConcurrent: missing; set how many requests one replica of the gateway may have there "
        "at a time",
        elsewhere("external", queue={"maxConcurrent": 10}),
    ),
    "a pipeline with the name of a model that runs elsewhere": (
        {"models": {**MODELS, **elsewhere("external")["models"]}, "rag": {"provider": DOCS}},
        "models.provider: rag.provider is published as a model of the same name; rename one",
        {"models": {**MODELS, **elsewhere("external")["models"]}, "rag": {"docs": DOCS}},
    ),
    "a version that is no model": (
        route(versions=[{"model": "chatt"}]),
        "gateway.routes.assistant.versions: no such enabled model, got chatt; "
        "one of: chat, embedder, provider, reranker",
        route(versions=[{"model": "chat"}]),
    ),
    "a fallback that is no model": (
        route(fallback=["assistant"]),
        "gateway.routes.assistant.fallback: no such enabled model, got assistant; "
        "one of: chat, embedder, provider, reranker",
        route(fallback=["provider"]),
    ),
    "a shadow that is no model": (
        route(shadow={"model": "next"}),
        "gateway.routes.assistant.shadow.model: no such enabled model, got next; "
        "one of: chat, embedder, provider, reranker",
        route(shadow={"model": "provider"}),
    ),
    "a version twice": (
        route(versions=[{"model": "chat", "weight": 50}, {"model": "chat", "weight": 50}]),
        "gateway.routes.assistant.versions: chat stands there twice; keep one, with the sum of the weights",
        route(versions=[{"model": "chat", "weight": 50}, {"model": "provider", "weight": 50}]),
    ),
    "versions without a weight": (
        route(versions=[{"model": "chat", "weight": 0}]),
        "gateway.routes.assistant.versions: every weight is 0, so nobody would answer; give one version a weight",
        route(versions=[{"model": "chat", "weight": 0}, {"model": "provider", "weight": 1}]),
    ),
    "versions of two tasks": (
        route(versions=[{"model": "chat"}, {"model": "embedder", "weight": 0}]),
        "gateway.routes.assistant.versions: embedder is of task embed and chat of generate; name models of one task",
        route(versions=[{"model": "chat"}, {"model": "provider", "weight": 0}]),
    ),
    "a fallback of another task": (
        route(fallback=["reranker"]),
        "gateway.routes.assistant.fallback: reranker is of task score and chat of generate; name models of one task",
        route(fallback=["chat"]),
    ),
    "a shadow that answers everything": (
        route(versions=[{"model": "chat"}, {"model": "provider", "weight": 0}], shadow={"model": "chat"}),
        "gateway.routes.assistant.shadow.model: chat answers every request already; name another model, or leave the "
        "shadow out",
        route(versions=[{"model": "chat"}, {"model": "provider", "weight": 0}], shadow={"model": "provider"}),
    ),
    "a fallback to what failed": (
        route(versions=[{"model": "chat"}], fallback=["chat"]),
        "gateway.routes.assistant.fallback: chat is what failed when the fallback is asked; name another model",
        route(versions=[{"model": "chat"}], fallback=["provider"]),
    ),
    "a fallback twice": (
        route(fallback=["provider", "provider"]),
        "gateway.routes.assistant.fallback: a model stands there twice, got provider, provider; name each once",
        route(fallback=["provider", "chat"]),
    ),
    "a canary without a rule": (
        route(canary={"windowS": 60}),
        "gateway.routes.assistant.canary: no rule, so nothing would be judged; set maxErrorRate, ttftP95S or itlP95S",
        route(canary={"maxErrorRate": 0}),
    ),
    "an alias of two routes": (
        aliases(one=["gpt-4o"], two=["gpt-4o"]),
        "gateway.routes.two.aliases: gpt-4o is an alias of one; keep one of the two",
        aliases(one=["gpt-4o"], two=["gpt-4o-mini"]),
    ),
    "an alias that is a route": (
        aliases(one=["two"], two=[]),
        "gateway.routes.one.aliases: two is a route; take it out",
        aliases(one=["Two"], two=[]),
    ),
    "an alias that is a model": (
        aliases(one=["chat"]),
        "gateway.routes.one.aliases: chat is a model; take it out, or give a route that name, which hides the model",
        aliases(chat=[]),
    ),
    "a tenant's model that does not exist": (
        tenant(models=["chat", "chatt"]),
        "gateway.tenants.team-a.models: no such route, model or pipeline, got chatt; one of: chat, embedder, reranker",
        tenant(models=["chat", "embedder"]),
    ),
    "others' model that does not exist": (
        {"gateway": {"otherTenants": {"models": ["chat"]}}},
        "gateway.otherTenants.models: no such route, model or pipeline, got chat; one of: none",
        {"gateway": {"otherTenants": {"models": []}}},
    ),
    "a tenant whose requests never fit": (
        tenant(maxTokens=4_000_000, tokensPerMinute=2_000_000),
        "gateway.tenants.team-a.maxTokens: one request would take more than tokensPerMinute (2000000), got 4000000; "
        "set less, or raise tokensPerMinute",
        tenant(maxTokens=2_000_000, tokensPerMinute=2_000_000),
    ),
    "JWTs that nobody issues": (
        {"security": {"auth": "jwt"}},
        "security.jwt: missing; with security.auth jwt set issuer and audience",
        {"security": {"auth": "jwt", "jwt": {"issuer": "https://login.example.com", "audience": "llm"}}},
    ),
    "JWTs for nobody": (
        {"security": {"jwt": {"issuer": "https://login.example.com"}}},
        "security.jwt.audience: missing; set what the tokens have as aud",
        {"security": {"jwt": {"issuer": "https://login.example.com", "audience": "llm"}}},
    ),
    "an issuer without an address": (
        {"security": {"jwt": {"issuer": "login.example.com", "audience": "llm"}}},
        "security.jwt.issuer: no URL, so nobody knows where its keys are, got login.example.com; set https://… as the "
        "tokens have it, or jwksUrl",
        {"security": {"jwt": {"issuer": "us", "audience": "llm", "jwksUrl": "https://login.example.com/keys"}}},
    ),
    "an Ingress without keys": (
        ingress(host="llm.example.com", security={"auth": "none"}),
        "ingress.enabled: security.auth none would let anyone on the network in; set security.auth to apiKeys or jwt",
        ingress(host="llm.example.com"),
    ),
    "an Ingress without a host": (
        ingress(host=""),
        "ingress.host: missing; set the host clients call",
        ingress(host="llm.example.com"),
    ),
    "an Ingress with a URL for a host": (
        ingress(host="https://llm.example.com"),
        "ingress.host: not a host, got https://llm.example.com; set a name like llm.example.com, in lower case and "
        "without scheme, port and path",
        ingress(host="*.example.com"),
    ),
    "an Ingress to a port on loopback": (
        ingress(host="llm.example.com", gateway={"host": "127.0.0.1"}),
        "gateway.host: 127.0.0.1 is reached from inside the pod only, and an Ingress comes from outside; set 0.0.0.0",
        {"gateway": {"host": "127.0.0.1"}},
    ),
    "an Ingress whose controller is kept out": (
        ingress(host="llm.example.com", networkPolicy={"clients": []}),
        "networkPolicy.clients: empty, so the Ingress's controller may not reach the gateway; set its namespace or its "
        "addresses",
        ingress(host="llm.example.com", networkPolicy={"enabled": False}),
    ),
    "an HTTPRoute without keys": (
        http_route(security={"auth": "none"}),
        "httpRoute.enabled: security.auth none would let anyone on the network in; set security.auth to apiKeys or jwt",
        http_route(),
    ),
    "an HTTPRoute to a port on loopback": (
        http_route(gateway={"host": "127.0.0.1"}),
        "gateway.host: 127.0.0.1 is reached from inside the pod only, and an HTTPRoute comes from outside; set 0.0.0.0",
        http_route(gateway={"host": "0.0.0.0"}),
    ),
    "an HTTPRoute whose controller is kept out": (
        http_route(networkPolicy={"clients": []}),
        "networkPolicy.clients: empty, so the HTTPRoute's controller may not reach the gateway; set its namespace or "
        "its addresses",
        http_route(networkPolicy={"enabled": False}),
    ),
    "an HTTPRoute without a Gateway": (
        http_route(parents=[]),
        "httpRoute.parentRefs: missing; set the Gateway it belongs to, for example [{name: public, namespace: "
        "gateways}]",
        http_route(),
    ),
    "an HTTPRoute of every host": (
        http_route(hostnames=[]),
        "httpRoute.hostnames: missing, so it would take the paths of every host of the Gateway; set [llm.example.com]",
        http_route(),
    ),
    "an HTTPRoute with a port in its host": (
        http_route(hostnames=["llm.example.com", "llm.example.org:443"]),
        "httpRoute.hostnames: not a host, got llm.example.org:443; set a name like llm.example.com, in lower case and "
        "without scheme, port and path",
        http_route(hostnames=["llm.example.com", "llm.example.org"]),
    ),
    "a dashboard that anyone may use": (
        dashboard(security={"ray": {"auth": "none"}}),
        "dashboard.ingress.enabled: without a token whoever finds the host could run code in the pods; set "
        "security.ray.auth to token",
        dashboard(),
    ),
    "a dashboard behind an Ingress that asks nobody": (
        dashboard(auth=""),
        "dashboard.auth: missing; set controller, and in dashboard.ingress.annotations how it authenticates callers, "
        "or token where only a private network reaches the host",
        dashboard(auth="token"),
    ),
    "a dashboard whose controller is not told to ask": (
        dashboard(auth="controller", annotations={"cert-manager.io/cluster-issuer": "letsencrypt"}),
        "dashboard.ingress.annotations: none has the controller authenticate callers; set for example "
        "nginx.ingress.kubernetes.io/auth-url, alb.ingress.kubernetes.io/auth-type or "
        "traefik.ingress.kubernetes.io/router.middlewares, or dashboard.auth to token",
        dashboard(auth="controller", annotations={"traefik.ingress.kubernetes.io/router.middlewares": "auth-oidc@crd"}),
    ),
    "a dashboard whose controller takes Ray's header": (
        dashboard(auth="controller", annotations={"nginx.ingress.kubernetes.io/auth-type": "basic"}),
        "dashboard.ingress.annotations: Ray looks for its token in the header of basic authentication and would refuse "
        "everybody, got nginx.ingress.kubernetes.io/auth-type: basic; set an identity provider or client certificates, "
        "for example nginx.ingress.kubernetes.io/auth-url",
        dashboard(auth="controller", annotations={"alb.ingress.kubernetes.io/auth-type": "oidc"}),
    ),
    "a dashboard without a host": (
        dashboard(host=""),
        "dashboard.ingress.host: missing; set the host it is called by",
        dashboard(),
    ),
    "a dashboard without TLS": (
        dashboard(tls=[]),
        "dashboard.ingress.tls: missing, so the token would pass in the clear; set [{secretName: …, hosts: […]}], or "
        "[{hosts: […]}] where the controller has the certificate",
        dashboard(),
    ),
    "a dashboard whose controller is kept out": (
        dashboard(networkPolicy={"dashboardClients": []}),
        "networkPolicy.dashboardClients: empty, so the controller of dashboard.ingress may not reach the dashboard; "
        "set its namespace or its addresses",
        dashboard(networkPolicy={"enabled": False}),
    ),
    "a Secret from two places": (
        {"security": {"internal": {"existingSecret": "ours", "externalKey": "llm/internal"}, **STORE}},
        "security.internal.externalKey: existingSecret names a Secret already, got ours and llm/internal; keep one of "
        "the two",
        {"security": {"internal": {"externalKey": "llm/internal"}, **STORE}},
    ),
    "a Secret from no store": (
        {"security": {"ray": {"externalKey": "llm/ray"}}},
        "security.ray.externalKey: there is no store to fetch llm/ray from; set security.externalSecrets.store.name",
        {"security": {"ray": {"externalKey": "llm/ray"}, **STORE}},
    ),
    "a password to fetch for no Redis": (
        {"redis": {"externalKey": "llm/redis"}, "security": STORE},
        "redis.externalKey: opens the Redis at redis.address, and there is none; set redis.address or leave it out",
        {"redis": {"address": "redis:6379", "externalKey": "llm/redis"}, "security": STORE},
    ),
    "two places for Redis": (
        {"redis": {"enabled": True, "address": "redis:6379"}},
        "redis.address: redis.enabled installs a Redis of the release's own, got redis:6379; keep one of the two",
        {"redis": {"enabled": False, "address": "redis:6379"}},
    ),
    "a Redis without a port": (
        {"redis": {"address": "rediss://redis.example.com"}},
        "redis.address: not an address, got rediss://redis.example.com; set host:port, redis://host:port or "
        "rediss://host:port, and the password in redis.existingSecret",
        {"redis": {"address": "rediss://redis.example.com:6380"}},
    ),
    "a Redis with its password in the address": (
        {"redis": {"address": "redis://:secret@redis:6379"}},
        "redis.address: not an address, got …@redis:6379; set host:port, redis://host:port or rediss://host:port, and "
        "the password in redis.existingSecret",
        {"redis": {"address": "redis://redis:6379", "existingSecret": "our-redis"}},
    ),
    "a password for no Redis": (
        {"redis": {"existingSecret": "our-redis"}},
        "redis.existingSecret: opens the Redis at redis.address, and there is none; set redis.address or leave it out",
        {"redis": {"address": "redis:6379", "existingSecret": "our-redis"}},
    ),
    "a Secret by a name that no Secret has": (
        {"redis": {"address": "redis:6379", "existingSecret": "our_redis"}},
        "redis.existingSecret: not the name of a Secret, got our_redis; use lower-case letters, digits, dashes and "
        "dots",
        {"redis": {"address": "redis:6379", "existingSecret": "our.redis"}},
    ),
    "a pipeline without a store in a release without Milvus": (
        docs(vectorStore={}),
        "rag.docs.vectorStore.uri: missing, and the release has no Milvus; set milvus.enabled, milvus.uri or a file "
        "name ending in .db",
        {**docs(vectorStore={}), "milvus": {"enabled": True}},
    ),
    "two places for Milvus": (
        {"milvus": {"enabled": True, "uri": "http://root:secret@milvus:19530"}},
        "milvus.uri: milvus.enabled installs a Milvus of the release's own, got http://…@milvus:19530; keep one of "
        "the two",
        {"milvus": {"enabled": False, "uri": "http://milvus:19530"}},
    ),
    "a Milvus with its password in the address": (
        {"milvus": {"uri": "https://root:secret@milvus:19530"}},
        "milvus.uri: not an address, got https://…@milvus:19530; set http(s)://host:port, and user and password in "
        "milvus.existingSecret",
        {"milvus": {"uri": "https://milvus:19530", "existingSecret": "our-milvus"}},
    ),
    "a Milvus that is a file": (
        {"milvus": {"uri": "milvus.db"}},
        "milvus.uri: not an address, got milvus.db; set http(s)://host:port, and user and password in "
        "milvus.existingSecret",
        {"milvus": {"uri": "https://milvus.example.com"}},
    ),
    "a password for no Milvus": (
        {"milvus": {"existingSecret": "our-milvus"}},
        "milvus.existingSecret: opens a Milvus, and there is none; set milvus.enabled or milvus.uri, or leave it out",
        {
            **docs(vectorStore={"uri": "http://milvus:19530", "credential": "docs"}),
            "milvus": {"existingSecret": "our-milvus"},
        },
    ),
    "a password to fetch for no Milvus": (
        {"milvus": {"externalKey": "llm/milvus"}, "security": STORE},
        "milvus.externalKey: opens a Milvus, and there is none; set milvus.enabled or milvus.uri, or leave it out",
        {"milvus": {"enabled": True, "externalKey": "llm/milvus"}, "security": STORE},
    ),
    "two places for Milvus' Secret": (
        {"milvus": {"enabled": True, "existingSecret": "ours", "externalKey": "llm/milvus"}, "security": STORE},
        "milvus.externalKey: existingSecret names a Secret already, got ours and llm/milvus; keep one of the two",
        {"milvus": {"enabled": True, "existingSecret": "ours"}},
    ),
    "a Milvus that asks nobody for a password": (
        {"milvus": {"enabled": True, "config": {"common": {"security": {"authorizationEnabled": False}}}}},
        "milvus.config.common.security.authorizationEnabled: every pod that gets through would read and delete all "
        "documents, got false; leave it out",
        {"milvus": {"enabled": True, "config": {"common": {"gracefulTime": 3000}}}},
    ),
    "Milvus' password in a ConfigMap": (
        {"milvus": {"enabled": True, "config": {"common": {"security": {"defaultRootPassword": "secret"}}}}},
        "milvus.config.common.security.defaultRootPassword: it would stand in a ConfigMap; set milvus.existingSecret",
        {"milvus": {"enabled": True, "existingSecret": "our-milvus"}},
    ),
    "a fullname too long for the pod of Milvus": (
        {"fullnameOverride": "a" * 46, "milvus": {"enabled": True}},
        "fullnameOverride: with milvus.enabled a name may have 45 characters, or labels of Milvus' pod would be too "
        f"long, got 46 ({'a' * 46}); set a shorter fullnameOverride or release name",
        {"fullnameOverride": "a" * 45, "milvus": {"enabled": True}},
    ),
    "an adapter whose name is a path": (
        lora({"../sql": {"source": "s3://adapters/sql"}}),
        'models.chat.lora.adapters: not an adapter\'s name, got "../sql"; use letters, digits, dots, dashes and '
        "underscores, at most 63",
        lora({"Sql_v1.2-b": {"source": "s3://adapters/sql"}}),
    ),
    "an adapter with the name of a model": (
        {"models": {**MODELS, **lora({"embedder": {"source": "s3://adapters/sql"}})["models"]}},
        "models.chat.lora.adapters.embedder: embedder is a model or pipeline; choose another name",
        {"models": {**MODELS, **lora({"embedder-2": {"source": "s3://adapters/sql"}})["models"]}},
    ),
    "an adapter with the name of an alias": (
        {**lora({"gpt": {"source": "s3://adapters/sql"}}), "gateway": aliases(assistant=["gpt"])["gateway"]},
        "models.chat.lora.adapters.gpt: gpt is an alias of assistant; choose another name",
        {**lora(), "gateway": aliases(assistant=["gpt"])["gateway"]},
    ),
    "an adapter from nowhere": (
        lora({"sql": {"source": "adapters/sql"}}),
        "models.chat.lora.adapters.sql.source: not a source, got adapters/sql; one of: hf://org/name[@revision], "
        "s3://bucket/path, gs://bucket/path, pvc://claim/path, oci://registry/name:tag[#path]",
        lora({"sql": {"source": "hf://org/sql@main"}}),
    ),
    "an adapter that leaves its claim": (
        {
            **lora({"sql": {"source": "pvc://adapters/../sql"}}),
            **group("l4", modelClaims=["adapters"]),
        },
        "models.chat.lora.adapters.sql.source: leaves its claim, got pvc://adapters/../sql; set pvc://claim/path",
        {**lora({"sql": {"source": "pvc://adapters/sql"}}), **group("l4", modelClaims=["adapters"])},
    ),
    "adapters on a claim that no pod mounts": (
        lora(directory="pvc://adapters/chat"),
        "models.chat.lora.directory: worker group l4 does not mount the claim adapters; add it to "
        "workerGroups.l4.modelClaims",
        {**lora(directory="pvc://adapters/chat"), **group("l4", modelClaims=["adapters"])},
    ),
    "room for adapters and none": (
        chat(lora={"maxLoras": 8}),
        "models.chat.lora: no adapters; set directory, or adapters",
        chat(lora={"maxLoras": 8, "directory": "s3://adapters"}),
    ),
    "less room in memory than in a batch": (
        lora(maxCpuLoras=3),
        "models.chat.lora.maxCpuLoras: below maxLoras (4), got 3; set 4 or more",
        lora(maxCpuLoras=4),
    ),
    "a tenant's adapter beside a folder that is everybody's": (
        lora({"acme": {"source": "s3://adapters/acme", "tenants": ["acme"]}}, directory="s3://adapters"),
        "models.chat.lora.adapters.acme.tenants: what is in models.chat.lora.directory is for everybody who may use "
        "chat; leave directory out, and name its adapters",
        lora({"acme": {"source": "s3://adapters/acme", "tenants": ["acme"]}}),
    ),
    "a tenant's adapter where callers are not told apart": (
        {**lora({"acme": {"source": "s3://a/acme", "tenants": ["acme"]}}), "security": {"auth": "none"}},
        "models.chat.lora.adapters.acme.tenants: with security.auth none all callers are one tenant; leave tenants "
        "out, or set security.auth to apiKeys or jwt",
        {**lora({"acme": {"source": "s3://a/acme"}}), "security": {"auth": "none"}},
    ),
    "vLLM's switch for loading any path": (
        chat(env={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}),
        "models.chat.env: VLLM_ALLOW_RUNTIME_LORA_UPDATING has vLLM load whatever path it is told; take it out, and "
        "use models.chat.lora",
        chat(env={"VLLM_LOGGING_LEVEL": "DEBUG"}),
    ),
    "adapters by vLLM's own argument": (
        chat(engine={"extra": {"enable_lora": True}}),
        "models.chat.engine.extra.enable_lora: not set here; set lora",
        lora(),
    ),
    "a tenant's model that is an adapter nobody has": (
        {**lora(), "gateway": {"tenants": {"acme": {"models": ["chat:sqll"]}}}},
        "gateway.tenants.acme.models: no such route, model or pipeline, got chat:sqll; one of: chat",
        {**lora(), "gateway": {"tenants": {"acme": {"models": ["chat:sql"]}}}},
    ),
    "a tenant's model that is an adapter of a model without a folder of them": (
        {**chat(), "gateway": {"tenants": {"acme": {"models": ["chat:any"]}}}},
        "gateway.tenants.acme.models: no such route, model or pipeline, got chat:any; one of: chat",
        {**lora(directory="s3://adapters"), "gateway": {"tenants": {"acme": {"models": ["chat:any"]}}}},
    ),
    "weights larger than the GPUs": (
        l40s(2, source="hf://meta-llama/Llama-3.3-70B-Instruct@main"),
        "models.chat.accelerator: 141.1 GB of weights (70.6 billion parameters at 2 bytes) do not fit into 2 x L40S, "
        "with 41.7 GB for them on each; set count to 4 or more, a larger type, or engine.quantization",
        l40s(2, source="hf://meta-llama/Llama-3.3-70B-Instruct@main", engine={"quantization": "fp8"}),
    ),
    "a context longer than what the weights leave": (
        l40s(4, source="hf://meta-llama/Llama-3.3-70B-Instruct@main", engine={"max_model_len": 131072}),
        "models.chat.engine.max_model_len: one request of 131072 tokens does not fit: 141.1 GB of weights and room for "
        "78405 tokens of KV cache (25.7 GB) in 4 x L40S; set 78405 or less, kv_cache_dtype to fp8, or more "
        "accelerators",
        l40s(
            4,
            source="hf://meta-llama/Llama-3.3-70B-Instruct@main",
            engine={"max_model_len": 131072, "kv_cache_dtype": "fp8"},
        ),
    ),
    "a fullname too long for the pod of Redis": (
        {"fullnameOverride": "a" * 47, "redis": {"enabled": True}},
        "fullnameOverride: with redis.enabled a name may have 46 characters, or labels of Redis' pod would be too "
        f"long, got 47 ({'a' * 47}); set a shorter fullnameOverride or release name",
        {"fullnameOverride": "a" * 46, "redis": {"enabled": True}},
    ),
}


@pytest.mark.parametrize(("broken", "message"), [rule[:2] for rule in RULES.values()], ids=list(RULES))
def test_refused(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(RenderRefused) as refusal:
        render_chart(broken)
    assert str(refusal.value) == message


#: `path: problem; what to set`, or what the value must be.
SAYS_WHAT_WOULD_BE_RIGHT = re.compile(r"[a-zA-Z][\w.\[\]-]*: \S.*(; |one of: |, or | must ).+")


@pytest.mark.parametrize("message", [rule[1] for rule in RULES.values()], ids=list(RULES))
def test_a_message_names_the_key_and_says_what_would_be_right(message: str) -> None:
    assert all(SAYS_WHAT_WOULD_BE_RIGHT.fullmatch(line) for line in message.splitlines())


@pytest.mark.parametrize("values", [rule[2] for rule in RULES.values()], ids=list(RULES))
def test_the_nearby_values_pass(values: dict[str, Any]) -> None:
    assert render_chart(values)


def test_everything_wrong_is_said_at_once() -> None:
    values = deepcopy(chat(replicas={"min": 3, "max": 2}, drainSeconds=900))
    values["ingress"] = {"enabled": True}
    with pytest.raises(RenderRefused) as refusal:
        render_chart(values)
    assert [line.partition(":")[0] for line in str(refusal.value).splitlines()] == [
        "models.chat.replicas",
        "models.chat.drainSeconds",
        "networkPolicy.clients",
        "ingress.host",
    ]


@pytest.mark.parametrize(
    ("values", "path"),
    [
        (group("l4", modelImages=["registry/chat:1"]), "workerGroups.l4.modelImages"),
        (chat(source="oci://registry/chat:1", runtime="standalone"), "models.chat.source"),
    ],
)
def test_an_old_kubernetes_mounts_no_images(values: dict[str, Any], path: str) -> None:
    with pytest.raises(RenderRefused) as refusal:
        render_chart(values, kubernetes="1.32.9-eks-113cf36")
    assert str(refusal.value) == (
        f"{path}: Kubernetes mounts images from 1.33 on, got v1.32.9-eks-113cf36; upgrade it, or put the weights on a "
        "claim (pvc://claim/path)"
    )
    assert render_chart(values, kubernetes="1.33.0-eks-113cf36")
    assert render_chart({"models": {"chat": CHAT}}, kubernetes="1.32.9-eks-113cf36")


def test_a_release_name_of_60_characters_is_refused() -> None:
    with pytest.raises(RenderRefused, match="the length must not be longer than 53"):
        render_chart(release="a" * 60)


def test_a_release_name_is_not_cut_to_fit() -> None:
    with pytest.raises(RenderRefused, match=r"allows 47 characters .* got 50 .* set a shorter .* release name"):
        render_chart(release="a" * 38)
