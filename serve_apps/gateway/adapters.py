"""Which LoRA adapter of which model a name means: a pure decision over the routing table.

``chat:sql`` is the adapter ``sql`` of the model ``chat``; ``sql`` alone is, too, where nothing else has that name. For
whom an adapter is not meant, there is none.
"""

import re
from collections import Counter
from dataclasses import dataclass

from serve_apps.common.config import ADAPTER_NAME
from serve_apps.gateway import routing
from serve_apps.gateway.config import RoutingTable, Upstream

_NAME = re.compile(ADAPTER_NAME)


@dataclass(frozen=True, slots=True)
class Adapted:
    """An adapter, and the model it belongs to."""

    model: str
    adapter: str

    @property
    def id(self) -> str:
        """The name that is its own whatever others are called."""
        return f"{self.model}:{self.adapter}"


class Adapters:
    """The adapters of a routing table."""

    def __init__(self, table: RoutingTable) -> None:
        self._table = table
        all_of_them = [Adapted(model, name) for model, upstream in table.models.items() for name in upstream.adapters]
        taken = {*table.models, *table.routes, *routing.aliases(table)}
        times = Counter(one.adapter for one in all_of_them)
        self._own = {one.adapter: one for one in all_of_them if times[one.adapter] == 1 and one.adapter not in taken}
        self._ids = {one.id: one for one in all_of_them if one.id not in taken}

    def find(self, name: str, tenant: str) -> Adapted | None:
        """The adapter that ``tenant`` means by ``name``, which no route or model has; None if there is none for it."""
        if (found := self._ids.get(name) or self._own.get(name)) is not None:
            return found if self._is_for(found, tenant) else None
        model, _, adapter = name.rpartition(":")
        upstream = self._table.models.get(model)
        if upstream is None or not upstream.other_adapters or not _NAME.fullmatch(adapter):
            return None
        return Adapted(model, adapter)

    def listed(self, tenant: str) -> dict[str, Adapted]:
        """Every name of the adapters that are known here and meant for ``tenant``."""
        return {name: one for name, one in (self._ids | self._own).items() if self._is_for(one, tenant)}

    def upstream(self, adapted: Adapted) -> Upstream:
        """Where the adapter's model answers."""
        return self._table.models[adapted.model]

    def _is_for(self, adapted: Adapted, tenant: str) -> bool:
        tenants = self.upstream(adapted).adapters[adapted.adapter].tenants
        return tenants is None or tenant in tenants
