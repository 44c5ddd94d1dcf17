"""Clients that send or read slowly, or send no HTTP, by bare sockets."""

from __future__ import annotations

import json
import socket
import time

import pytest

from support.service import BOUNDARY, PATIENCE_S, Part, form, gated, picture, png, serving, until

HEAD = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary="
HEAD += f"{BOUNDARY}\r\n"


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    connection.settimeout(PATIENCE_S)
    try:
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionError:
        pass
    return received


def trickle(connection: socket.socket, data: bytes, seconds: float) -> bool:
    """Send a byte at a time; whether the server closed the connection before the end."""
    connection.settimeout(0.05)
    end = time.monotonic() + seconds
    for index in range(len(data)):
        try:
            connection.sendall(data[index : index + 1])
            connection.recv(1, socket.MSG_PEEK)
            return True
        except TimeoutError:
            pass
        except ConnectionError:
            return True
        if time.monotonic() > end:
            return False
    return False


@pytest.mark.parametrize("sent", [b"", b"GET ", b"GET /health HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_header_that_does_not_end_is_given_up(sent: bytes) -> None:
    with serving(receive_seconds=1) as served, served.client.socket() as connection:
        connection.sendall(sent)
        answer = rest(connection)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408") and b"close" in head
        assert json.loads(body)["error"]["code"] == "slow_request"
        assert served.client.get("/health").status == 200


def test_a_header_that_trickles_is_given_up_also_on_a_used_connection() -> None:
    with serving(receive_seconds=1) as served, served.client.socket() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(4000)
        assert answer.startswith(b"HTTP/1.1 200")
        endless = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1000
        assert trickle(connection, endless, 30)
        assert rest(connection).startswith(b"HTTP/1.1 408")


def test_a_body_that_trickles_gets_408_and_gives_its_place_back() -> None:
    with serving(receive_seconds=1) as served, served.client.socket() as connection:
        head = HEAD.format("/detect") + "Content-Length: 100000\r\n\r\n"
        connection.sendall(head.encode())
        work = served.app.state.service.work
        assert trickle(connection, form(Part("image", bytes(1000), "a")), 30)
        assert b" 408 " in connection.recv(20)
        assert until(lambda: work.taken == 0)


def test_many_slow_clients_do_not_keep_others_out() -> None:
    with serving(receive_seconds=2, queue=30, workers=2) as served:
        head = (HEAD.format("/detect") + "Content-Length: 1000\r\n\r\n--").encode()
        slow = [served.client.socket() for _ in range(20)]
        try:
            for connection in slow:
                connection.sendall(head)
            assert until(lambda: served.app.state.service.work.taken == 20)
            assert served.client.post("/detect", image=png(picture())).status == 200
            assert all(b" 408 " in connection.recv(4000) for connection in slow)
        finally:
            for connection in slow:
                connection.close()


@pytest.mark.parametrize("length", ["Content-Length: 999999999", "Transfer-Encoding: chunked"])
def test_who_sends_on_after_a_refusal_is_disconnected(length: str) -> None:
    with serving(max_bytes=1000, receive_seconds=1) as served, served.client.socket() as connection:
        connection.sendall(f"{HEAD.format('/detect')}{length}\r\n\r\n".encode())
        block = b"2000\r\n" + b"a" * 0x2000 + b"\r\n"
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(100_000):
                connection.sendall(block)
                time.sleep(0.001)
        assert until(lambda: not served.server.server_state.connections)


def test_a_client_that_does_not_read_is_disconnected_and_gives_its_place_back() -> None:
    with serving(send_seconds=1) as served:
        image = png(picture(0, (400, 400)))
        body = form(Part("image", image, "a.png"), Part("threshold", "0"))
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", served.client.port))
            connection.sendall(
                f"{HEAD.format('/detect')}Content-Length: {len(body)}\r\n\r\n".encode()
            )
            connection.sendall(body)
            state, work = served.server.server_state, served.app.state.service.work
            assert until(lambda: work.taken == 1)
            assert until(lambda: work.taken == 0, 60)
            assert until(lambda: not state.connections)
        assert served.client.get("/health").status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET / HTTP/1.1\r\n\r\n",  # without Host
        b"POST /detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000,
    ],
)
def test_what_is_no_http_is_answered_in_the_shape_of_errors(sent: bytes) -> None:
    with serving(receive_seconds=2) as served, served.client.socket() as connection:
        connection.sendall(sent)
        head, _, body = rest(connection).partition(b"\r\n\r\n")
        if not head and len(sent) > 1 << 16:
            return  # the rest was unread, so the system may have reset the connection
        assert head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408"))
        assert set(json.loads(body)["error"]) >= {"code", "message"}


def test_a_broken_chunk_ends_the_request_and_gives_its_place_back() -> None:
    with serving() as served, served.client.socket() as connection:
        connection.sendall(f"{HEAD.format('/detect')}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert until(lambda: served.app.state.service.work.taken == 1)
        connection.sendall(b"zz\r\nnonsense")
        rest(connection)
        assert until(lambda: served.app.state.service.work.taken == 0)


def test_a_client_that_leaves_in_its_body_gives_its_place_back() -> None:
    with gated() as (served, _):
        work = served.app.state.service.work
        with served.client.socket() as connection:
            connection.sendall(f"{HEAD.format('/detect')}Content-Length: 9\r\n\r\n--".encode())
            assert until(lambda: work.taken == 1)
        assert until(lambda: work.taken == 0)


def test_requests_on_one_connection_are_answered_in_order() -> None:
    with serving() as served, served.client.socket() as connection:
        one = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(one * 3 + last)
        answers = rest(connection)
        assert answers.count(b"HTTP/1.1 200") == 3 and answers.count(b"HTTP/1.1 404") == 1
        assert answers.rindex(b" 200 ") < answers.index(b" 404 ")
