"""A disk that flushes as slowly as Apple's: the server of slow_disk.py beside the same server on this disk.

Submits come from 32 connections. Reads are measured while one client submits fifty jobs a second on either
server, so that on the slow one a flush is always under way. A claim is measured one after the other while the
32 connections submit: it may wait for the flush that it finds under way, and for no second one.
"""
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import load
from load import Call
from ours import HOME, Server, Tokens, copied, prepare, serving

FLUSH, CONNECTIONS, TRICKLE, MOST_CLAIMS = 18, 32, 0.02, 2_000  # ms; …; seconds between two submits; a second
SUBMIT = {"task_type": "t", "queue_name": "slow"}
HERE = "this disk's own flush"


def measure(table, folder: Path, rounds: int, seconds: int) -> None:
    tokens = prepare(folder / "plain", 10_000, {"default": MOST_CLAIMS * seconds * rounds})
    copied(folder / "plain", folder / "slow")
    with serving(folder / "plain") as plain, serving(folder / "slow", HOME / "bench" / "slow_disk.py", FLUSH) as slow:
        for number in range(rounds):
            servers = [slow, plain] if number % 2 == 0 else [plain, slow]
            with table.guard("submits on a slow disk"):
                submits(table, servers, slow, plain, tokens, seconds)
            with table.guard("reads on a slow disk"):
                reads(table, servers, slow, plain, tokens, seconds)
            with table.guard("claims on a slow disk"):
                claims(table, slow, tokens, seconds)


def submit_call(tokens: Tokens) -> list[Call]:
    return [Call("/api/task-queue/submit", '{"task_type": "t", "queue_name": "slow"}', tokens.worker)]


def submits(table, servers: list[Server], slow: Server, plain: Server, tokens: Tokens, seconds: int) -> None:
    found = {server: load.wrk(server.url, submit_call(tokens), seconds, CONNECTIONS) for server in servers}
    what = f"flush of {FLUSH} ms: submit, {CONNECTIONS} connections"
    table.add(what, "/s", found[slow].rate, HERE, found[plain].rate, must="≥ 900")
    table.add("p99: " + what, "ms", found[slow].p99, HERE, found[plain].p99, must="≤ 60 ms")


def reads(table, servers: list[Server], slow: Server, plain: Server, tokens: Tokens, seconds: int) -> None:
    found = {}
    for server in servers:
        with trickle(server, tokens):
            found[server] = load.wrk(server.url, [Call("/api/tasks?limit=20", None, tokens.reader)], seconds)
    what = f"flush of {FLUSH} ms: list, while one client submits"
    table.add(what, "/s", found[slow].rate, HERE, found[plain].rate, must="≥ 0.77×")
    table.add("p99: " + what, "ms", found[slow].p99, HERE, found[plain].p99)


@contextlib.contextmanager
def trickle(server: Server, tokens: Tokens) -> Iterator[None]:
    """One client that submits a job every 20 ms. That it could is checked at the end."""
    done, sent, broken = threading.Event(), [0], []

    def run() -> None:
        client = load.Client(server.url, tokens.worker)
        try:
            while not done.wait(TRICKLE):
                client.post("/api/task-queue/submit", SUBMIT)
                sent[0] += 1
        except Exception as error:
            broken.append(error)
        finally:
            client.close()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)
    if broken or not sent[0]:
        raise RuntimeError(f"the submits under the reads failed: {broken or 'none was answered'}")


def claims(table, slow: Server, tokens: Tokens, seconds: int) -> None:
    """How long claims take while every flush has a batch of submits in it."""
    client, took = load.Client(slow.url, tokens.worker), []
    try:
        with load.under_load(slow.url, submit_call(tokens), seconds + 1, CONNECTIONS) as submitting:
            time.sleep(0.5)
            end = time.perf_counter() + seconds - 0.5
            while (began := time.perf_counter()) < end:
                if client.post("/api/task-queue/claim", {"worker_id": "w"}) is None:
                    raise RuntimeError("there are no jobs left to claim")
                took.append((time.perf_counter() - began) * 1000)
            rate = load.answer_of(submitting, seconds + 1).rate
    finally:
        client.close()
    took.sort()
    note = f"p50 {took[len(took) // 2]:.1f} ms, {len(took):,} claims in the last round"
    table.add(f"flush of {FLUSH} ms: p99 of a claim while {CONNECTIONS} connections submit", "ms", took[int(len(took) * 0.99)], must="≤ 30 ms",
              note=f"one flush, and a turn of writes, which ends after 10 ms; {note}; {rate:,.0f} submits/s meanwhile")
