import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serve_apps.common.rounds import round_of
from serve_apps.gateway import upstream
from serve_apps.gateway.upstream import Answer, Broken, Pool, Request, Unanswered, Unreachable
from tests.serve_apps.gateway.servers import PATIENCE_S

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Server:
    """A server that answers each request with the bytes a test gives it, and nothing else."""

    def __init__(self, *answers: bytes, closes: bool = False) -> None:
        """``answers`` in order, the last again and again; ``closes`` the connection after each."""
        self._answers = list(answers)
        self._closes = closes
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""
        self.closed = asyncio.Event()
        self.go_on = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                self.requests.append(head + await reader.readexactly(length))
                answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
                for part in answer.split(b"<wait>"):
                    writer.write(part)
                    await writer.drain()
                    if part is not answer and not answer.endswith(part):
                        await self.go_on.wait()
                if self._closes:
                    break
        self.closed.set()
        writer.close()


@contextlib.asynccontextmanager
async def serving(*answers: bytes, closes: bool = False, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Run a ``Server``."""
    server = Server(*answers, closes=closes)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://localhost:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


def run(test: Callable[[Pool], Awaitable[None]]) -> None:
    """Run a test with a pool, on the event loop of Ray's replicas and on Python's own."""

    async def in_time() -> None:
        pool = Pool()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await test(pool)
        finally:
            pool.close()
            await asyncio.sleep(0.01)  # closed connections leave the event loop

    for factory in (uvloop.new_event_loop, asyncio.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(in_time())


def post(url: str, body: bytes = b"{}", **headers: str) -> Request:
    return Request("POST", url, headers, body)


async def whole(answer: Answer) -> bytes:
    body = b""
    while piece := await answer.read():
        body += piece
    answer.close()
    return body


async def asked(pool: Pool, server: Server, *, kept: bool = True) -> bytes:
    return await whole(await pool.ask(post(server.url + "/x"), kept=kept))


# Requests


def test_a_request_is_written_as_it_is_given() -> None:
    async def test(pool: Pool) -> None:
        async with serving(OK) as server:
            request = Request("PUT", server.url + "/a%20b?c=d", {"x-tenant": "acme"}, b"body")
            assert await whole(await pool.ask(request)) == b"ok"
            host = server.url.removeprefix("http://")
            assert server.requests == [
                f"PUT /a%20b?c=d HTTP/1.1\r\nhost: {host}\r\nx-tenant: acme\r\ncontent-length: 4\r\n\r\nbody".encode()
            ]

    run(test)


@pytest.mark.parametrize("value", ["a\r\nx-llm-internal: b", "a\nb"])
def test_a_header_cannot_hold_another(value: str) -> None:
    async def test(pool: Pool) -> None:
        async with serving(OK) as server:
            with pytest.raises(ValueError, match="a line break in a header"):
                await pool.ask(post(server.url, tenant=value))
            assert server.requests == []

    run(test)


def test_a_body_of_megabytes_arrives_whole() -> None:
    async def test(pool: Pool) -> None:
        async with serving(OK) as server:
            body = bytes(range(256)) * 20_000
            assert await whole(await pool.ask(post(server.url, body))) == b"ok"
            assert server.requests[0].endswith(body)

    run(test)


def test_an_address_is_dialled_in_place_of_the_urls() -> None:
    async def test(pool: Pool) -> None:
        async with serving(OK) as server:
            port = int(server.url.rpartition(":")[2])
            answer = await pool.ask(post("http://proxy.invalid:1/x"), address=("127.0.0.1", port))
            assert await whole(answer) == b"ok"
            assert server.requests[0].startswith(b"POST /x HTTP/1.1\r\nhost: proxy.invalid:1\r\n")

    run(test)


def test_a_name_that_is_nobodys_is_unreachable() -> None:
    async def test(pool: Pool) -> None:
        with pytest.raises(Unreachable):
            await pool.ask(post("http://nobody.invalid/x"))

    run(test)


# Answers


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        pytest.param(OK, 200, b"ok", id="length"),
        pytest.param(CHUNKED + b"2\r\nok\r\n3;x=y\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n", 200, b"okabc", id="chunked"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="none"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, 200, b"ok", id="1xx"
        ),
        pytest.param(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n", 307, b"", id="3xx"
        ),
    ],
)
def test_an_answer_is_read_to_its_end_and_the_connection_kept(answer: bytes, status: int, body: bytes) -> None:
    async def test(pool: Pool) -> None:
        async with serving(answer) as server:
            for _ in range(3):
                got = await pool.ask(post(server.url))
                assert (got.status, await whole(got)) == (status, body)
                assert got.header(b"link") is None
                assert got.header(b"x-trailer") is None
            assert (len(server.requests), server.connections) == (3, 1)

    run(test)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def test(pool: Pool) -> None:
        async with serving(b"HTTP/1.1 200 OK\r\nX-Name: v\r\n\r\nsome", closes=True) as server:
            answer = await pool.ask(post(server.url))
            assert answer.header(b"x-name") == b"v"
            assert await whole(answer) == b"some"

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-x\r\n", id="not HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", id="header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"a" * upstream.MAX_HEAD_BYTES, id="endless header"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", id="two lengths"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="upgrade"),
    ],
)
def test_an_answer_that_is_no_http_is_broken(answer: bytes) -> None:
    async def test(pool: Pool) -> None:
        async with serving(answer) as server:
            with pytest.raises(Broken):
                await pool.ask(post(server.url))
            await server.closed.wait()

    run(test)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", CHUNKED + b"2\r\nok\r\n", CHUNKED + b"2\r\nokzz\r\n"],
)
def test_a_body_that_ends_before_its_end_is_broken(answer: bytes) -> None:
    async def test(pool: Pool) -> None:
        async with serving(answer, closes=True) as server:
            got = await pool.ask(post(server.url))
            with pytest.raises(Broken):
                await whole(got)

    run(test)


# Pieces


def test_pieces_are_poured_as_they_come() -> None:
    async def test(pool: Pool) -> None:
        async with serving(CHUNKED + b"1\r\na\r\n<wait>1\r\nb\r\n1\r\nc\r\n0\r\n\r\n") as server:
            rounds = round_of(asyncio.get_running_loop())
            answer = await pool.ask(post(server.url))
            pieces: list[bytes] = []
            pouring = asyncio.ensure_future(answer.pour(pieces.append))
            while not pieces:
                await asyncio.sleep(0.01)
            assert pieces == [b"a"]
            assert rounds.streams == 1
            server.go_on.set()
            await pouring
            assert b"".join(pieces) == b"abc"
            assert rounds.streams == 0
            answer.close()
            assert server.connections == 1

    run(test)


def test_pouring_raises_what_breaks_the_body() -> None:
    async def test(pool: Pool) -> None:
        async with serving(CHUNKED + b"1\r\na\r\n", closes=True) as server:
            answer = await pool.ask(post(server.url))
            pieces: list[bytes] = []
            with pytest.raises(Broken):
                await answer.pour(pieces.append)
            assert pieces == [b"a"]

    run(test)


def test_nothing_comes_while_paused() -> None:
    async def test(pool: Pool) -> None:
        async with serving(CHUNKED + b"1\r\na\r\n<wait>1\r\nb\r\n0\r\n\r\n") as server:
            answer = await pool.ask(post(server.url))
            pieces: list[bytes] = []
            pouring = asyncio.ensure_future(answer.pour(pieces.append))
            await asyncio.sleep(0.05)
            answer.pause()
            server.go_on.set()
            await asyncio.sleep(0.05)
            assert pieces == [b"a"]
            answer.resume()
            await pouring
            assert pieces == [b"a", b"b"]
            answer.close()

    run(test)


# Connections


def test_a_connection_that_is_not_to_be_kept_is_not_used_again() -> None:
    async def test(pool: Pool) -> None:
        closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
        for answer in (closing, OK + b"HTTP/1.1 200 OK\r\n", OK.replace(b"1.1", b"1.0")):
            async with serving(answer) as server:
                for _ in range(2):
                    assert await asked(pool, server) == b"ok"
                assert server.connections == 2

    run(test)


def test_a_request_that_may_not_meet_a_closed_connection_gets_a_new_one() -> None:
    async def test(pool: Pool) -> None:
        async with serving(OK) as server:
            await asked(pool, server)
            await asked(pool, server, kept=False)
            assert server.connections == 2

    run(test)


def test_an_answer_left_in_the_middle_closes_its_connection() -> None:
    async def test(pool: Pool) -> None:
        async with serving(CHUNKED + b"1\r\na\r\n") as server:
            answer = await pool.ask(post(server.url))
            assert await answer.read() == b"a"
            answer.close()
            await server.closed.wait()

    run(test)


def test_a_question_given_up_closes_its_connection() -> None:
    async def test(pool: Pool) -> None:
        async with serving(b"") as server:
            asking = asyncio.ensure_future(pool.ask(post(server.url)))
            while not server.requests:
                await asyncio.sleep(0.01)
            asking.cancel()
            await server.closed.wait()

    run(test)


def test_what_was_not_yet_sent_on_a_connection_that_closes_is_unanswered() -> None:
    async def test(pool: Pool) -> None:
        problems: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
        async with serving(OK) as server:
            assert await asked(pool, server) == b"ok"  # a connection is kept
            asking = asyncio.ensure_future(pool.ask(post(server.url)))
            await asyncio.sleep(0)  # it has the connection
            pool.close()
            with pytest.raises(Unanswered):
                await asking
            assert len(server.requests) == 1
        assert not problems

    run(test)


def test_a_connection_closed_without_an_answer_is_told_apart() -> None:
    async def test(pool: Pool) -> None:
        async with serving(b"", closes=True) as server:
            with pytest.raises(Unanswered):
                await pool.ask(post(server.url))

    run(test)


def test_a_connection_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "KEEPALIVE_S", 0.05)

    async def test(pool: Pool) -> None:
        async with serving(OK) as server:
            await asked(pool, server)
            await server.closed.wait()
            await asked(pool, server)
            assert server.connections == 2

    run(test)


def test_closing_the_pool_closes_idle_and_busy_connections() -> None:
    async def test(pool: Pool) -> None:
        async with serving(OK) as idle, serving(CHUNKED + b"1\r\na\r\n") as busy:
            await asked(pool, idle)
            await pool.ask(post(busy.url))
            pool.close()
            await idle.closed.wait()
            await busy.closed.wait()

    run(test)


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost with its key, by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "localhost.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize("trusted", [True, False])
def test_https_is_spoken_only_with_whom_we_trust(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def test(pool: Pool) -> None:
        async with serving(OK, tls=context) as server:
            if trusted:
                body = b"x" * 1_000_000
                assert await whole(await pool.ask(post(server.url, body))) == b"ok"
                assert server.requests[0].endswith(body)
            else:
                with pytest.raises(Unreachable, match="certificate"):
                    await pool.ask(post(server.url))

    run(test)
