from serve_apps.llm.config import Accelerator, Parallelism
from tests.tools.plan.releases import cpu_pods, model, pods, release
from tools.plan import table
from tools.plan.report import report

TABLE = table.read()


def test_floor_and_ceiling_add_up_by_the_hour_and_by_the_month() -> None:
    lines = report(release(model(), of=[cpu_pods(cpu=4, memory_gi=16), pods()]), TABLE, {}).splitlines()
    assert lines[1].split() == ["head", "m7i.2xlarge", "1", "0.40"]
    assert lines[2].split() == ["models.chat", "g6e.xlarge", "2", "to", "4", "3.72", "to", "7.44"]
    assert lines[3].split() == ["together", "4.13", "to", "7.85"]
    assert lines[4].split()[2:] == ["3,011.40", "to", "5,728.46"]


def test_what_the_weights_leave_is_for_the_kv_cache() -> None:
    # 90 % of 48 GB, less 16 of weights and 1.5 for what every engine takes.
    assert "chat: 16.0 GB of weights on 1 x L40S leave 26 GB for the KV cache" in report(release(model()), TABLE, {})
    tight = model(engine={"gpu_memory_utilization": 0.5})
    assert "leave 6 GB for the KV cache" in report(release(tight), TABLE, {})


def test_a_model_that_does_not_fit_is_told_so() -> None:
    text = report(release(model(weights_gb=140)), TABLE, {})
    assert "chat: 140.0 GB of weights do not fit 1 x L40S (48 GB, of which vLLM takes" in text
    assert "set more GPUs, larger ones, or engine.quantization" in text
    four = model(weights_gb=140, accelerator=Accelerator(type="L40S", count=4), holds_gb=192)
    assert "leave 27 GB" in report(release(four), TABLE, {})


def test_a_replica_of_several_nodes_has_the_memory_of_all() -> None:
    large = {"weights_gb": 405, "accelerator": Accelerator(type="A100-40G", count=8)}
    assert "405.0 GB of weights do not fit 8 x A100-40G" in report(release(model(**large, holds_gb=320)), TABLE, {})
    two = model(**large, holds_gb=640, nodes=2)
    assert "on 16 x A100-40G in 2 nodes leave 147 GB" in report(release(two), TABLE, {})


def test_each_rank_holds_the_weights_unless_experts_are_spread_over_them() -> None:
    two = {"holds_gb": 96, "parallelism": Parallelism(data=2)}
    assert "16.0 GB of weights on 2 x L40S leave 51 GB" in report(release(model(**two)), TABLE, {})
    experts = {"holds_gb": 96, "parallelism": Parallelism(data=2, experts=True)}
    assert "16.0 GB of weights on 2 x L40S leave 67 GB" in report(release(model(**experts)), TABLE, {})


def test_an_unknown_size_is_asked_for_and_taken() -> None:
    unknown = release(model(weights_gb=None))
    assert "chat: how large its weights are is not in its name; say so: WEIGHTS=chat=<GB>" in report(unknown, TABLE, {})
    assert "chat: 20.0 GB of weights" in report(unknown, TABLE, {"chat": 20})
    known = release(model(weights_gb=15.2))
    assert "chat: 15.2 GB of weights" in report(known, TABLE, {})
    assert "chat: 20.0 GB of weights" in report(known, TABLE, {"chat": 20})


def test_a_request_that_would_not_wait_long_enough_is_pointed_out() -> None:
    large = {"weights_gb": 810, "accelerator": Accelerator(type="H100", count=8), "holds_gb": 1000}
    told = "longer than gateway.firstByteTimeoutS (900 s) holds a request; set it higher"
    assert told in report(release(model(**large, starts_for_a_request=True)), TABLE, {})
    assert told not in report(release(model(**large)), TABLE, {})
    assert told not in report(release(model(starts_for_a_request=True)), TABLE, {})


def test_pods_that_no_node_has_room_for_are_named() -> None:
    text = report(release(of=[pods(memory_gi=4096)]), TABLE, {})
    assert "models.chat                  none of the table's nodes has room for such a pod" in text


def test_groups_without_a_pod_are_left_out() -> None:
    assert "workerGroups.l4" not in report(release(of=[pods(name="workerGroups.l4", least=0, most=0)]), TABLE, {})
