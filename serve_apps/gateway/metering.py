"""What tenants used and what it cost: as metrics, as an audit log, and for the tenants themselves.

Nothing here is on a request's path. What is recorded is added up in memory and sent on twice a second; while Redis is
down it is kept and sent later, each batch once, even where the answer to the first attempt was lost.
"""

import asyncio
import calendar
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

from pydantic import BaseModel, Field
from redis.asyncio import Redis

from serve_apps.common import metrics
from serve_apps.common.logging import Lines
from serve_apps.common.prices import cost
from serve_apps.gateway import tenants
from serve_apps.gateway.config import RoutingTable, Tenant
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.store import Store, StoreDown, tenant_key
from serve_apps.gateway.telemetry import Series, Telemetry, series

#: One line for each request that used a model; never what was said.
audit = Lines("serve_apps.gateway.audit")

#: Between two batches, in seconds.
FLUSH_S = 0.5
#: Tenants in one round trip to Redis.
TENANTS_AT_ONCE = 100
#: How long a month's sums are kept, in seconds, and how long a batch is recognised that comes twice.
KEPT_S = 100 * 86400
RECOGNISED_S = 86400

#: KEYS: month, the last batch of this replica. ARGV: the batch's number, seconds to recognise it, seconds to keep the
#: month, then fields and amounts. Adds a batch that was not added yet; answers the month's cost.
ADD = """
if tonumber(redis.call('GET', KEYS[2]) or '-1') < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
  for index = 4, #ARGV, 2 do redis.call('HINCRBYFLOAT', KEYS[1], ARGV[index], ARGV[index + 1]) end
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return redis.call('HGET', KEYS[1], 'cost')
"""

#: A tenant's month: "<model> requests", "<model> prompt", "<model> completion", "<model> cost", and "cost" of all.
Counts = dict[str, float]
#: A tenant and a month.
Account = tuple[str, str]


class ModelUsage(BaseModel):
    """What one model was used for."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = Field(default=0, description="In the currency of the prices.")


class Budget(BaseModel):
    """The month's money."""

    monthly: float
    spent: float
    left: float


class TenantLimits(BaseModel):
    """What is not set is not limited."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrent_requests: int | None
    max_tokens: int | None
    models: list[str] | None


class Usage(BaseModel):
    """A tenant's own month."""

    object: Literal["usage"] = "usage"
    tenant: str
    month: str = Field(description="The calendar month in UTC, as 2026-11.")
    scope: Literal["all", "replica"] = Field(
        description="Whether all replicas of the gateway are counted, or only the one that answers: there is no Redis, "
        "or it is down."
    )
    total: ModelUsage
    models: dict[str, ModelUsage]
    budget: Budget | None
    limits: TenantLimits


