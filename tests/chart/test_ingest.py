"""ingest.yaml: the Jobs and RayJobs that bring documents into pipelines."""

import shlex
from typing import Any

import pytest

from serve_apps.rag import ingest
from tests.chart.network import End, allowed
from tests.chart.pods import pods
from tests.chart.render import application, of_kind, ray_container, render_chart, the, worker_group

MODELS: dict[str, Any] = {
    "chat": {"source": "hf://org/chat", "accelerator": {"type": "L4", "count": 1}},
    "embedder": {"task": "embed", "source": "hf://org/embedder", "accelerator": {"type": "L4", "count": 1}},
}
DOCS: dict[str, Any] = {"llm": "chat", "embedder": "embedder", "vectorStore": {"uri": "http://milvus:19530"}}


def values(more: dict[str, Any] | None = None, **block: Any) -> dict[str, Any]:
    pipeline = {**DOCS, "ingest": {"source": "s3://bucket/manuals", **block}}
    return {"models": MODELS, "rag": {"docs": pipeline}, **(more or {})}


def job(more: dict[str, Any] | None = None, kind: str = "Job", **block: Any) -> dict[str, Any]:
    (found,) = of_kind(render_chart(values(more, **block)), kind).values()
    return found


def container(found: dict[str, Any]) -> dict[str, Any]:
    one: dict[str, Any] = found["spec"]["template"]["spec"]["containers"][0]
    return one


def test_without_a_source_there_is_no_job() -> None:
    objects = render_chart({"models": MODELS, "rag": {"docs": DOCS}})
    assert not of_kind(objects, "Job")
    assert not of_kind(objects, "CronJob")


def test_it_uploads_through_the_serve_service() -> None:
    found = container(job({"gateway": {"port": 9000}}, tenant="team-a", concurrency=2))
    assert found["command"] == ["python", "-m", ingest.__name__]
    assert found["args"] == [
        "s3://bucket/manuals",
        "http://llm-serving-serve-svc:9000",
        "docs",
        "--tenant=team-a",
        "--concurrency=2",
    ]
    assert found["image"].endswith("ray-serve:0.1.0")


def test_the_pipeline_itself_hears_nothing_of_it() -> None:
    config = application(render_chart(values()), "rag")["deployments"][0]["user_config"]
    assert config["pipelines"]["docs"] == DOCS


def test_a_claim_is_mounted_read_only() -> None:
    found = job(source="pvc://corpus/en/manuals")
    assert container(found)["args"][0] == "/source/en/manuals"
    assert {"name": "source", "mountPath": "/source", "readOnly": True} in container(found)["volumeMounts"]
    claims = [volume["persistentVolumeClaim"] for volume in found["spec"]["template"]["spec"]["volumes"][1:]]
    assert claims == [{"claimName": "corpus", "readOnly": True}]
    assert len(job()["spec"]["template"]["spec"]["volumes"]) == 1


