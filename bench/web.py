"""The server over HTTP with eight connections, FULL, beside PocketBase and Express 5 on PostgreSQL.

All of them run at once, and in each round ours and each peer are asked the same one after the other; which goes
first changes from round to round. Who lists has a tenant of its own, so that the 10,000 tasks stay as many while
others are created; claims have jobs enough waiting on both sides, and that some are left is checked at the end.
"""
import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import load
from load import Call, Found
from ours import Server, Tokens, prepare, serving
from peers.express import Express, express
from peers.pocketbase import PocketBase, pocketbase

TASKS, MOST_CLAIMS, HUNDREDS = 10_000, 8_000, 5_000  # claims: a second, at most
WARM = 2  # seconds: Node compiles what it runs often, and needs them
EXPRESS, POCKETBASE = "Express 5 + PostgreSQL", "PocketBase"
SUBMIT = '{"task_type": "t", "payload": {"n": 1}, "queue_name": "submitted"}'
CLAIM = '{"worker_id": "w"}'
LATE = "≤ 25 ms (aim 15 ms)"


class Peer(NamedTuple):
    """How a peer is asked the same; `before` comes right before it is measured. One without a url is not installed."""
    name: str
    url: str
    calls: list[Call]
    must: str = ""
    before: Callable[[], object] = lambda: None


class What(NamedTuple):
    name: str
    calls: list[Call]
    peers: list[Peer]


def mixed(reader: str, worker: str) -> list[Call]:
    return [Call("/api/tasks?limit=20", None, reader, 70), Call("/api/task-queue/submit", SUBMIT, worker, 15), Call("/api/task-queue/claim", CLAIM, worker, 15)]


def comparisons(tokens: Tokens, other: Express | None, pocket: PocketBase | None) -> list[What]:
    """What is asked of whom."""
    url, reader, worker = (other.url, "Bearer " + other.reader, "Bearer " + other.worker) if other else ("", "", "")

    def beside(calls: list[Call], must: str = "", name: str = EXPRESS) -> list[Peer]:
        return [Peer(name, url, calls, must)]
    found, records = [], "/api/collections/{}/records"
    listed = beside([Call("/api/tasks?limit=20", None, reader)], "≥ 1.2× (aim 1.5×)", EXPRESS + ", without total")
    listed += beside([Call("/api/tasks?limit=20&total=1", None, reader)], "", EXPRESS + ", with total")
    place, token = (pocket.url, pocket.token) if pocket else ("", "")
    page, body = records.format("tasks") + "?perPage=20&sort=-@rowid", '{"title": "Task @", "status": "todo", "created_by": "bench"}'
    listed = [Peer(POCKETBASE + ", skipTotal=1", place, [Call(page + "&skipTotal=1", None, token)], "≥ 2.2×"),
              Peer(POCKETBASE + ", with total", place, [Call(page, None, token)]), *listed]
    created = [Peer(f"{POCKETBASE}, a plain create, synchronous {level}", place, [Call(records.format("created"), body, token)],
                    must, partial(pocket.synchronous, level) if pocket else lambda: None) for level, must in (("full", "(aim 1×)"), ("normal", ""))]
    found.append(What("health", [Call("/api/health")], beside([Call("/api/health")], "≥ 1.0×", EXPRESS + ", without asking the database")
                      + beside([Call("/api/health?database=1")], "", EXPRESS + ", asking it, as ours does")))
    found.append(What("list 20 of 10,000 tasks, with total", [Call("/api/tasks?limit=20", None, tokens.reader)], listed))
    found.append(What("submit a job", [Call("/api/task-queue/submit", SUBMIT, tokens.worker)],
                      beside([Call("/api/task-queue/submit", SUBMIT, worker)], "≥ 1.3× (aim 2×)", EXPRESS + ", synchronous_commit on")))
    found.append(What("claim a job", [Call("/api/task-queue/claim", CLAIM, tokens.worker)],
                      beside([Call("/api/task-queue/claim", CLAIM, worker)], "≥ 1.0× (aim 1.3×)", EXPRESS + ", SKIP LOCKED, synchronous_commit off")))
    found.append(What("create a task", [Call("/api/tasks", '{"title": "Task @"}', tokens.worker)], created))
    found.append(What("70 % list, 15 % submit, 15 % claim", mixed(tokens.reader, tokens.worker), beside(mixed(reader, worker))))
    return found


