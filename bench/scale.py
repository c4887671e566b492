"""Work at scale: a thousand event streams while tasks change, ten thousand schedules due in a minute, and claims beside long queues.

Surprise: client and server share this machine's cores. So the client of the streams is a process of its own, in which one poll reads them
all, and the server's processor time is its own, as /proc has it.
"""
import contextlib
import json
import resource
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import load
from ours import Server, Tokens, prepare, serving

STREAMS, RATE = 1_000, 500
SCHEDULES = 10_000
LENGTHS = (1_000, 100_000, 1_000_000)
CLAIMS = 600  # of each length
FINISHED = 5_000_000


def measure(table, folder: Path, rounds: int, seconds: int, quick: bool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    tokens = prepare(folder / "scale", 10, {})
    with serving(folder / "scale") as server:
        for _ in range(rounds):
            with table.guard("event streams"):
                streams(table, server, tokens, 3 if quick else max(10, seconds))
    with table.guard("schedules"):
        schedules(table, folder / "schedules", 300 if quick else SCHEDULES)
    with table.guard("long queues"):
        claims(table, folder / "long", quick)


# ── event streams ──


def streams(table, server: Server, tokens: Tokens, seconds: int) -> None:
    reader = subprocess.Popen([sys.executable, __file__, server.url, tokens.worker, str(STREAMS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reader.stdin and reader.stdout
    try:
        opened = json.loads(reader.stdout.readline())
        before, began = server.busy(), time.perf_counter()
        changed = change(server, tokens, seconds)
        took, after = time.perf_counter() - began, server.busy()
        reader.stdin.write(f"{changed}\n")
        reader.stdin.flush()
        found = json.loads(reader.stdout.readline())
    finally:
        reader.kill()
        reader.wait()
    note = f"{opened:,} streams, {changed:,} changes in {took:.0f} s"
    table.add("event streams that are complete and in order", "", found["whole"], must=f"≥ {STREAMS:,}", note=note)
    table.add(f"an event reaches each of {STREAMS:,} streams", "ms p99", found["p99"], must="≤ 250 ms", note=f"p50 {found['p50']:.0f} ms")
    if before is not None and after is not None:
        table.add(f"processor, {STREAMS:,} streams", "%", 100 * (after - before) / took, must="≤ 100 %",
                  note=f"of one core; with {changed / took:.0f} changes a second themselves, in the last round")


def change(server: Server, tokens: Tokens, seconds: int) -> int:
    """Make tasks at a steady pace; how many."""
    client, began, made = load.Client(server.url, tokens.worker), time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        while made < passed * RATE:
            client.send("/api/tasks", {"title": f"change {made}", "dedupe": False})
            client.receive()
            made += 1
        time.sleep(0.002)
    client.close()
    return made


def read_streams(url: str, token: str, count: int) -> None:
    """The process of the client: open the streams, say so, and read until all changes are there or 10 s have passed."""
    place, sockets, waiting = urlsplit(url), {}, select.epoll() if hasattr(select, "epoll") else None
    assert waiting, "this takes epoll"
    for _ in range(count):
        one = socket.create_connection((place.hostname, place.port), 10)
        one.sendall(f"GET /api/events?type=task.created HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: {token}\r\n\r\n".encode())
        sockets[one.fileno()] = one
        one.setblocking(False)
        waiting.register(one, select.EPOLLIN)
    time.sleep(1)
    texts = dict.fromkeys(sockets, b"")
    print(len(sockets), flush=True)
    wanted: list[int] = []
    threading.Thread(target=lambda: wanted.append(int(sys.stdin.readline())), daemon=True).start()
    delays: list[float] = []
    seen: dict[int, list[int]] = {number: [] for number in sockets}
    end = float("inf")
    while time.monotonic() < end:
        if wanted and end == float("inf"):
            end = time.monotonic() + 10
        for number, _ in waiting.poll(0.2):
            with contextlib.suppress(BlockingIOError):
                texts[number] += sockets[number].recv(1 << 20)
            whole, mark, texts[number] = texts[number].rpartition(b"\n\n")
            moment = time.time()
            ids, made = told(whole + mark)
            seen[number] += ids
            if number % 20 == 0:
                delays += [moment - one for one in made]
        if wanted and all(len(ids) >= wanted[0] for ids in seen.values()):
            break
    whole_streams = sum(1 for ids in seen.values() if len(ids) == wanted[0] and ids == sorted(set(ids)))
    delays.sort()
    print(json.dumps({"whole": whole_streams, "p50": 1000 * statistics.median(delays), "p99": 1000 * delays[int(len(delays) * 0.99)]}), flush=True)


@lru_cache(maxsize=100)
def told(text: bytes) -> tuple[list[int], list[float]]:
    """The numbers of some events, and when each was committed. The same is read on a thousand streams: to take it apart each time, this
    client would need the core that the server has."""
    blocks = [block for block in text.split(b"\n\n") if b"\ndata: " in block]
    made = [json.loads(block[block.index(b"data: ") + 6:])["created_at"] for block in blocks]
    return ([int(block[block.index(b"id: ") + 4:block.index(b"\nevent")]) for block in blocks],
            [datetime.fromisoformat(one.replace("Z", "+00:00")).timestamp() for one in made])


# ── schedules ──


def schedules(table, folder: Path, many: int) -> None:
    """So many schedules that are due in one minute: how long after its moment the last job of a second is claimed."""
    tokens = prepare(folder, 0, {})
    first = (int(time.time()) // 60 + 2) * 60 if many > 1000 else int(time.time()) + 8
    span = 60 if many > 1000 else 5
    with kept(folder, many, first, span), serving(folder) as server:
        client, late, met = load.Client(server.url, tokens.worker), [], 0
        while met < many and time.time() < first + span + 30:
            found = client.post("/api/task-queue/claim", {"worker_id": "w", "queue_name": "due", "batch_size": 100, "wait_seconds": 1}) or []
            moment = time.time()
            late += [moment - one["payload"]["at"] for one in found]
            met += len(found)
            if found:
                client.post("/api/task-queue/complete", {"jobs": [{"id": one["id"], "lease_token": one["lease_token"]} for one in found]})
        client.close()
    if met != many:
        raise RuntimeError(f"{met} of {many} schedules fired")
    late.sort()
    table.add(f"{many:,} schedules due in {span} s: the last is late by", "s", late[-1], must="≤ 2", note=f"p99 {late[int(len(late) * 0.99)]:.2f} s; claimed by one worker")


@contextlib.contextmanager
def kept(folder: Path, many: int, first: int, span: int) -> Iterator[None]:
    """Schedules whose slots are spread over the seconds of a minute; no server may run."""
    from orkosi import acting, settings, system
    from plugins import schedules, storage
    settings.load(data=folder, durability="process")
    storage.open_data()
    with acting(system()):
        for n in range(many):
            at = first + n % span
            schedules.keep("due", f"s{n}", {"at": at}, every=3_600_000, delay=at - time.time())
    storage.close_data()
    yield


# ── long queues ──


def claims(table, folder: Path, quick: bool) -> None:
    """How long a claim takes beside so many waiting jobs, and from a short queue of the same file, with millions finished."""
    from engine import jobs

    import orkosi
    from orkosi import acting, now, settings, system
    orkosi.load()
    from plugins import queue, storage
    settings.load(data=folder, durability="process")
    storage.open_data()
    lengths, finished = ((1_000, 10_000), 50_000) if quick else (LENGTHS, FINISHED)
    few, *longer = lengths
    try:
        with acting(system()):
            jobs(finished, queue="flat", state="completed", finished_at=now())
            jobs(few - CLAIMS, queue="few", state="waiting")
            there = 0
            for length in longer:
                jobs(CLAIMS, queue="few", state="waiting")
                jobs(length - there, queue="flat", state="waiting")
                took = [(claim(queue, "few"), claim(queue, "flat")) for _ in range(CLAIMS)]  # by turns: a machine is not as fast at any time
                there = length - CLAIMS
                short, long = (statistics.median(each) for each in zip(*took, strict=True))
                table.add(f"claim, {length:,} waiting, {finished:,} finished", "µs p50", long, f"with {few:,} waiting, by turns", short, must="≤ 1.3×")
    finally:
        storage.close_data()


def claim(queue, name: str) -> float:
    began = time.perf_counter()
    job = queue.claim(name, "w")[0]
    took = (time.perf_counter() - began) * 1e6
    queue.complete(job.id, job.lease_token)
    return took


if __name__ == "__main__":
    read_streams(sys.argv[1], sys.argv[2], int(sys.argv[3]))
