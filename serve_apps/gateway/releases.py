"""Which models a request may be answered by, and in which order: a pure decision over the routing table.

A route's version is chosen by weighted rendezvous hashing: every version draws an exponentially distributed number
from the hash of its name and the caller, divides it by its weight, and the lowest wins. So a version's share is its
weight over the sum of all, and callers move only to a version whose weight grew in relation to that of their own:
raising a weight moves nobody else, and a version that is taken out loses its callers to the others, in proportion,
while everybody else stays. Neither the order of the versions nor how many there are matters.
"""

import hashlib
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serve_apps.common.errors import InvalidRequest, ServingError
from serve_apps.common.protocol import TASK_PATHS, VERSION_HEADER
from serve_apps.gateway import routing
from serve_apps.gateway.adapters import Adapters
from serve_apps.gateway.config import LogicalModel, RoutingTable, Sticky, Upstream
from serve_apps.gateway.refusals import absent
from serve_apps.gateway.request import Wish

logger = logging.getLogger(__name__)

#: OpenAI's code for a prompt that a model is too small for; a larger one may take it.
CONTEXT_OVERFLOW = "context_length_exceeded"

#: Pins are quoted back to the client up to this length.
_QUOTED_NAME_CHARS = 80
_HASHES = 2**64


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody who can answer the request."""

    version: str
    """Its name in ``models``."""
    upstream: Upstream
    url: str
    """Absolute, with the path that was asked."""
    adapter: str | None = None
    """The LoRA adapter of it that was named."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is asked for a request."""

    named: str
    """The route or model that was named; a route's own name where its alias was."""
    route: LogicalModel | None
    """The rules of the route; None for a model that was named itself."""
    candidates: tuple[Candidate, ...]
    """Never empty: the version chosen, then the fallbacks. Other versions are asked only where the route declares
    them as its fallbacks too."""
    shadow: Candidate | None = None
    """Who gets a copy, if this request was drawn."""
    digest: str = ""
    """Tells the route's values from any others; empty for a model that was named itself."""


@dataclass(frozen=True, slots=True)
class Served:
    """A version that is deployed."""

    name: str
    upstream: Upstream
    weight: float
    seed: Any
    """A hash (hashlib's) that has taken in the route's name and its own."""


@dataclass(frozen=True, slots=True)
class Release:
    """A route, and what of it is deployed."""

    name: str
    rules: LogicalModel
    digest: str
    """Of the route's values: others have another one."""
    versions: tuple[Served, ...]
    """Those in ``models``, as declared; can be empty while a deployment is under way."""

    @property
    def stable(self) -> str:
        """The first version with the highest weight: it is never turned off, since somebody must answer."""
        return max(self.versions, key=lambda served: served.weight).name if self.versions else ""


