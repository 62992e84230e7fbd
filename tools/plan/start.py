"""How long a model takes from a request for a node to its first answer. Pure."""

from dataclasses import dataclass

from tools.plan.release import Model
from tools.plan.table import Duration, Instance, Stage, Table


@dataclass(frozen=True)
class Took:
    """A stage, in seconds: after a plain install, and prepared as `by` says."""

    stage: Stage
    cold_s: float
    prepared_s: float
    by: str


def start(model: Model, size_gb: float, instance: Instance | None, table: Table) -> list[Took]:
    """The stages of a start of ``model``, whose weights have ``size_gb``, on ``instance`` (None: of unknown network).

    Eager engines compile nothing and record no graphs.
    """
    network_gb_per_s = instance.network_gbit / 8 if instance else float("inf")
    stages = []
    for stage, duration in table.start.items():
        if stage in ("compile", "graphs") and model.engine.get("enforce_eager"):
            continue
        if stage == "weights":
            scheme = model.source.partition("://")[0]
            cold_s, prepared_s = _transfer(duration, scheme, size_gb, network_gb_per_s)
        else:
            cold_s = duration.cold_s or duration.gb / _rate(duration, "")
            prepared_s = duration.prepared_s
        stages.append(Took(stage, cold_s, prepared_s, duration.by))
    return stages


def _transfer(duration: Duration, scheme: str, size_gb: float, network_gb_per_s: float) -> tuple[float, float]:
    cold = min(_rate(duration, scheme), network_gb_per_s)
    return size_gb / cold, size_gb / min(max(duration.prepared_gb_per_s, cold), network_gb_per_s)


def _rate(duration: Duration, scheme: str) -> float:
    rates = duration.cold_gb_per_s
    return rates[scheme] if isinstance(rates, dict) else rates
