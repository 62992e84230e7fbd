"""ingest.yaml: the Jobs that bring documents into pipelines."""

from typing import Any

from serve_apps.rag import ingest
from tests.chart.network import End, allowed
from tests.chart.render import application, of_kind, render_chart

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
