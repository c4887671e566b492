"""Outbound: what may be called, and how long it may take."""
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from plugins import outbound


@contextmanager
def receiver(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """A server on loopback that reads once, and then does what it is told with each connection."""
    got: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            with sock:
                got.append(sock.recv(65536))
                try:
                    answer(sock)
                except OSError:
                    pass

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/hook?a=1", got
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_a_request_arrives_whole_and_so_does_the_answer() -> None:
    with receiver(lambda sock: sock.sendall(b"HTTP/1.1 201 Made\r\nX-One: 1\r\nContent-Length: 2\r\n\r\nok")) as (url, got):
        answer = outbound.request("POST", url, b"{}", {"webhook-id": "msg_1"}, private=True)
    assert answer == (201, [("X-One", "1"), ("Content-Length", "2")], b"ok")
    head, _, body = got[0].partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.split(b"\r\n")[0] == b"POST /hook?a=1 HTTP/1.1"
    assert b"webhook-id: msg_1" in head.split(b"\r\n")


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with receiver(lambda sock: sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")) as (url, got):
        assert outbound.request("POST", url, b"", {}, private=True).status == 302
    assert len(got) == 1


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"])
def test_whoever_drips_ends_with_the_deadline(start: bytes) -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(start)
        for _ in range(50):
            sock.sendall(b"H")
            time.sleep(0.1)  # the drip itself

    with receiver(drip) as (url, _):
        began = time.monotonic()
        with pytest.raises(outbound.Unreached, match="within 1 s"):
            outbound.request("POST", url, b"", {}, private=True, seconds=1)
        assert 0.9 < time.monotonic() - began < 2


def test_no_more_than_64_kib_of_an_answer_are_read() -> None:
    with receiver(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 20))) as (url, _):
        assert len(outbound.request("POST", url, b"", {}, private=True).body) == 64 << 10


def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with receiver(lambda sock: sock.sendall(b"HTTP/1.1 204 Done\r\n\r\n")) as (url, _):
        assert outbound.request("POST", url, b"", {}, private=True).status == 204


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    connected: list[tuple[str, int]] = []

    def look_up(host: str, port: int, **_: object) -> list[object]:
        looks.append(host)
        address = "93.184.215.14" if len(looks) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address: tuple[str, int], **_: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError("Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(outbound.Unreached, match="refused"):
        outbound.request("POST", "https://rebinding.example/", b"", {})
    assert looks == ["rebinding.example"]
    assert connected == [("93.184.215.14", 443)]
    with pytest.raises(outbound.Forbidden, match="private"):
        outbound.request("POST", "https://rebinding.example/", b"", {})
    assert len(connected) == 1


@pytest.mark.parametrize("address, good", [
    ("8.8.8.8", True), ("2606:4700::1111", True), ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True),
    ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False),
    ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
    ("fe80::1", False), ("fc00::1", False), ("fec0::1", False), ("ff02::1", False), ("::ffff:127.0.0.1", False),
    ("::ffff:169.254.169.254", False), ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False),
])
def test_which_addresses_are_public(address: str, good: bool) -> None:
    assert outbound.public(ipaddress.ip_address(address)) is good


@pytest.mark.parametrize("url, why", [
    ("ftp://a.example/", "https://"), ("http://a.example/", "https://"), ("https:///x", "host"), ("https://u:p@a.example/", "password"),
    ("https://a.example/#x", "fragment"), ("https://a.example/#", "fragment"), ("https://a.example:0/", "port"),
    ("https://a.example:65536/", "no address"), ("https://[::1/", "no address"), ("https://a.example/\r\nX: 1", "ASCII"),
    ("https://a.example/" + "x" * 2000, "2000"), ("https://ä.example/", "ASCII"), ("", "https://"),
])
def test_which_urls_are_none(url: str, why: str) -> None:
    with pytest.raises(outbound.Forbidden, match=why):
        outbound.split(url, private=False)
