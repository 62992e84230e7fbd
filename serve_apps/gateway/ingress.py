"""The gateway as an ASGI app: identify, decide, relay. No framework stands on the data path."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from serve_apps.common import metrics, secrets, tracing
from serve_apps.common.errors import ServingError, Unavailable
from serve_apps.common.logging import request_id as logged_request_id
from serve_apps.common.middleware import ASGIApp, Message, Receive, Scope, Send
from serve_apps.common.protocol import ABSENT_HEADER, REQUEST_ID_HEADER, VERSION_HEADER
from serve_apps.gateway import client, compat, playground, refusals, request, routing, tenants, usage
from serve_apps.gateway.admission import HELD_BYTES, RETRY_AFTER_S, Held, Memory, Queues, Slots
from serve_apps.gateway.affinity import Affinity
from serve_apps.gateway.auth import Authenticator, Caller
from serve_apps.gateway.canary import Canary
from serve_apps.gateway.config import GatewayArgs, RoutingTable, Tenant
from serve_apps.gateway.control import build_control
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.headers import RawHeaders, find, request_id_of, trace_of
from serve_apps.gateway.limits import Grant, Limits
from serve_apps.gateway.metering import Meter, Usage
from serve_apps.gateway.outgoing import Outgoing
from serve_apps.gateway.relay import Relay, StreamBroken
from serve_apps.gateway.releases import Candidate, Plan, Releases, falls_back
from serve_apps.gateway.replicas import Replicas, Target
from serve_apps.gateway.request import Disconnected, Wish
from serve_apps.gateway.shadow import Shadows
from serve_apps.gateway.store import Store
from serve_apps.gateway.telemetry import Telemetry

logger = logging.getLogger(__name__)

#: Document uploads one replica takes in at a time: each is held in memory, up to ``max_upload_bytes`` of it.
MAX_CONCURRENT_UPLOADS = 8
#: Copies for shadows that one replica has under way at a time.
MAX_SHADOWS = 64

#: How long a background part that has failed rests, in seconds.
RESTART_S = 1

#: Control paths that anybody may ask.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
#: Where model and pipeline apps stand. Serve hands such a path to the gateway only while that app is not there.
_INTERNAL_PREFIX = "/internal/"
_REQUEST_ID_HEADER = REQUEST_ID_HEADER.encode()
_VERSION_HEADER = VERSION_HEADER.encode()
_CLOSE = (b"connection", b"close")


class _Absent(Unavailable):
    """No application serves an internal path; for the gateway itself, which knows it by the header."""

    def headers(self) -> dict[str, str]:
        return super().headers() | {ABSENT_HEADER: "true"}


@dataclass(frozen=True, slots=True)
class _Routed:
    """A routing table, and what was made of it once."""

    table: RoutingTable
    releases: Releases


@dataclass(slots=True)
class _Call:
    """A request in ASGI's terms, and what we keep about it."""

    scope: Scope
    receive: Receive
    send: Send
    exchange: Exchange
    headers: RawHeaders
    echo: RawHeaders
    """The headers every response carries; grows as the request goes on."""


