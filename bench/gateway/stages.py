"""Which systems stand beside each other while they are measured, and what is measured of them.

A Ray node that idles takes a tenth of a core, in bursts, and the percentiles of what stands beside it show them. So
only what is compared is up at a time, and some systems are measured in several stages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.gateway import measures
from bench.gateway.measures import Client, Effort
from bench.gateway.systems import System

#: Groups of systems that start together.
GROUPS = ("direct", "haproxy", "vllm-router", "litellm", "stock", "ours", "features")
#: What the title says of a system that is measured once more, of the group that it stands beside.
_NEIGHBOURS = {"features": "the gateway with auth + limits + metering", "stock": "Ray Serve"}
_BESIDE = "-beside-"

Measure = Callable[[Client, System, Effort], dict[str, float]]


@dataclass(frozen=True)
class Stage:
    """Groups that are up together."""

    groups: tuple[str, ...]
    measures: tuple[Measure, ...]
    systems: tuple[str, ...] = ()
    """Those of their systems that are measured; all unless given."""
    again: tuple[str, ...] = ()
    """Systems that an earlier stage has measured, too: here their figures have another name."""
    ceiling_of: tuple[str, ...] = ()
    """Systems whose ceiling is sought, which takes as long as all other measures together."""

    def planned(self, systems: Sequence[System]) -> list[tuple[System, tuple[Measure, ...]]]:
        """What is measured, by the names of its figures, and how."""
        return [
            (
                self._renamed(one) if one.name in self.again else one,
                self.measures + ((measures.ceiling,) if one.name in self.ceiling_of else ()),
            )
            for one in systems
            if not self.systems or one.name in self.systems
        ]

    def _renamed(self, system: System) -> System:
        first, last = self.groups
        other = first if system.name == last else last
        return replace(system, name=beside(system.name, other), title=f"{system.title}, beside {_NEIGHBOURS[other]}")


_PACED = (measures.paced_streams,)
_ALL = (*_PACED, measures.first_token, measures.unary, measures.long_prompts)
STAGES = (
    Stage(("direct", "haproxy", "vllm-router", "litellm", "ours"), _ALL),
    Stage(("vllm-router", "features"), _ALL, again=("vllm-router",)),
    Stage(("stock", "ours"), _ALL, ("stock", "handle", "ours"), again=("ours",), ceiling_of=("stock", "ours")),
    Stage(
        ("stock", "features"),
        _PACED,
        ("stock", "handle", "features"),
        again=("stock", "handle", "features"),
        ceiling_of=("stock", "features"),
    ),
)


def beside(system: str, group: str) -> str:
    """The name of ``system`` where it is measured once more, beside ``group``."""
    return f"{system}{_BESIDE}{group}"


def is_beside(name: str) -> bool:
    """Whether it is such a name."""
    return _BESIDE in name


def wanted(groups: Sequence[str]) -> list[tuple[Stage, tuple[str, ...]]]:
    """The stages that ``groups`` need, and which of them each has: all, or some that no earlier one had."""
    stages, had = [], set[str]()
    for stage in STAGES:
        own = tuple(one for one in stage.groups if one in groups)
        if own == stage.groups or not had.issuperset(own):
            stages.append((stage, own))
            had.update(own)
    return stages