class Meter:
    """Adds up what tenants use."""

    def __init__(
        self,
        store: Store | None,
        telemetry: Telemetry,
        *,
        audit: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is used yet.

        Args:
            store: Redis; None: each replica knows only its own.
            telemetry: counts tokens and money for the metrics.
            audit: whether each request becomes a line of the audit log.
            clock: seconds since the epoch.
        """
        self._store = store
        self._audit = audit
        self._replica = uuid.uuid4().hex[:12]
        self._clock = clock
        self._unsent: dict[Account, Counts] = {}
        self._sending: dict[Account, Counts] = {}
        self._under_way = asyncio.Lock()
        """Held while a batch is on its way: Redis may have it already, and it is still in ``_sending``."""
        self._batch = 0
        self._known: dict[str, tuple[str, float]] = {}
        """A month of each tenant and what it has cost, as Redis said last."""
        self._telemetry = telemetry
        self._budgets: dict[str, float] = {}

    def record(self, exchange: Exchange, table: RoutingTable) -> None:
        """Count an exchange that was sent to a model and is over, and fill in its cost."""
        upstream = table.models.get(exchange.version)
        exchange.cost = cost(upstream.price if upstream else None, exchange.prompt_tokens, exchange.completion_tokens)
        answered = 0 < exchange.status < 400
        counts = self._unsent.setdefault((exchange.tenant, month(self._clock())), {})
        amounts = int(answered), exchange.prompt_tokens, exchange.completion_tokens, exchange.cost, exchange.cost
        for field, amount in zip(_fields(exchange.model), amounts, strict=True):
            if amount:
                counts[field] = counts.get(field, 0) + amount
        self._count(exchange, table)
        if self._audit:
            _write(exchange)

    def spent(self, tenant: str, replicas: int = 1) -> float:
        """What the tenant's month has cost: all that Redis has seen, and this replica's own since then.

        With ``replicas``, the others are taken to have spent as much since then as this one, unseen by Redis.
        """
        account = (tenant, month(self._clock()))
        own = sum(counts[account].get("cost", 0) for counts in (self._sending, self._unsent) if account in counts)
        known_month, known = self._known.get(tenant, ("", 0.0))
        return (known if known_month == account[1] else 0.0) + own * replicas

    async def usage(self, tenant: str, rules: Tenant) -> Usage:
        """The tenant's month so far, by model as it named them."""
        this_month = month(self._clock())
        account = (tenant, this_month)
        counts = Counts()
        scope: Literal["all", "replica"] = "replica"
        async with self._under_way:
            if self._store is not None:
                try:
                    stored = await self._store.ask(lambda redis: _stored(redis, month_key(*account)))
                    counts, scope = {field: float(amount) for field, amount in stored.items()}, "all"
                except StoreDown:
                    pass  # ``scope`` says so
            for own in (self._sending.get(account), self._unsent.get(account)):
                for field, amount in (own or {}).items():
                    counts[field] = counts.get(field, 0) + amount
        spent = counts.get("cost", 0) if scope == "all" else self.spent(tenant)
        budget = rules.monthly_budget
        models = _by_model(counts)
        return Usage(
            tenant=tenant,
            month=this_month,
            scope=scope,
            total=_sum(models),
            models=models,
            budget=budget and Budget(monthly=budget, spent=spent, left=max(0.0, budget - spent)),
            limits=TenantLimits(
                requests_per_minute=rules.requests_per_minute,
                tokens_per_minute=rules.tokens_per_minute,
                max_concurrent_requests=rules.max_concurrent_requests,
                max_tokens=rules.max_tokens,
                models=None if rules.models is None else sorted(rules.models),
            ),
        )

    async def run(self) -> None:
        """Send on what was recorded, twice a second; for ever, and once more when it is cancelled."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Send on what was recorded so far; what Redis does not take now, it gets the next time."""
        self._show_budgets()
        if self._store is None:
            this_month = month(self._clock())
            self._unsent = {account: counts for account, counts in self._unsent.items() if account[1] == this_month}
            return
        async with self._under_way:
            await self._send(self._store)

    async def _send(self, store: Store) -> None:
        if not self._sending:
            self._sending, self._unsent = self._unsent, {}
            self._batch += 1
        while self._sending:
            accounts = list(self._sending)[:TENANTS_AT_ONCE]
            try:
                totals = await store.ask(lambda redis: self._add(redis, accounts))  # noqa: B023  # awaited here
            except StoreDown:
                return
            for account, total in zip(accounts, totals, strict=True):
                del self._sending[account]
                tenant, its_month = account
                if its_month >= self._known.get(tenant, ("",))[0]:
                    self._known[tenant] = (its_month, float(total or 0))

    async def _add(self, redis: Redis, accounts: list[Account]) -> list[str | None]:
        async with redis.pipeline(transaction=False) as pipeline:
            for tenant, its_month in accounts:
                keys = [month_key(tenant, its_month), tenant_key(tenant, f"sent:{its_month}:{self._replica}")]
                amounts = [each for pair in self._sending[tenant, its_month].items() for each in pair]
                pipeline.eval(ADD, len(keys), *keys, self._batch, RECOGNISED_S, KEPT_S, *amounts)
            totals: list[str | None] = await pipeline.execute()
        return totals

    def _count(self, exchange: Exchange, table: RoutingTable) -> None:
        tenant = tenants.label(table, exchange.tenant)
        prompt, completion, money = _series(tenant, exchange.model, exchange.version)
        self._telemetry.add(prompt, exchange.prompt_tokens)
        self._telemetry.add(completion, exchange.completion_tokens)
        self._telemetry.add(money, exchange.cost)
        own = table.tenants.get(exchange.tenant)
        if own is not None and own.monthly_budget is not None:
            self._budgets[exchange.tenant] = own.monthly_budget

    def _show_budgets(self) -> None:
        for tenant, budget in self._budgets.items():
            self._telemetry.show(metrics.GATEWAY_BUDGET_USED, self.spent(tenant) / budget, tenant=tenant)


@lru_cache(1024)
def _fields(model: str) -> tuple[str, ...]:
    """What ``Counts`` has of a model, and the sum of costs."""
    return f"{model} requests", f"{model} prompt", f"{model} completion", f"{model} cost", "cost"


@lru_cache(4096)
def _series(tenant: str, model: str, version: str) -> tuple[Series, Series, Series]:
    """The metrics' series of tokens of prompts, tokens of completions, and cost."""
    tokens = partial(series, metrics.GATEWAY_TOKENS, tenant=tenant, model=model, version=version)
    return tokens(kind="prompt"), tokens(kind="completion"), series(metrics.GATEWAY_COST, tenant=tenant, model=model)


def month(now: float) -> str:
    """The calendar month in UTC, as ``2026-11``."""
    return _month_of_hour(int(now // 3600))


@lru_cache(8)
def _month_of_hour(hour: int) -> str:
    return time.strftime("%Y-%m", time.gmtime(hour * 3600))


def month_ends_in_s(now: float) -> float:
    """Seconds to the next month in UTC."""
    today = time.gmtime(now)
    years, months = divmod(today.tm_mon, 12)
    return calendar.timegm((today.tm_year + years, months + 1, 1, 0, 0, 0)) - now


def month_key(tenant: str, month: str) -> str:
    """The Redis hash of a tenant's month."""
    return tenant_key(tenant, f"month:{month}")


async def _stored(redis: Redis, key: str) -> dict[str, str]:
    answer: Any = redis.hgetall(key)
    stored: dict[str, str] = await answer
    return stored


def _by_model(counts: Counts) -> dict[str, ModelUsage]:
    models: dict[str, ModelUsage] = defaultdict(ModelUsage)
    for field, amount in sorted(counts.items()):
        model, _, kind = field.rpartition(" ")
        if not model:
            continue
        if kind == "cost":
            models[model].cost = amount
        elif kind == "requests":
            models[model].requests = int(amount)
        elif kind == "prompt":
            models[model].prompt_tokens = int(amount)
        elif kind == "completion":
            models[model].completion_tokens = int(amount)
    return dict(models)


def _sum(models: dict[str, ModelUsage]) -> ModelUsage:
    return ModelUsage(
        requests=sum(each.requests for each in models.values()),
        prompt_tokens=sum(each.prompt_tokens for each in models.values()),
        completion_tokens=sum(each.completion_tokens for each in models.values()),
        cost=sum(each.cost for each in models.values()),
    )


def _write(exchange: Exchange) -> None:
    exchange.audited = True
    told = exchange.told()
    told["prompt_tokens"] = exchange.prompt_tokens
    told["completion_tokens"] = exchange.completion_tokens
    told["cost"] = round(exchange.cost, 9)
    told["request_id"] = exchange.request_id
    audit.info("request", told)