def test_credentials_come_from_a_secret_or_the_service_account() -> None:
    found = job(existingSecret="s3")
    assert container(found)["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert "envFrom" not in container(job())
    assert job()["spec"]["template"]["spec"]["serviceAccountName"] == "llm-serving"


def test_what_changes_is_another_job_and_what_does_not_is_the_same() -> None:
    def name(**block: Any) -> str:
        found: str = job(**block)["metadata"]["name"]
        return found

    assert name() == name()
    assert name() != name(source="s3://bucket/other")
    long = "x" * 47
    (longest,) = of_kind(render_chart(values({"fullnameOverride": long})), "Job")
    assert len(longest) <= 52


def test_a_schedule_makes_a_cron_job_of_a_lasting_name() -> None:
    found = job(kind="CronJob", schedule="0 3 * * *")
    assert found["spec"]["schedule"] == "0 3 * * *"
    assert found["spec"]["concurrencyPolicy"] == "Forbid"
    assert found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    other = job(kind="CronJob", schedule="0 4 * * *", source="s3://bucket/other")
    assert other["metadata"]["name"] == found["metadata"]["name"]


def test_an_unreadable_document_does_not_start_it_again() -> None:
    (rule,) = job()["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [1])


def test_its_pods_reach_the_gateway_and_nothing_else_of_the_release() -> None:
    objects = render_chart(values({"networkPolicy": {"enabled": True}}))
    policies = list(of_kind(objects, "NetworkPolicy").values())
    for policy in policies:
        policy["metadata"]["namespace"] = "ray-system"
    (found,) = of_kind(objects, "Job").values()
    pod = End("10.1.0.1", "ray-system", found["spec"]["template"]["metadata"]["labels"])
    head = {"app.kubernetes.io/instance": "llm-serving", "ray.io/is-ray-node": "yes", "ray.io/node-type": "head"}
    ray = End("10.1.0.2", "ray-system", head)
    assert allowed(policies, pod, ray, 8000)
    assert not allowed(policies, pod, ray, 6379)


def ray_job(more: dict[str, Any] | None = None, **block: Any) -> dict[str, Any]:
    return the(render_chart(values(more, executor="ray-data", **block)), "RayJob")


def groups(found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The head, and the workers."""
    cluster = found["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    return cluster["headGroupSpec"], workers


def test_ray_data_does_it_in_place_of_a_job_and_not_beside_one() -> None:
    objects = render_chart(values(executor="ray-data"))
    assert of_kind(objects, "RayJob")
    assert not of_kind(objects, "Job")
    assert not of_kind(render_chart(values(executor="job")), "RayJob")


def test_its_driver_is_told_what_a_job_is_told() -> None:
    told = {"gateway": {"port": 9000}}
    words = shlex.split(ray_job(told, tenant="team-a", workers=3)["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "serve_apps.rag.job"]
    assert words[3:] == [*container(job(told, tenant="team-a"))["args"], "--workers=3"]
    assert words[3:8] == [
        "s3://bucket/manuals",
        "http://llm-serving-serve-svc:9000",
        "docs",
        "--tenant=team-a",
        "--concurrency=4",
    ]


@pytest.mark.parametrize("source", ["s3://bucket/all my manuals", "s3://bucket/it's $(id) `id`; ü", 's3://bucket/"a"'])
def test_a_shell_takes_a_source_as_it_is(source: str) -> None:
    assert shlex.split(ray_job(source=source)["spec"]["entrypoint"])[3] == source


def test_it_has_its_workers_and_a_head_that_only_drives() -> None:
    head, workers = groups(ray_job(workers=3))
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 3
    assert groups(ray_job())[1]["replicas"] == 2
    assert (head["rayStartParams"]["num-cpus"], workers["rayStartParams"]["num-cpus"]) == ("0", "1")
    for group in (head, workers):
        assert ray_container(group)["image"].endswith("ray-serve:0.1.0")
    assert ray_container(workers)["resources"]["requests"]["cpu"] == "1"


def test_its_workers_have_the_resources_that_are_asked_for_and_the_usual_ones_beside() -> None:
    _, workers = groups(ray_job(resources={"requests": {"cpu": "200m"}}))
    assert ray_container(workers)["resources"] == {
        "requests": {"cpu": "200m", "memory": "2Gi"},
        "limits": {"memory": "2Gi"},
    }


def test_its_workers_stand_where_pipelines_do_and_are_no_part_of_the_group() -> None:
    cpu = {"nodeSelector": {"pool": "cpu"}, "tolerations": [{"key": "cpu", "operator": "Exists"}]}
    objects = render_chart(values({"workerGroups": {"cpu": cpu}}, executor="ray-data"))
    _, workers = groups(the(objects, "RayJob"))
    online = worker_group(objects, "cpu")["template"]["spec"]
    for key in ("nodeSelector", "tolerations", "securityContext", "serviceAccountName"):
        assert workers["template"]["spec"][key] == online[key], key
    assert "labels" not in workers
    mounted = {mount["mountPath"] for mount in ray_container(workers)["volumeMounts"]}
    assert {path for path in mounted if path.startswith("/etc")} == {"/etc/llm-serving/secrets/internal"}


def test_head_and_workers_read_the_claim_or_have_what_opens_the_bucket() -> None:
    found = ray_job(source="pvc://corpus/en/manuals")
    assert shlex.split(found["spec"]["entrypoint"])[3] == "/source/en/manuals"
    for group in groups(found):
        assert {"name": "source", "mountPath": "/source", "readOnly": True} in ray_container(group)["volumeMounts"]
        (claim,) = (one for one in group["template"]["spec"]["volumes"] if one["name"] == "source")
        assert claim["persistentVolumeClaim"] == {"claimName": "corpus", "readOnly": True}
    for group in groups(ray_job(existingSecret="s3")):
        assert ray_container(group)["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert "source" not in {one["name"] for one in group["template"]["spec"]["volumes"]}


def test_only_a_ray_job_that_is_asked_for_something_else_runs_again() -> None:
    def name(more: dict[str, Any] | None = None, **block: Any) -> str:
        found: str = ray_job(more, **block)["metadata"]["name"]
        return found

    assert (
        name()
        == name(workers=5)
        == name(concurrency=8)
        == name(resources={})
        == name({"image": {"serve": {"tag": "next"}}})
    )
    assert len({name(), name(source="s3://bucket/other"), name(tenant="team-a"), name(existingSecret="s3")}) == 4
    assert len(name({"fullnameOverride": "x" * 47})) <= 47


def test_the_ray_job_ends_with_its_cluster_and_goes_on_with_another() -> None:
    found = ray_job()
    spec = found["spec"]
    assert (spec["shutdownAfterJobFinishes"], spec["backoffLimit"], spec["submissionMode"]) == (True, 3, "HTTPMode")
    assert found["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "authOptions" not in ray_job({"security": {"ray": {"auth": "none"}}})["spec"]["rayClusterSpec"]


@pytest.mark.parametrize("egress", [[], [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]])
def test_its_ray_pods_reach_each_other_the_gateway_and_the_source(egress: list[dict[str, Any]]) -> None:
    policy = {"enabled": True, "operators": [{"namespaceSelector": {}}], "egress": egress}
    objects = render_chart(values({"networkPolicy": policy}, executor="ray-data"), namespace="ray-system")
    policies = list(of_kind(objects, "NetworkPolicy").values())
    for one in policies:
        one["metadata"]["namespace"] = "ray-system"
    (job_name,) = of_kind(objects, "RayJob")
    labels = {name: pod["metadata"]["labels"] for name, pod in pods(objects).items()}
    ends = {name: End(f"10.1.0.{number}", "ray-system", labels[name]) for number, name in enumerate(labels, 1)}
    head, worker = ends[f"{job_name}-head"], ends[f"{job_name}-ingest"]
    operator, source = End("10.2.0.1", "kuberay", {}), End("192.0.2.1")
    assert allowed(policies, worker, head, 6379)
    assert allowed(policies, head, worker, 41234)
    assert allowed(policies, worker, ends["cpu"], 8000)
    assert not allowed(policies, worker, ends["cpu"], 6379)
    assert allowed(policies, worker, source, 443)
    assert allowed(policies, End("192.0.2.2"), worker, 443) is False
    assert allowed(policies, operator, head, 8265)
    assert not allowed(policies, ends["cpu"], head, 6379)
    for budget in of_kind(objects, "PodDisruptionBudget").values():
        assert not budget["spec"]["selector"]["matchLabels"].items() <= worker.labels.items()