class Ingress:
    """Everything a client reaches."""

    def __init__(
        self,
        args: GatewayArgs,
        *,
        authenticator: Authenticator,
        credential: secrets.InternalCredential,
        serve_metrics: ModuleType,
        replicas: Replicas | None = None,
        upstream_keys: secrets.UpstreamKeys | None = None,
        redis_password: Path | None = None,
        beside_proxy: Callable[[ASGIApp], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Everything is closed and empty until the lifespan's startup and the first routing table.

        Args:
            args: the gateway's arguments.
            authenticator: knows callers.
            credential: what we show our own applications.
            serve_metrics: ``ray.serve.metrics``.
            replicas: knows the replicas of Ray models; without it they are reached through Serve's proxy.
            upstream_keys: what we show external upstreams.
            redis_password: the file with the password of ``args.redis``.
            beside_proxy: brings in requests past the proxy of the server around us, for as long as it runs.
        """
        self._routed: _Routed | None = None
        self._args = args
        self._authenticator = authenticator
        self._outgoing = Outgoing(credential, upstream_keys)
        self._beside_proxy = beside_proxy
        self._telemetry = telemetry = Telemetry(serve_metrics)
        self._store = Store(args.redis, redis_password, on_down=self._show_store) if args.redis else None
        self._relay = Relay(
            first_byte_timeout_s=args.first_byte_timeout_s,
            stall_timeout_s=args.stall_timeout_s,
            write_timeout_s=args.write_timeout_s,
        )
        self._replicas = replicas or Replicas()
        self._affinity = Affinity(args.max_prefix_entries)
        self._requests = Slots(args.max_concurrent_requests, "requests")
        telemetry.watch(metrics.GATEWAY_IN_FLIGHT, lambda: self._requests.taken)
        self._uploads = Slots(MAX_CONCURRENT_UPLOADS, "document uploads")
        self._memory = Memory(HELD_BYTES)
        self._queues = Queues(
            waiting=lambda model, count: telemetry.show(metrics.GATEWAY_WAITING, count, model=model),
            waited=lambda model, wait_s: telemetry.observe(metrics.GATEWAY_WAIT, wait_s, model=model),
        )
        self._meter = Meter(self._store, telemetry, audit=args.audit_log)
        self._limits = Limits(self._store, args.redis_outage, spent=self._meter.spent)
        self._canary = Canary(self._store, self._show_version)
        self._shadows = Shadows(
            self._relay,
            MAX_SHADOWS,
            lambda version, status: telemetry.count(metrics.GATEWAY_SHADOWS, version=version, status=status),
        )
        self._control = build_control(self._table, authenticator.check_readable, self._usage, self._may_name)
        self._page_paths = playground.PATHS if args.playground else frozenset()
        self._unmeasured = _OPEN_PATHS | self._page_paths
        self._traces = tracing.is_on()
        self._background: list[asyncio.Task[None]] = []

    def route_by(self, table: dict[str, Any]) -> None:
        """Put a routing table in force, whole: a request keeps the one it started with.

        A wrong table leaves the old one in force and is only logged. Raising would make Serve kill this replica, and
        then all of them, over a mistake that harms nobody who is being served.

        Raises:
            pydantic.ValidationError: the very first table is wrong, so there is nothing to serve.
        """
        try:
            accepted = RoutingTable.model_validate(table)
        except ValidationError as error:
            if self._routed is None:
                raise
            logger.error("routing table refused, the old one stays in force", extra={"problem": str(error)})
            return
        releases = Releases(accepted)
        self._canary.follow(releases)
        self._limits.replicas = accepted.replicas
        self._routed = _Routed(accepted, releases)

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, behind_serve: bool = False) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send, behind_serve)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "The gateway speaks HTTP only."})

    def behind_serve(self) -> ASGIApp:
        """The same for Serve to call, which returns the request id it was given by itself."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self(scope, receive, send, behind_serve=True)

        return app

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._replicas.open()
        parts = (self._telemetry, self._limits, self._meter, self._canary)
        self._background = [asyncio.ensure_future(_for_ever(part.run)) for part in parts]
        if self._beside_proxy is not None:
            self._background.append(asyncio.ensure_future(self._beside_proxy(self)))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._shadows.close()
        self._replicas.close()
        await self._relay.close()
        await self._authenticator.close()
        if self._store is not None:
            await self._store.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send, behind_serve: bool) -> None:
        request_id = request_id_of(scope["headers"])
        logged_request_id.set(request_id)
        exchange = Exchange(request_id, scope["method"], scope["path"])
        if self._traces:
            exchange.span = tracing.received(trace_of(scope["headers"]))
        returned = behind_serve and find(scope["headers"], _REQUEST_ID_HEADER) == request_id.encode()
        echo = [] if returned else [(_REQUEST_ID_HEADER, request_id.encode())]
        call = _Call(scope, client.Intake(receive), send, exchange, scope["headers"], echo)
        try:
            await self._answer(call)
        except ServingError as error:
            self._count_refusal(exchange, error)
            await _refuse(call, error)
        except Disconnected:
            exchange.client_gone()
        except StreamBroken:
            raise  # the server closes the connection, which is all that can still be said
        except Exception:
            logger.exception("the gateway failed")
            if exchange.status:
                raise
            await _refuse(call, ServingError(f"The gateway failed; its log has more under request {request_id}."))
        except BaseException:  # cancelled: the server saw the client go before we did
            exchange.client_gone()
            raise
        finally:
            if exchange.path not in self._unmeasured:
                self._telemetry.finished(exchange)
                if exchange.span is not None:
                    exchange.end_span(exchange.span, routing.template(exchange.path))

    async def _answer(self, call: _Call) -> None:
        exchange = call.exchange
        client.check(call.headers, self._args.max_header_bytes)
        if exchange.path.startswith(_INTERNAL_PREFIX) and self._authenticator.is_internal(call.headers):
            raise _Absent(f"No application serves {exchange.path}.", code="model_unavailable")
        if exchange.path in self._page_paths:
            await self._send_page(call, playground.file(exchange.method, exchange.path))
            return
        kind = routing.kind_of(exchange.method, exchange.path)
        if exchange.path in _OPEN_PATHS:
            await self._answer_here(call)
            return
        caller = await self._authenticator.caller(call.headers)
        exchange.tenant = caller.tenant
        if kind == "control":
            call.scope["caller"] = caller
            await self._answer_here(call)
            return
        # Our own pipelines never wait for a slot: what they ask for belongs to a request that was admitted already. A
        # line of a batch belongs to none.
        beyond_limit = caller.internal and not caller.background
        with self._requests.take(beyond_limit=beyond_limit), self._memory.hold() as held:
            if kind == "model":
                await self._to_model(call, caller, held)
            elif kind == "pipeline":
                await self._to_pipeline(call, caller, held)
            else:
                await self._to_batch(call, caller, held)

    async def _answer_here(self, call: _Call) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.exchange.began(message["status"])
                message["headers"] = [*message["headers"], *call.echo]
            await call.send(message)

        await self._control(call.scope, call.receive, noting)

    async def _send_page(self, call: _Call, file: playground.File) -> None:
        call.exchange.began(200)
        await call.send({"type": "http.response.start", "status": 200, "headers": [*file.headers, *call.echo]})
        body = b"" if call.exchange.method == "HEAD" else file.body
        await call.send({"type": "http.response.body", "body": body})

    async def _to_model(self, call: _Call, caller: Caller, held: Held) -> None:
        exchange, routed = call.exchange, self._in_force()
        uploaded = request.is_multipart(exchange.path)
        body = await self._body(call, held, self._args.max_upload_bytes if uploaded else self._args.max_request_bytes)
        wish = request.read(exchange.path, call.headers, body)
        exchange.stream = wish.stream
        plan = routed.releases.plan(exchange.path, wish, caller.tenant, self._canary.off)
        exchange.model = plan.named
        exchange.adapter = plan.candidates[0].adapter or ""
        rules = tenants.rules(routed.table, caller.tenant)
        if caller.background:
            rules = rules.in_background()
        # What a pipeline asks for is metered where it asks; its own answers would count the same tokens again.
        piped = plan.candidates[0].upstream.asks_here
        estimate = 0 if piped else self._limits.estimate(plan.named, rules, wish)
        grant = await self._grant(call, caller, rules, plan.named, wish, estimate, plan.candidates[0].adapter)
        try:
            await self._ask(call, wish, plan, rules)
        except ServingError as error:
            exchange.status = error.status  # as it is about to be told
            raise
        except (Disconnected, asyncio.CancelledError):
            exchange.client_gone()
            raise
        finally:
            self._settle(grant, wish, exchange, metered=not piped)
            self._canary.observe(plan, exchange)
            if not piped:
                self._meter.record(exchange, routed.table)

    async def _grant(
        self,
        call: _Call,
        caller: Caller,
        rules: Tenant,
        named: str,
        wish: Wish | None = None,
        tokens: int = 0,
        adapter: str | None = None,
    ) -> Grant:
        """Let the request in by the tenant's rules. What our own applications ask for a tenant costs it tokens only."""
        if not caller.internal or caller.background:
            tenants.check(rules, named, wish, adapter)
        if caller.internal:
            rules = rules.without_requests()
        grant = await self._limits.take(caller.tenant, rules, tokens)
        call.echo.extend(grant.headers)
        return grant

    def _settle(self, grant: Grant, wish: Wish, exchange: Exchange, *, metered: bool) -> None:
        """Charge the tenant for what was used, in place of the estimate."""
        used = exchange.prompt_tokens + exchange.completion_tokens
        cut = metered and exchange.broken
        untold = cut or (metered and exchange.stream and wish.generates)
        if untold and not used and exchange.first_byte_s is not None and exchange.status < 400:
            # Who leaves before the usage is told has used it all the same, and not every provider tells a stream's.
            assumed = self._limits.assumed(wish, exchange.pieces)
            exchange.prompt_tokens, exchange.completion_tokens = assumed.prompt, assumed.completion
            used = assumed.prompt + assumed.completion
        self._limits.settle(grant, used or (None if cut else 0))
        if exchange.completion_tokens and not exchange.broken:
            self._limits.learn(exchange.model, exchange.completion_tokens)

    async def _ask(self, call: _Call, wish: Wish, plan: Plan, rules: Tenant) -> None:
        """Ask the candidates in turn, until one begins to answer."""
        exchange = call.exchange
        if (shadow := plan.shadow) is not None:
            self._shadows.send(
                shadow.version, lambda: self._outgoing.to_model(call.headers, exchange, wish, shadow, rules)
            )
        for number, candidate in enumerate(plan.candidates):
            others = plan.candidates[number + 1 :]
            exchange.version = candidate.version
            if not number:
                self._canary.asking(plan, exchange)
            try:
                await self._attempt(call, wish, candidate, rules, plan, others)
            except ServingError as error:
                if not number:
                    self._canary.failed(plan, exchange, error)
                if not others or not falls_back(error):
                    raise
                reason = error.code or str(error.status)
                self._telemetry.count(
                    metrics.GATEWAY_FALLBACKS, model=plan.named, version=others[0].version, reason=reason
                )
                logger.warning("another model is asked", extra={"version": candidate.version, "reason": reason})
            else:
                return

    async def _attempt(
        self, call: _Call, wish: Wish, candidate: Candidate, rules: Tenant, plan: Plan, others: Sequence[Candidate]
    ) -> None:
        exchange, model = call.exchange, candidate.version
        patience_s = plan.route.attempt_timeout_s if plan.route and others else None
        who = exchange.tenant, rules.priority, rules.share
        turn = self._queues.turn(
            model, candidate.upstream.queue, *who, call.receive, patience_s, may_end=lambda: not exchange.status
        )
        async with turn:
            if exchange.asked_s == 0:
                exchange.asked_s = time.perf_counter() - exchange.started_s
            target = self._replica_of(candidate, wish)
            outbound = self._outgoing.to_model(
                call.headers, exchange, wish, candidate, rules, target, alternatives=bool(others)
            )
            if not others:
                wish.forget()
            try:
                await self._relay.relay(
                    outbound,
                    call.receive,
                    call.send,
                    exchange,
                    [*call.echo, (_VERSION_HEADER, model.encode())],
                    _reader(wish, candidate),
                    patience_s,
                    client=compat.connection(call.scope),
                )
            finally:
                if target is not None:
                    self._affinity.done(model, target)

    async def _to_pipeline(self, call: _Call, caller: Caller, held: Held) -> None:
        exchange, table = call.exchange, self._table()
        query = call.scope["query_string"].decode("latin-1")
        route = routing.pipeline_route(table, exchange.path, query)
        exchange.model = exchange.version = route.model
        grant = await self._grant(call, caller, tenants.rules(table, caller.tenant), route.model)
        await self._to_application(call, route.url, grant, held)

    async def _to_batch(self, call: _Call, caller: Caller, held: Held) -> None:
        exchange, table = call.exchange, self._table()
        url = routing.batch_url(table, exchange.path, call.scope["query_string"].decode("latin-1"))
        exchange.model = exchange.version = "batch"
        # Whether the tenant may use a model is asked when a line names it.
        grant = await self._limits.take(caller.tenant, tenants.rules(table, caller.tenant), 0)
        call.echo.extend(grant.headers)
        await self._to_application(call, url, grant, held)

    async def _to_application(self, call: _Call, url: str, grant: Grant, held: Held) -> None:
        exchange = call.exchange
        try:
            if routing.is_upload(exchange.method, exchange.path):
                with self._uploads.take():
                    await self._pass_on(call, url, await self._body(call, held, self._args.max_upload_bytes))
            else:
                await self._pass_on(call, url, await self._body(call, held, self._args.max_request_bytes))
        finally:
            self._limits.settle(grant, 0)

    async def _pass_on(self, call: _Call, url: str, body: bytes) -> None:
        outbound = self._outgoing.to_application(call.headers, call.exchange, url, body)
        await self._relay.relay(
            outbound, call.receive, call.send, call.exchange, call.echo, client=compat.connection(call.scope)
        )

    async def _body(self, call: _Call, held: Held, limit: int) -> bytes:
        return await client.read_body(
            call.receive,
            call.headers,
            max_bytes=limit,
            timeout_s=self._args.body_timeout_s,
            held=held,
            here=compat.body_has_come(call.scope),
        )

    def _replica_of(self, candidate: Candidate, wish: Wish) -> Target | None:
        """The replica to ask; None to go through Serve's proxy, which also wakes a model that has none."""
        if candidate.upstream.runtime != "ray" or candidate.upstream.asks_here:
            return None
        targets = self._replicas.targets(candidate.version)
        if not targets:
            return None
        prefix = wish.prefix() if len(targets) > 1 else b""
        return self._affinity.choose(candidate.version, prefix, wish.session, targets, candidate.adapter)

    def _in_force(self) -> _Routed:
        if self._routed is None:
            raise Unavailable("The gateway has no routing table yet.", code="not_ready", retry_after_s=RETRY_AFTER_S)
        return self._routed

    def _table(self) -> RoutingTable:
        return self._in_force().table

    async def _usage(self, tenant: str) -> Usage:
        return await self._meter.usage(tenant, tenants.rules(self._table(), tenant))

    def _may_name(self, tenant: str, name: str) -> bool:
        return tenants.may_use(tenants.rules(self._table(), tenant), name)

    def _count_refusal(self, exchange: Exchange, error: ServingError) -> None:
        tenant = tenants.label(self._routed.table, exchange.tenant) if self._routed and exchange.tenant else ""
        self._telemetry.count(metrics.GATEWAY_REFUSALS, tenant=tenant, code=error.code or str(error.status))

    def _show_store(self, down: bool) -> None:
        self._telemetry.show(metrics.GATEWAY_STORE_DOWN, down)

    def _show_version(self, route: str, version: str, rule: str, off: bool) -> None:
        self._telemetry.show(metrics.GATEWAY_VERSION_OFF, off, model=route, version=version, rule=rule)


def _reader(wish: Wish, candidate: Candidate) -> usage.Reader | None:
    """What reads the tokens of the answer; None where others read them."""
    if candidate.upstream.asks_here:
        return None
    return usage.reader(wish.path, wish.stream, hide_usage=wish.stream and not wish.include_usage)


async def _refuse(call: _Call, error: ServingError) -> None:
    """Answer with ``error``, in the caller's dialect."""
    call.exchange.began(error.status)
    body = refusals.encoded(error, call.exchange.path)
    headers = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    headers += [(b"content-length", str(len(body)).encode()), *call.echo]
    if not await client.has_come(call.receive):
        headers.append(_CLOSE)  # or the rest of a body that nobody reads would keep the connection
    await call.send({"type": "http.response.start", "status": error.status, "headers": headers})
    await call.send({"type": "http.response.body", "body": body})


async def _for_ever(run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Keep a part of the gateway running; its failure is told, and costs nothing else."""
    while True:
        try:
            await run()
        except Exception:
            logger.exception("a part of the gateway has failed and is started again")
        await asyncio.sleep(RESTART_S)
