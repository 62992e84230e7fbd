"""What upstreams are sent: the client's request but for what must differ there, and what we show in its place."""

from serve_apps.common import tracing
from serve_apps.common.protocol import ADAPTER_HEADER
from serve_apps.common.secrets import InternalCredential, UpstreamKeys
from serve_apps.gateway import refusals
from serve_apps.gateway.config import Tenant
from serve_apps.gateway.exchange import Exchange
from serve_apps.gateway.headers import RawHeaders, provider_headers, upstream_headers
from serve_apps.gateway.relay import Outbound
from serve_apps.gateway.releases import Candidate
from serve_apps.gateway.replicas import Target
from serve_apps.gateway.request import Wish


class Outgoing:
    """Makes the requests for upstreams; the only one that knows what they are shown."""

    def __init__(self, credential: InternalCredential, keys: UpstreamKeys | None) -> None:
        """``credential`` is for our own applications, ``keys`` for external models."""
        self._credential = credential
        self._keys = keys

    def to_model(
        self,
        headers: RawHeaders,
        exchange: Exchange,
        wish: Wish,
        candidate: Candidate,
        rules: Tenant,
        target: Target | None = None,
        *,
        alternatives: bool = False,
    ) -> Outbound:
        """For ``candidate``: at ``target``, if its replicas are known; ``alternatives``: others could be asked.

        Raises:
            Unavailable: it wants a key, and there is none to read.
        """
        upstream = candidate.upstream
        piped = upstream.asks_here
        body = wish.outbound(
            model=None if piped else candidate.adapter or upstream.served_model or candidate.version,
            max_tokens=rules.max_tokens,
            priority=rules.priority if upstream.takes_priority else None,
            include_usage=not piped,  # for the meter; the client sees only what it asked for
        )
        if upstream.runtime == "external":
            shown = provider_headers(headers, key=self._key_for(candidate), path=wish.path)
        else:
            shown = self._own_headers(headers, exchange, aborts_itself=not piped)
            if candidate.adapter is not None:
                shown[ADAPTER_HEADER] = candidate.adapter
        return Outbound(
            "POST",
            candidate.url,
            shown,
            body,
            repeatable=True,
            target=target.address if target else None,
            alternatives=alternatives,
        )

    def to_application(self, headers: RawHeaders, exchange: Exchange, url: str, body: bytes) -> Outbound:
        """For an application of our own that is no model."""
        # Serve cancels requests to every application of our own.
        shown = self._own_headers(headers, exchange, aborts_itself=False)
        return Outbound(exchange.method, url, shown, body, repeatable=False)

    def _key_for(self, candidate: Candidate) -> str:
        """What an external upstream is shown; empty for one that wants nothing."""
        name = candidate.upstream.credential
        if name is None:
            return ""
        key = self._keys.value(name) if self._keys is not None else ""
        if not key:
            raise refusals.absent(candidate.version)
        return key

    def _own_headers(self, headers: RawHeaders, exchange: Exchange, *, aborts_itself: bool) -> dict[str, str]:
        return upstream_headers(
            headers,
            credential=self._credential.value(),
            tenant=exchange.tenant,
            request_id=exchange.request_id,
            aborts_itself=aborts_itself,
            trace=tracing.headers(exchange.span) if exchange.span is not None else None,
        )