class Releases:
    """The routes of a routing table."""

    def __init__(self, table: RoutingTable, draw: Callable[[], float] = random.random) -> None:
        """``draw`` gives random numbers in [0, 1): who is copied, and where nobody stays on a version."""
        self._table = table
        self._draw = draw
        self.routes = {name: _release(table, name) for name in table.routes}
        aliases = {alias: self.routes[name] for alias, name in routing.aliases(table).items()}
        self._named = aliases | self.routes
        self._adapters = Adapters(table)
        #: Of paths and models: the same few for every request.
        self._candidates: dict[tuple[str, str], Candidate] = {}
        self._plain_plans: dict[tuple[str, str], Plan] = {}

    def plan(self, path: str, wish: Wish, tenant: str, off: Callable[[str], frozenset[str]]) -> Plan:
        """Who is asked for ``wish``; ``off(route)`` are the versions that are out of service.

        A pin (the header ``x-llm-version``) reaches every version, off or of weight 0, and nobody else.

        Raises:
            InvalidRequest: no model is named, the pin is none of its versions, or nobody answers ``path``.
            NotFound: there is no such model.
            Unavailable: the route's versions are not deployed yet.
        """
        named = wish.model
        release = self._named.get(named) if isinstance(named, str) else None
        if release is None:
            return self._plain(path, named, wish.pin, tenant)
        rules = release.rules
        if wish.pin is not None:
            names = [served.name for served in release.versions]
            if wish.pin not in names:
                raise _unknown_version(release.name, wish.pin, names)
            pinned = self._answering(path, release, (wish.pin,))
            return Plan(release.name, rules, pinned, digest=release.digest)
        chosen = self._chosen(release, path, wish, tenant, off(release.name))
        candidates = self._answering(path, release, (chosen, *rules.fallback) if chosen else rules.fallback)
        return Plan(release.name, rules, candidates, self._shadow(path, rules, candidates[0]), release.digest)

    def _plain(self, path: str, model: object, pin: str | None, tenant: str) -> Plan:
        if pin is None and isinstance(model, str) and (plan := self._plain_plans.get((path, model))) is not None:
            return plan
        adapted = None
        if isinstance(model, str) and model not in self._table.models:
            adapted = self._adapters.find(model, tenant)
        target = routing.model_route(self._table, path, adapted.model if adapted else model)
        if pin is not None and pin != target.model:
            raise _unknown_version(target.model, pin, [target.model])
        upstream = self._table.models[target.model]
        candidate = Candidate(target.model, upstream, target.url, adapted.adapter if adapted else None)
        plan = Plan(target.model, None, (candidate,))
        if adapted is None:
            self._plain_plans[path, target.model] = plan
        return plan

    def _chosen(self, release: Release, path: str, wish: Wish, tenant: str, off: frozenset[str]) -> str | None:
        """The version that answers, of those that answer ``path``; None if there is none."""
        able = [served for served in release.versions if path in TASK_PATHS[served.upstream.task]]
        weighted = [served for served in able if served.weight > 0]
        serving = [served for served in weighted if served.name not in off] or weighted
        if len(serving) > 1:
            key = _caller(release.rules.sticky, wish, tenant) or repr(self._draw())
            return min(serving, key=_lot(key.encode(errors="replace"))).name
        if serving:
            return serving[0].name
        # Where every weight is 0, the stable version has the highest.
        return next((served.name for served in able if served.name == release.stable), None)

    def _answering(self, path: str, release: Release, models: tuple[str, ...]) -> tuple[Candidate, ...]:
        """The candidates among ``models``, each once.

        Raises:
            InvalidRequest: nobody answers ``path``.
            Unavailable: nothing of the route is deployed.
        """
        found = (self._candidate(path, model) for model in dict.fromkeys(models))
        candidates = tuple(candidate for candidate in found if candidate is not None)
        if candidates:
            return candidates
        for served in release.versions:
            routing.check_answers(served.upstream, path, release.name, self._table)
        raise absent(release.name)

    def _shadow(self, path: str, rules: LogicalModel, chosen: Candidate) -> Candidate | None:
        """Who gets a copy; nobody gets a copy of what is theirs already."""
        shadow = rules.shadow
        if shadow is None or shadow.model == chosen.version or self._draw() * 100 >= shadow.percent:
            return None
        return self._candidate(path, shadow.model)

    def _candidate(self, path: str, model: str) -> Candidate | None:
        if (candidate := self._candidates.get((path, model))) is not None:
            return candidate
        upstream = self._table.models.get(model)
        if upstream is None or path not in TASK_PATHS[upstream.task]:
            return None
        candidate = self._candidates[path, model] = Candidate(model, upstream, routing.upstream_url(upstream, path))
        return candidate


def falls_back(error: ServingError) -> bool:
    """Whether somebody else may do better: at a refusal (429), any failure, or a prompt too long for the model."""
    return error.status == 429 or error.status >= 500 or error.code == CONTEXT_OVERFLOW


def _release(table: RoutingTable, name: str) -> Release:
    rules = table.routes[name]
    # Without defaults, so that a new release of the gateway with one more option keeps the digests.
    values = rules.model_dump_json(exclude_defaults=True)
    versions = []
    for version in rules.versions:
        upstream = table.models.get(version.model)
        if upstream is not None:
            seed = hashlib.blake2b(f"{name}\0{version.model}\0".encode(), digest_size=8)
            versions.append(Served(version.model, upstream, version.weight, seed))
    models = [*(version.model for version in rules.versions), *rules.fallback]
    models += [rules.shadow.model] if rules.shadow else []
    for missing in dict.fromkeys(model for model in models if model not in table.models):
        logger.warning("a route names a model that is not there", extra={"route": name, "model": missing})
    return Release(name, rules, hashlib.blake2b(values.encode(), digest_size=8).hexdigest(), tuple(versions))


def _caller(sticky: Sticky, wish: Wish, tenant: str) -> str | None:
    """Whom a version is kept for; None for nobody. Users and sessions are their tenant's own."""
    if sticky == "tenant":
        return tenant
    kept = wish.user if sticky == "user" else wish.session if sticky == "session" else None
    return None if kept is None else f"{tenant}\0{kept}"


def _lot(caller: bytes) -> Callable[[Served], float]:
    """What each version draws for ``caller``; the lowest wins."""

    def drawn(served: Served) -> float:
        seed = served.seed.copy()
        seed.update(caller)
        uniform = (int.from_bytes(seed.digest(), "big") + 0.5) / _HASHES
        return -math.log(uniform) / served.weight

    return drawn


def _unknown_version(model: str, pin: str, versions: list[str]) -> InvalidRequest:
    return InvalidRequest(
        f'The model "{model}" has no version "{pin[:_QUOTED_NAME_CHARS]}". Its versions: '
        f"{', '.join(versions) or 'none'}.",
        param=VERSION_HEADER,
        code="unknown_version",
    )
