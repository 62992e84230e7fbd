#!/usr/bin/env python3
"""``milvus run standalone``: milvus-lite with the ports, the settings and the password of a real Milvus.

It speaks Milvus' protocol and keeps what it is given, which is all that a test of the pipelines needs; indexes, users
and the console are Milvus' own.
"""

import base64
import hmac
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from milvus_lite.db import MilvusLite
from pymilvus.grpc_gen import milvus_pb2_grpc

THREADS = 10
GRACE_S = 5
#: pymilvus pings every ten seconds, which Milvus takes and gRPC's own defaults answer with GOAWAY.
OPTIONS = [("grpc.http2.min_ping_interval_without_data_ms", 5000), ("grpc.keepalive_permit_without_calls", 1)]


class Authorization(grpc.ServerInterceptor):
    """Lets through who shows the password of Milvus' root."""

    def __init__(self, password: str) -> None:
        self._wanted = base64.b64encode(f"root:{password}".encode()).decode()

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Refuse a call as Milvus does, or go on with it."""
        shown = dict(details.invocation_metadata).get("authorization", "")
        if hmac.compare_digest(str(shown), self._wanted):
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


def _refuse(_: Any, context: Any) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure, please check username and password are correct")


class Health(BaseHTTPRequestHandler):
    """What Milvus answers at its port for metrics; of these it has none."""

    def do_GET(self) -> None:
        """Answer the probes and Prometheus."""
        answers = {"/healthz": b"OK", "/metrics": b""}
        body = answers.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        """Nothing: probes come every few seconds."""


def main() -> None:
    """Serve until SIGTERM; the ports are those of Milvus' environment variables, 0 for any that is free."""
    if sys.argv[1:] != ["run", "standalone"]:
        raise SystemExit("milvus: only `milvus run standalone` is known here")
    folder = Path(os.environ.get("LOCALSTORAGE_PATH", "/var/lib/milvus/data"))
    folder.mkdir(parents=True, exist_ok=True)
    store = MilvusLite(str(folder))
    authorization = Authorization(os.environ["COMMON_SECURITY_DEFAULTROOTPASSWORD"])
    server = grpc.server(ThreadPoolExecutor(THREADS), interceptors=[authorization], options=OPTIONS)
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(MilvusServicer(store), server)
    port = server.add_insecure_port(f"[::]:{os.environ.get('PROXY_PORT', '19530')}")
    server.start()
    health = ThreadingHTTPServer(("", int(os.environ.get("METRICS_PORT", "9091"))), Health)
    Thread(target=health.serve_forever, daemon=True).start()
    over = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    print(f"milvus: {port} {health.server_port}", flush=True)
    over.wait()
    health.shutdown()
    server.stop(GRACE_S).wait()
    store.close()


if __name__ == "__main__":
    main()
