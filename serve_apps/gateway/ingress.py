"""The gateway as an ASGI app: identify, decide, relay. No framework stands on the data path."""

import logging
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from serve_apps.common.errors import ServingError, Unavailable
from serve_apps.common.logging import request_id as logged_request_id
from serve_apps.common.middleware import Message, Receive, Scope, Send, send_error
from serve_apps.common.protocol import ABSENT_HEADER, REQUEST_ID_HEADER
from serve_apps.common.secrets import InternalCredential
from serve_apps.gateway import routing
from serve_apps.gateway.admission import RETRY_AFTER_S, Slots
from serve_apps.gateway.auth import Authenticator, Caller
from serve_apps.gateway.config import GatewayArgs, RoutingTable
from serve_apps.gateway.control import build_control
from serve_apps.gateway.exchange import Exchange, Telemetry
from serve_apps.gateway.relay import Outbound, Relay, StreamBroken
from serve_apps.gateway.request import (
    Disconnected,
    RawHeaders,
    find,
    parse,
    read_body,
    request_id_of,
    upstream_headers,
)

logger = logging.getLogger(__name__)

#: Document uploads one replica takes in at a time: each is held in memory, up to ``max_upload_bytes`` of it.
MAX_CONCURRENT_UPLOADS = 8

#: Control paths that anybody may ask.
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
#: Where model and pipeline apps stand. Serve hands such a path to the gateway only while that app is not there.
_INTERNAL_PREFIX = "/internal/"
_REQUEST_ID_HEADER = REQUEST_ID_HEADER.encode()


class _Absent(Unavailable):
    """No application serves an internal path; for the gateway itself, which knows it by the header."""

    def headers(self) -> dict[str, str]:
        return super().headers() | {ABSENT_HEADER: "true"}


@dataclass(frozen=True, slots=True)
class _Call:
    """A request in ASGI's terms, and what we keep about it."""

    scope: Scope
    receive: Receive
    send: Send
    exchange: Exchange
    echo: RawHeaders
    """The headers every response carries."""

    @property
    def headers(self) -> RawHeaders:
        headers: RawHeaders = self.scope["headers"]
        return headers


class Ingress:
    """Everything a client reaches."""

    def __init__(
        self,
        args: GatewayArgs,
        *,
        authenticator: Authenticator,
        credential: InternalCredential,
        telemetry: Telemetry,
        echoes_request_id: bool = True,
    ) -> None:
        """``echoes_request_id`` is False where the server around us already returns the id it was given."""
        self._table: RoutingTable | None = None
        self._args = args
        self._authenticator = authenticator
        self._credential = credential
        self._telemetry = telemetry
        self._echoes_request_id = echoes_request_id
        self._relay = Relay(first_byte_timeout_s=args.first_byte_timeout_s, stall_timeout_s=args.stall_timeout_s)
        self._control = build_control(self._current_table, authenticator.check_readable)
        self._requests = Slots(args.max_concurrent_requests, "requests")
        self._uploads = Slots(MAX_CONCURRENT_UPLOADS, "document uploads")

    def route_by(self, table: dict[str, Any]) -> None:
        """Put a routing table in force, whole: a request keeps the one it started with.

        A wrong table leaves the old one in force and is only logged. Raising would make Serve kill this replica, and
        then all of them, over a mistake that harms nobody who is being served.

        Raises:
            pydantic.ValidationError: the very first table is wrong, so there is nothing to serve.
        """
        try:
            self._table = RoutingTable.model_validate(table)
        except ValidationError as error:
            if self._table is None:
                raise
            logger.error("routing table refused, the old one stays in force", extra={"problem": str(error)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "The gateway speaks HTTP only."})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._relay.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._relay.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope["headers"])
        logged_request_id.set(request_id)
        exchange = Exchange(request_id, scope["method"], scope["path"])
        call = _Call(scope, receive, send, exchange, self._echo(scope["headers"], request_id))
        try:
            await self._answer(call)
        except ServingError as error:
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
            if exchange.path not in _OPEN_PATHS:
                self._telemetry.finished(exchange)

    async def _answer(self, call: _Call) -> None:
        exchange = call.exchange
        if exchange.path.startswith(_INTERNAL_PREFIX) and self._authenticator.is_internal(call.headers):
            raise _Absent(f"No application serves {exchange.path}.", code="model_unavailable")
        kind = routing.kind_of(exchange.method, exchange.path)
        if exchange.path in _OPEN_PATHS:
            await self._answer_here(call)
            return
        caller = self._authenticator.caller(call.headers)
        exchange.tenant = caller.tenant
        if kind == "control":
            await self._answer_here(call)
            return
        # Our own pipelines never wait for a slot: what they ask for belongs to a request that was admitted already.
        with self._requests.take(beyond_limit=caller.internal):
            self._telemetry.in_flight(self._requests.taken)
            if kind == "model":
                await self._to_model(call, caller)
            else:
                await self._to_pipeline(call, caller)
        self._telemetry.in_flight(self._requests.taken)

    async def _answer_here(self, call: _Call) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.exchange.began(message["status"])
                message["headers"] = [*message["headers"], *call.echo]
            await call.send(message)

        await self._control(call.scope, call.receive, noting)

    async def _to_model(self, call: _Call, caller: Caller) -> None:
        body = await read_body(call.receive, call.headers, self._args.max_request_bytes)
        wish = parse(body)
        call.exchange.stream = wish.stream
        route = routing.model_route(self._current_table(), call.exchange.path, wish.model)
        await self._send_upstream(call, caller, route, body, repeatable=True)

    async def _to_pipeline(self, call: _Call, caller: Caller) -> None:
        exchange = call.exchange
        query = call.scope["query_string"].decode("latin-1")
        route = routing.pipeline_route(self._current_table(), exchange.path, query)
        if routing.is_upload(exchange.method, exchange.path):
            with self._uploads.take():
                body = await read_body(call.receive, call.headers, self._args.max_upload_bytes)
                await self._send_upstream(call, caller, route, body, repeatable=False)
        else:
            body = await read_body(call.receive, call.headers, self._args.max_request_bytes)
            await self._send_upstream(call, caller, route, body, repeatable=False)

    async def _send_upstream(
        self, call: _Call, caller: Caller, route: routing.Route, body: bytes, *, repeatable: bool
    ) -> None:
        exchange = call.exchange
        exchange.model = route.model
        headers = upstream_headers(
            call.headers,
            credential=self._credential.value(),
            tenant=caller.tenant,
            request_id=exchange.request_id,
            # A pipeline is cancelled by Serve, as every application of our own.
            aborts_itself=route.task != "pipeline",
        )
        outbound = Outbound(exchange.method, route.url, headers, body, repeatable)
        await self._relay.relay(outbound, call.receive, call.send, exchange, call.echo)

    def _current_table(self) -> RoutingTable:
        if self._table is None:
            raise Unavailable("The gateway has no routing table yet.", code="not_ready", retry_after_s=RETRY_AFTER_S)
        return self._table

    def _echo(self, headers: RawHeaders, request_id: str) -> RawHeaders:
        echoed = [(_REQUEST_ID_HEADER, request_id.encode())]
        already = not self._echoes_request_id and find(headers, _REQUEST_ID_HEADER) == request_id.encode()
        return [] if already else echoed


async def _refuse(call: _Call, error: ServingError) -> None:
    call.exchange.began(error.status)
    await send_error(call.send, error, call.echo)
