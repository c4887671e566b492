"""Many who want nothing at the moment: a thousand idle connections, and a thousand claims that wait for a job.

Of the claims, those count as parked that are not answered at once. Where fewer are parked than were sent, the
row says so, and the others are of those that are.
"""
import contextlib
import json
import resource
import select
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import load
from load import Call
from ours import Server, Tokens, prepare, serving

CROWD, WAIT = 1_000, 25  # connections; seconds that a claim waits
Poll = Any  # select.poll() makes one, but is no class; it is there on macOS, too, where epoll is not
LIMITS = {"ORKOSI_TENANT_WAITING": "2000"}  # one tenant may have as many waiting as there are


def measure(table, folder: Path, rounds: int, seconds: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    seconds = min(seconds, 5)  # a parked claim waits 25 s, and all must be over by then
    tokens = prepare(folder / "crowd", 10_000, {})
    with serving(folder / "crowd", **LIMITS) as server:
        for number in range(rounds):
            with table.guard("idle connections"):
                idle(table, server, tokens, seconds, number)
            with table.guard("parked claims"):
                parked(table, server, tokens, seconds)


def listed(server: Server, tokens: Tokens, seconds: int) -> float:
    return load.wrk(server.url, [Call("/api/tasks?limit=20", None, tokens.reader)], seconds).rate


def idle(table, server: Server, tokens: Tokens, seconds: int, number: int) -> None:
    """Lists with and without the crowd; which comes first changes from round to round."""
    before = listed(server, tokens, seconds) if number % 2 == 0 else None
    request = f"GET /api/version HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\n\r\n".encode()
    with crowd(server, request) as (sockets, waiting):
        answered(sockets, waiting, 10)
        within = listed(server, tokens, seconds)
        left = CROWD - closed(sockets)
    if before is None:
        time.sleep(0.5)
        before = listed(server, tokens, seconds)
    table.add(f"list, with {CROWD:,} idle connections", "/s", within, "without", before, must="≥ 0.9×", note=f"{left:,} of them still open at its end")


def parked(table, server: Server, tokens: Tokens, seconds: int) -> None:
    before = listed(server, tokens, seconds)
    body = json.dumps({"worker_id": "w", "queue_name": "parked", "wait_seconds": WAIT}).encode()
    request = (f"POST /api/task-queue/claim HTTP/1.1\r\nHost: {urlsplit(server.url).netloc}\r\nAuthorization: {tokens.worker}\r\n"
               f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
    with crowd(server, request) as (sockets, waiting):
        time.sleep(2)
        at_once = answered(sockets, waiting, 0)
        count = CROWD - at_once
        of = f"{count:,} parked"
        table.add("claims that park", "", count, must=f"≥ {CROWD:,}", note=f"of {CROWD:,} sent; the others were answered at once")
        busy(table, server, seconds, of)
        table.add(f"list, with {CROWD:,} parked claims", "/s", listed(server, tokens, seconds), "without", before, must="≥ 0.9×", note=of)
        delays = [handed_over(server, tokens, sockets, waiting) for _ in range(min(100 if seconds > 1 else 20, count))]
        if delays:
            table.add("a submit answers a parked claim", "ms p50", statistics.median(delays), must="≤ 5 ms", note=f"{of}; slowest {max(delays):.1f} ms")


def busy(table, server: Server, seconds: int, of: str) -> None:
    """The share of one processor that the server takes while nobody asks for anything."""
    began, before = time.perf_counter(), server.busy()
    time.sleep(seconds)
    after, took = server.busy(), time.perf_counter() - began
    if before is None or after is None:
        table.skip("processor time with parked claims", "there is no /proc")
        return
    table.add(f"processor, {CROWD:,} parked claims, nothing to do", "%", 100 * (after - before) / took, must="< 2 %", note=f"{of}; over {took:.0f} s")


# ── the crowd ──


@contextlib.contextmanager
def crowd(server: Server, request: bytes) -> Iterator[tuple[dict[int, socket.socket], Poll]]:
    """A thousand connections that have sent this, by file number, and what tells which of them can be read."""
    place, sockets, waiting = urlsplit(server.url), {}, select.poll()
    try:
        for _ in range(CROWD):
            one = socket.create_connection((place.hostname, place.port), 10)
            sockets[one.fileno()] = one
            one.sendall(request)
            waiting.register(one, select.POLLIN)
        yield sockets, waiting
    finally:
        for one in sockets.values():
            one.close()


def answered(sockets: dict[int, socket.socket], waiting: Poll, patience: float) -> int:
    """Read the answers that are there, or, with patience, come until all have one. How many connections had something.

    A connection that was answered is watched no more."""
    count, end = 0, time.monotonic() + patience
    while True:
        ready = waiting.poll(100 if patience else 0)
        for number, _ in ready:
            sockets[number].recv(65536)
            waiting.unregister(number)
            count += 1
        if count >= CROWD or (not ready and time.monotonic() >= end):
            return count


def closed(sockets: dict[int, socket.socket]) -> int:
    """How many of them, all answered, the server has ended since: only those have something to read."""
    again = select.poll()
    for one in sockets.values():
        again.register(one, select.POLLIN)
    return len(again.poll(0))


def handed_over(server: Server, tokens: Tokens, sockets: dict[int, socket.socket], waiting: Poll) -> float:
    """ms from a submit being sent until one of the parked claims has its job."""
    client = load.Client(server.url, tokens.worker)
    try:
        client.ask("/api/version")  # the connection is made before the clock starts
        client.send("/api/task-queue/submit", {"task_type": "t", "queue_name": "parked"})
        began = time.perf_counter()
        while not (ready := [number for number, event in waiting.poll(5000) if event & select.POLLIN]):
            if time.perf_counter() - began > 5:
                raise RuntimeError("a submit answered no parked claim within 5 s")
        took = (time.perf_counter() - began) * 1000
        for number in ready:
            if b'"lease_token"' not in sockets[number].recv(65536):
                raise RuntimeError("a parked claim was answered without a job")
            waiting.unregister(number)
        client.receive()
        return took
    finally:
        client.close()
