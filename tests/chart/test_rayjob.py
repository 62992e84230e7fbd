"""rayjob.yaml: batches on accelerators of their own."""

import json
from typing import Any

import pytest
import yaml

from serve_apps.batch.config import ARGS_VARIABLE, JobArgs
from serve_apps.common.logging import CONTAINER_LOG
from serve_apps.llm.config import LLMArgs
from tests.chart.network import End, allowed
from tests.chart.render import CHAT, of_kind, ray_container, render_chart, serve_config, the
from tests.chart.serve_schema import unknown_keys

MODEL: dict[str, Any] = {**CHAT, "replicas": {"min": 0, "max": 1}, "engine": {"max_num_seqs": 128}}
JOB: dict[str, Any] = {"model": "chat", "input": "s3://bucket/in.jsonl", "output": "s3://bucket/out"}


def values(more: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **job: Any) -> dict[str, Any]:
    return {"models": {"chat": model or MODEL}, "batch": {"jobs": {"night": {**JOB, **job}}}, **(more or {})}


def spec(*args: Any, **job: Any) -> dict[str, Any]:
    found: dict[str, Any] = the(render_chart(values(*args, **job)), "RayJob")["spec"]
    return found


def head(found: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = found["rayClusterSpec"]["headGroupSpec"]
    return group


def workers(found: dict[str, Any]) -> dict[str, Any]:
    (group,) = found["rayClusterSpec"]["workerGroupSpecs"]
    return dict(group)


def test_a_driver_logs_to_where_its_submitter_reads() -> None:
    names = [{one["name"] for one in ray_container(group)["env"]} for group in (head(spec()), workers(spec()))]
    assert [CONTAINER_LOG in each for each in names] == [False, True]


def arguments(found: dict[str, Any]) -> JobArgs:
    variables = {one["name"]: one.get("value") for one in ray_container(head(found))["env"]}
    return JobArgs.model_validate_json(variables[ARGS_VARIABLE])


def test_without_jobs_there_is_no_rayjob() -> None:
    assert not of_kind(render_chart({"models": {"chat": MODEL}, "batch": {"jobs": {"night": None}}}), "RayJob")


def test_kuberay_finds_its_finalizer_and_has_nothing_to_write() -> None:
    assert the(render_chart(values()), "RayJob")["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"]


def test_its_driver_has_the_models_own_application() -> None:
    args = arguments(spec(replicas=2, concurrency=64))
    assert (args.input, args.output, args.replicas, args.concurrency) == (JOB["input"], JOB["output"], 2, 64)
    assert list(unknown_keys(args.serve)) == []
    (application,) = args.serve["applications"]
    online = next(one for one in serve_config(render_chart(values()))["applications"] if one["name"] == "chat")
    assert LLMArgs.model_validate(application["args"]) == LLMArgs.model_validate(online["args"])
    (deployment,) = application["deployments"]
    assert deployment["autoscaling_config"]["min_replicas"] == deployment["autoscaling_config"]["max_replicas"] == 2
    assert (deployment["max_ongoing_requests"], deployment["max_queued_requests"]) == (64, -1)


def test_its_replicas_read_their_prompts_themselves() -> None:
    args = arguments(spec(model={**MODEL, "parallelism": {"prefill": {"replicas": {"min": 0, "max": 1}}}}))
    (application,) = args.serve["applications"]
    assert [one["name"] for one in application["deployments"]] == ["VLLMServer:chat"]
    assert "parallelism" not in application["args"]


@pytest.mark.parametrize(("replicas", "count", "nodes"), [(1, 1, 1), (3, 1, 3), (2, 4, 2)])
def test_it_has_the_nodes_that_its_replicas_fill(replicas: int, count: int, nodes: int) -> None:
    groups = {"big": {"accelerator": {"type": "L4", "count": 4}}}
    model = {**MODEL, "accelerator": {"type": "L4", "count": count}}
    group = workers(spec({"workerGroups": groups}, model, replicas=replicas))
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == nodes
    assert ray_container(group)["resources"]["limits"]["nvidia.com/gpu"] == str(count)
    # Every accelerator's bundle takes one, and Ray Data must have some.
    assert int(group["rayStartParams"]["num-cpus"]) > count
    assert group["rayStartParams"]["include-log-monitor"] == "0"


def test_several_replicas_share_a_node_that_is_larger_than_they() -> None:
    model = {**MODEL, "workerGroup": "big", "accelerator": {"type": "L4", "count": 2}}
    found = spec({"workerGroups": {"big": {"accelerator": {"type": "L4", "count": 4}}}}, model, replicas=3)
    assert workers(found)["replicas"] == 2
    assert workers(found)["labels"]["llm-serving/worker-group"] == "big"


def test_it_stands_on_the_models_nodes_as_their_other_pods_do() -> None:
    objects = render_chart(values())
    online = next(
        group
        for group in the(objects, "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        if group["groupName"] == "l4"
    )
    job = workers(the(objects, "RayJob")["spec"])
    for key in ("serviceAccountName", "automountServiceAccountToken", "securityContext", "tolerations", "nodeSelector"):
        assert job["template"]["spec"].get(key) == online["template"]["spec"].get(key), key
    ours, theirs = ray_container(job), ray_container(online)
    for key in ("image", "resources", "securityContext", "env", "volumeMounts"):
        assert ours[key] == theirs[key], key
    assert job["labels"] == online["labels"]


def test_a_cluster_is_ready_before_there_is_a_proxy() -> None:
    found = spec()
    for group in (head(found), workers(found)):
        assert ray_container(group)["readinessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}


def test_it_ends_with_its_cluster_and_goes_on_with_another() -> None:
    found = spec()
    assert (found["shutdownAfterJobFinishes"], found["backoffLimit"], found["submissionMode"]) == (True, 3, "HTTPMode")
    assert found["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "authOptions" not in spec({"security": {"ray": {"auth": "none"}}})["rayClusterSpec"]


def test_claims_are_mounted_once_where_their_places_are() -> None:
    found = spec(input="pvc://nights/a/in.jsonl", output="pvc://nights/out")
    args = arguments(found)
    assert (args.input, args.output) == ("file:///mnt/batch/nights/a/in.jsonl", "file:///mnt/batch/nights/out")
    for group in (head(found), workers(found)):
        mounts = [one for one in ray_container(group)["volumeMounts"] if one["mountPath"].startswith("/mnt/batch")]
        assert mounts == [{"name": "batch-nights", "mountPath": "/mnt/batch/nights"}]
        volumes = [one for one in group["template"]["spec"]["volumes"] if one["name"] == "batch-nights"]
        assert volumes == [{"name": "batch-nights", "persistentVolumeClaim": {"claimName": "nights"}}]


def test_a_place_may_be_on_the_claim_of_its_models_weights() -> None:
    found = spec({"workerGroups": {"l4": {"modelClaims": ["nights"]}}}, output="pvc://nights/out")
    pod = workers(found)["template"]["spec"]
    (volume,) = (one for one in pod["volumes"] if "persistentVolumeClaim" in one)
    assert volume["persistentVolumeClaim"] == {"claimName": "nights"}
    mounts = {one["mountPath"]: one for one in pod["containers"][0]["volumeMounts"] if one["name"] == volume["name"]}
    assert {path: one.get("readOnly", False) for path, one in mounts.items()} == {
        "/mnt/models/nights": True,
        "/mnt/batch/nights": False,
    }


def test_credentials_come_from_a_secret_or_the_service_account() -> None:
    found = spec(existingSecret="s3")
    for group in (head(found), workers(found)):
        assert ray_container(group)["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert group["template"]["spec"]["serviceAccountName"] == "llm-serving"
    assert "envFrom" not in ray_container(head(spec()))


def test_only_what_asks_something_else_runs_again() -> None:
    def name(more: dict[str, Any] | None = None, **job: Any) -> str:
        found: str = the(render_chart(values(more, **job)), "RayJob")["metadata"]["name"]
        return found

    assert name() == name({"image": {"vllm": {"tag": "next"}}}) == name(replicas=2)
    assert len({name(), name(input="s3://bucket/other.jsonl"), name(output="s3://bucket/other")}) == 3
    assert len(name({"fullnameOverride": "x" * 47})) <= 47


def test_the_batch_application_hears_nothing_of_jobs() -> None:
    both = values()
    both["batch"] |= {"enabled": True, "storage": "s3://bucket/batches"}
    (application,) = (one for one in serve_config(render_chart(both))["applications"] if one["name"] == "batch")
    assert "jobs" not in yaml.safe_dump(application)


def test_its_pods_reach_each_other_and_are_no_part_of_the_service() -> None:
    objects = render_chart(values({"networkPolicy": {"operators": [{"namespaceSelector": {}}]}}))
    policies = list(of_kind(objects, "NetworkPolicy").values())
    for policy in policies:
        policy["metadata"]["namespace"] = "ray-system"
    found = the(objects, "RayJob")["spec"]
    by_kuberay = {"ray.io/is-ray-node": "yes"}

    def end(address: str, group: dict[str, Any], kind: str) -> End:
        labels = {**group["template"]["metadata"]["labels"], **by_kuberay, "ray.io/node-type": kind}
        return End(address, "ray-system", labels)

    job_head, job_worker = end("10.1.0.1", head(found), "head"), end("10.1.0.2", workers(found), "worker")
    service = End(
        "10.1.0.3",
        "ray-system",
        {"app.kubernetes.io/instance": "llm-serving", **by_kuberay, "ray.io/node-type": "head"},
    )
    operator = End("10.1.0.4", "kuberay", {})
    assert allowed(policies, job_worker, job_head, 6379)
    assert allowed(policies, operator, job_head, 8265)
    assert not allowed(policies, operator, job_head, 8000)
    assert not allowed(policies, service, job_head, 6379)
    assert not allowed(policies, job_worker, service, 6379)
    for budget in of_kind(objects, "PodDisruptionBudget").values():
        assert not budget["spec"]["selector"]["matchLabels"].items() <= job_head.labels.items()
    assert "LLM_SERVING_BATCH_JOB" not in json.dumps(the(objects, "RayService"))
