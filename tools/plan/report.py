"""A plan in words. Pure."""

from collections.abc import Iterator, Mapping

from tools.plan.nodes import Nodes, nodes
from tools.plan.release import Model, Release
from tools.plan.start import start
from tools.plan.table import Table

HOURS_A_MONTH = 730
#: vLLM's own default of gpu_memory_utilization.
UTILIZATION = 0.9
#: GB of a GPU that activations, graphs and CUDA take, whatever the model.
OVERHEAD_GB = 1.5


def report(release: Release, table: Table, told_gb: Mapping[str, float]) -> str:
    """What ``release`` costs and how it starts.

    ``told_gb`` is the size of weights by the model's name, where somebody knows it better than the chart.
    """
    needed = [nodes(pods, table) for pods in release.pods if pods.most]
    lines = [*_costs(needed)]
    for model in release.models:
        lines += ["", *_model(model, release, table, told_gb, needed)]
    return "\n".join(lines)


def _costs(needed: list[Nodes]) -> Iterator[str]:
    yield f"{'pods':28} {'node':18} {'nodes':>9} {'$ an hour':>18}"
    least_usd = most_usd = 0.0
    for one in needed:
        if not one.instance:
            yield f"{one.pods.name:28} none of the table's nodes has room for such a pod"
            continue
        floor, ceiling = one.least * one.usd, one.most * one.usd
        least_usd, most_usd = least_usd + floor, most_usd + ceiling
        yield f"{one.pods.name:28} {one.instance:18} {_range(one.least, one.most):>9} {_usd(floor, ceiling):>18}"
    yield f"{'together':57} {_usd(least_usd, most_usd):>18}"
    monthly = _usd(least_usd * HOURS_A_MONTH, most_usd * HOURS_A_MONTH)
    yield f"{'a month':57} {monthly:>18}"


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def _usd(floor: float, ceiling: float) -> str:
    return f"{floor:,.2f}" if floor == ceiling else f"{floor:,.2f} to {ceiling:,.2f}"


def _model(
    model: Model, release: Release, table: Table, told_gb: Mapping[str, float], needed: list[Nodes]
) -> Iterator[str]:
    size_gb = told_gb.get(model.name) or model.weights_gb
    if size_gb is None:
        yield f"{model.name}: how large its weights are is not in its name; say so: WEIGHTS={model.name}=<GB>"
        return
    yield from _room(model, size_gb)
    home = next((one.instance for one in needed if one.pods.name == model.pods), "")
    stages = start(model, size_gb, table.instances.get(home), table)
    cold_s, prepared_s = sum(one.cold_s for one in stages), sum(one.prepared_s for one in stages)
    yield f"  {'from nothing to the first answer':34} {cold_s:5.0f} s {prepared_s:5.0f} s if prepared"
    for one in stages:
        prepared = f"{one.prepared_s:5.0f} s {one.by}" if one.prepared_s < one.cold_s else ""
        yield f"    {one.stage:32} {one.cold_s:5.0f} s {prepared}".rstrip()
    if model.starts_for_a_request and cold_s > release.first_byte_timeout_s:
        held = f"gateway.firstByteTimeoutS ({release.first_byte_timeout_s:.0f} s)"
        yield f"  longer than {held} holds a request; set it higher"


def _room(model: Model, size_gb: float) -> Iterator[str]:
    """Whether the weights fit, and what they leave."""
    weights = f"{model.name}: {size_gb:.1f} GB of weights"
    accelerator = f"{model.devices} x {model.accelerator.type}"
    if model.nodes > 1:
        accelerator += f" in {model.nodes} nodes"
    if model.accelerator.type == "cpu":
        yield f"{weights} in the memory of {accelerator}"
        return
    share = float(model.engine.get("gpu_memory_utilization", UTILIZATION))
    left_gb = model.holds_gb * share - size_gb * model.copies - OVERHEAD_GB * model.devices
    if left_gb > 0:
        yield f"{weights} on {accelerator} leave {left_gb:.0f} GB for the KV cache"
    else:
        yield f"{weights} do not fit {accelerator} ({model.holds_gb:.0f} GB, of which vLLM takes {share:.0%});"
        yield "  set more GPUs, larger ones, or engine.quantization"