def measure(table, folder: Path, rounds: int, seconds: int) -> None:
    """All rounds, then what the server takes, and how long it needs to start again."""
    claims = MOST_CLAIMS * (seconds * rounds + WARM) * 115 // 100  # the mixed run takes 15 % of its own
    data = folder / "web"
    tokens = prepare(data, TASKS, {"default": claims, "hundreds": HUNDREDS * rounds})
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(data))
        time.sleep(1)
        idle = server.memory()
        other = peer(table, stack, EXPRESS, lambda: express(TASKS, claims))
        pocket = peer(table, stack, POCKETBASE, lambda: pocketbase(TASKS))
        whats = comparisons(tokens, other, pocket)
        if seconds > 1:
            with table.guard("warming up"):
                warm(server, whats)
        for number in range(rounds):
            for what in whats:
                with table.guard(what.name):
                    one(table, server, what, seconds, number)
            with table.guard("in hundreds"):
                hundreds(table, server, tokens)
        with table.guard("jobs left to claim"):
            jobs_left(server, tokens, other)
        table.add("resident memory, idle", "MB", idle, must="≤ 70 MB (aim 60 MB)")
        table.add("resident memory, after the run", "MB", server.memory(), must="≤ 70 MB")
    size = (data / "orkosi.db").stat().st_size >> 20
    for _ in range(rounds):
        with serving(data) as server:
            table.add("start to ready", "ms", server.ready * 1000, must="≤ 500 ms", note=f"with a database of {size} MB")


def peer(table, stack: contextlib.ExitStack, name: str, start: Callable):
    """A running peer until the stack ends, or None: one that does not start must not keep ours from being measured."""
    found = None
    with table.guard(name):
        found = stack.enter_context(start())
        if found is None:
            table.skip(name, "not installed")
    return found


def warm(server: Server, whats: list[What]) -> None:
    for what in whats:
        for url, calls in [(server.url, what.calls), *((one.url, one.calls) for one in what.peers if one.url)]:
            load.wrk(url, calls, WARM)


def one(table, server: Server, what: What, seconds: int, number: int) -> None:
    """One comparison of one round."""
    there = [who for who in what.peers if who.url]
    order: list[Peer | None] = [None, *there]
    found: dict[str, Found] = {}
    for who in order if number % 2 == 0 else reversed(order):
        if who:
            who.before()
        found[who.name if who else ""] = load.wrk(who.url if who else server.url, who.calls if who else what.calls, seconds)
    ours = found[""]
    for who in what.peers:
        theirs = found.get(who.name)
        table.add(what.name, "/s", ours.rate, who.name, theirs and theirs.rate, must=who.must, note="" if theirs else "not installed, skipped")
    first = next((who.name for who in there if who.must), there[0].name if there else "")
    table.add(f"p99: {what.name}", "ms", ours.p99, first, found[first].p99 if first else None, must=LATE)


def hundreds(table, server: Server, tokens: Tokens) -> None:
    """Claim a hundred jobs in one request, and complete them in another, on one connection."""
    client = load.Client(server.url, tokens.worker)
    try:
        status, _ = client.ask("/api/task-queue/complete", {"jobs": []})
        if status in (404, 405):
            table.skip("claim and complete in hundreds over HTTP", f"POST /api/task-queue/complete answers {status}")
            return
        began, done = time.perf_counter(), 0
        while done < HUNDREDS:
            found = client.post("/api/task-queue/claim", {"worker_id": "w", "queue_name": "hundreds", "batch_size": 100})
            client.post("/api/task-queue/complete", {"jobs": [{"id": job["id"], "lease_token": job["lease_token"], "result": None} for job in found]})
            done += len(found)
        table.add("claim and complete in hundreds over HTTP, one connection", "/s", done / (time.perf_counter() - began))
    finally:
        client.close()


def jobs_left(server: Server, tokens: Tokens, other: Express | None) -> None:
    """That no claim was answered with nothing, which is quicker: jobs must be left on both sides."""
    client = load.Client(server.url, tokens.worker)
    try:
        if client.post("/api/task-queue/claim", {"worker_id": "w"}) is None:
            raise RuntimeError("ours ran out of jobs, so its claims were in part empty")
    finally:
        client.close()
    if other and other.value("SELECT count(*) FROM (SELECT 1 FROM jobs WHERE queue = 'default' AND state = 'waiting' LIMIT 1) one") != "1":
        raise RuntimeError("Express ran out of jobs, so its claims were in part empty")
