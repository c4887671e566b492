"""Strangers at the door: one connection, or very many, must not stop the server for everybody else."""
import contextlib
import json
import os
import re
import resource
import socket
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import Server, eventually

LARGE = "/api/docs/swagger-ui-bundle.js"  # 1.5 MB, for anybody


def connect(running, timeout=10.0):
    where = urlsplit(running.url)
    return socket.create_connection((where.hostname, where.port), timeout=timeout)


def asked(path, method="GET", **headers):
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


def answer(one, patience=10.0):
    """(status, headers, body) of the next answer on a connection; what comes after it stays in the buffer file."""
    file = one if hasattr(one, "readline") else one.makefile("rb")
    line = file.readline()
    headers = {}
    while (text := file.readline().strip()):
        name, _, value = text.decode().partition(": ")
        headers[name.lower()] = value
    return int(line.split()[1]), headers, file.read(int(headers["content-length"]))


def honest(running, patience=5.0):
    """Seconds that an honest client waits for its health check."""
    began = time.monotonic()
    urllib.request.urlopen(running.url + "/api/health", timeout=patience).read()
    return time.monotonic() - began


@pytest.fixture(autouse=True)
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_one_connection_that_reads_slowly_stops_nobody(server):
    """Large requests and very many quick ones in one send, hardly read: the loop must never wait for who does not read.

    How many large ones fill the output up to its mark, so that a quick one has to wait, depends on the system's buffers.
    """
    running = server()
    greedy = {connect(running): asked(LARGE) * large + asked("/api/health") * 1500 for large in range(6, 18)}
    waits, end = [], time.monotonic() + 6
    while time.monotonic() < end:
        for one, left in greedy.items():
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                greedy[one] = left[one.send(left):] if left else left
            with contextlib.suppress(BlockingIOError):
                one.recv(2000)
        waits.append(honest(running))
        time.sleep(0.1)  # an honest client's pace
    for one in greedy:
        one.close()
    assert max(waits) < 1.0, max(waits)


def test_pipelined_answers_come_in_order_and_whole(server):
    running = server()
    one = connect(running)
    one.sendall((asked(LARGE) + asked("/api/health") + asked("/api/version") + asked("/api/nothing")) * 3)
    file = one.makefile("rb")
    found = [answer(file) for _ in range(12)]
    assert [status for status, _, _ in found] == [200, 200, 200, 404] * 3
    assert {len(body) > 1_000_000 for _, _, body in found[::4]} == {True} and b'"redis"' in found[1][2] and b'"version"' in found[2][2]
    one.close()


@pytest.mark.slow
def test_a_quick_request_behind_a_slow_one_waits_for_nobody_else(server):
    running = server()
    token = server.admin(running)
    one = connect(running)
    body = json.dumps({"worker_id": "w", "wait_seconds": 1}).encode()
    claim = asked("/api/task-queue/claim", "POST", Content_Type="application/json", Authorization=f"Bearer {token}", Content_Length=len(body)) + body
    began = time.monotonic()
    one.sendall(claim + asked("/api/health"))
    file = one.makefile("rb")
    assert answer(file)[0] == 200 and answer(file)[0] == 200
    assert time.monotonic() - began < 1.6, "nobody else spoke to the server meanwhile"


@pytest.mark.slow
def test_idle_connections_make_room(server):
    running = server()
    crowd = [connect(running) for _ in range(1250)]
    waits = []
    for _ in range(20):
        waits.append(honest(running))
        crowd.append(connect(running))
    assert max(waits) < 1.0, max(waits)
    open_still = 0
    for one in crowd:
        one.setblocking(False)
        try:
            open_still += one.recv(1) != b""
        except BlockingIOError:
            open_still += 1
        except OSError:
            pass
        one.close()
    assert open_still > 1000, "only those that were idle for longest had to go"


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """One server for all who only ask it something odd; it knows two names of its own, and a public one."""
    names = {"ORKOSI_HOSTS": "mini.example, other.example", "ORKOSI_PUBLIC_URL": "https://orkosi.example.com"}
    server = Server(tmp_path_factory.mktemp("doors") / "data", env=names, wait=False)
    server.url = eventually(lambda: (file := server.folder / "server.url").exists() and file.read_text().strip())
    yield server
    server.stop()


@pytest.mark.parametrize("sent, said", [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "no HTTP request"), (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", "Malformed HTTP method"),
    (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "Invalid header"), (b"GET /\rx HTTP/1.1\r\nHost: x\r\n\r\n", "Bare CR"), (b"GET\r\n\r\n", "Start line"),
    (b"GET /api/health HTTP/1.1\r\n\r\n", "Host is missing"),
    (b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/version HTTP/1.1\r\nHost: x\r\n\r\n", "stand together"),
    (b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello", "Content-Length is invalid"),
    (b"POST /api/auth/login HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "no part of HTTP/1.0"),
    (b"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", "Content-Length is invalid")])
def test_what_is_no_request_gets_its_400_at_once_and_the_connection_closes(standing, sent, said):
    running = standing
    one = connect(running, timeout=3)
    one.sendall(sent)
    file = one.makefile("rb")
    status, headers, body = answer(file)
    assert status == 400 and said in json.loads(body)["error"]["message"] and headers["content-type"] == "application/json"
    assert file.read() == b"", "closed, and nothing more answered"


@pytest.mark.slow
def test_malformed_requests_make_one_line_a_second(server):
    running = server()
    began = time.monotonic()
    for number in range(300):
        one = connect(running)
        one.sendall(b"\x16\x03\x01" if number % 2 else b"get / HTTP/1.1\r\n\r\n")
        assert one.recv(100).startswith(b"HTTP/1.1 400") or number
        one.close()

    def told():
        lines = [line for line in (running.folder / "logs/orkosi.log").read_text().splitlines() if "malformed" in line or "uncaptured" in line]
        return lines if sum(int(re.search(r"(\d+) malformed", line)[1]) for line in lines) == 300 else None
    assert 1 <= len(eventually(told)) <= time.monotonic() - began + 1, told()


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("127.0.0.1", 200), ("[::1]:3001", 200), ("192.168.7.7", 200), ("mini.example", 200), ("orkosi.example.com:443", 200),
    ("LOCALHOST.", 200), ("evil.example.com", 400), ("127.0.0.1.evil.example.com", 400), ("localhost:x", 400), ("", 400)])
def test_a_name_that_is_not_ours_is_refused(standing, host, status):
    one = connect(standing)
    one.sendall(f"GET /api/health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer(one)[0] == status


@pytest.mark.slow
def test_large_answers_wait_for_their_turn(server):
    """Lists of 50 MB at once, two of them never read: the memory stays bounded, and others are served."""
    running = server()
    token = server.admin(running)
    payload = {"text": "x" * 250_000}
    for _ in range(200):
        assert running.call("POST", "/task-queue/submit", {"task_type": "t", "payload": payload}, token)[0] == 201
    lists, outcomes = asked("/api/task-queue?limit=200", Authorization=f"Bearer {token}"), []

    def read():
        one = connect(running, timeout=40)
        one.sendall(lists)
        status, _, body = answer(one)
        outcomes.append((status, len(body)))
    idle = [connect(running) for _ in range(2)]
    for one in idle:
        one.sendall(lists)
    time.sleep(1)  # their answers are under way, which nobody outside can see
    readers = [threading.Thread(target=read) for _ in range(20)]
    for one in readers:
        one.start()
    waits = []
    while any(one.is_alive() for one in readers):
        waits.append(honest(running, 20))
        time.sleep(0.2)  # an honest client's pace
    for one in idle:
        one.close()
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{running.process.pid}/status").read_text())[1]) >> 10 if os.path.exists("/proc") else 0
    print(f"peak {peak} MB, waits {max(waits):.2f} s, {outcomes}")
    assert peak < 800, f"{peak} MB"
    assert {status for status, _ in outcomes} <= {200, 503} and max(waits) < 3
    assert [size for status, size in outcomes if status == 200 and size > 50_000_000], "who waited got his answer"
    status, found = running.call("GET", "/task-queue?limit=200", token=token, timeout=60)
    assert status == 200 and len(found["data"]) == 200, "a turn that ended is free again"
